//! What a message says is nobody's business but its reader's: no log holds a payload.

use std::fs;

use serde_json::json;

use crate::http::{get, request};
use crate::process::Node;

/// Stands in every payload; in base64 it is the second.
const SECRET: &str = "xyzzy-plugh-secret";
const ENCODED: &str = "eHl6enktcGx1Z2gtc2VjcmV0";

#[test]
fn no_log_holds_a_payload() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let node = Node::start_with(&data, &["--log-level", "trace"]);
    let at = &node.address;
    request(at, "POST", "/subscribe", r#"{"id":"s","topics":["t"]}"#);
    for body in [
        json!({"topic": "t", "id": "a", "payload": SECRET}),
        json!({"topic": "t", "id": "a", "payload": SECRET}),
        json!({"topic": "t", "payload": {"deep": SECRET}}),
        json!({"topic": "t", "payload_base64": ENCODED}),
        json!({"topic": "t", "payload": SECRET, "headers": {"h": SECRET}, "key": SECRET}),
        json!({"topic": "t", "payload": SECRET, "color": 1}),
        json!({"topic": "a b", "payload": SECRET}),
    ] {
        request(at, "POST", "/publish", &body.to_string());
    }
    request(at, "POST", "/publish", &format!("{{\"topic\":\"t\",\"payload\":\"{SECRET}"));
    assert_eq!(get(at, "/topics/t/messages").json()["messages"].as_array().map(Vec::len), Some(4));
    let pulled = get(at, "/subscriptions/s/messages?wait=5s").json();
    let tokens = json!({"tokens": [pulled["messages"][0]["ack_token"]]});
    assert_eq!(request(at, "POST", "/subscriptions/s/ack", &tokens.to_string()).status, 200);
    let log = node.log();
    assert!(log.contains("answered"), "the log is at level trace: {log}");
    silent("the log", &log);
    assert!(node.stop().success());
    for entry in fs::read_dir(data.join("db")).expect("a database") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("LOG") {
            silent(name, &String::from_utf8_lossy(&fs::read(&path).expect("a file")));
        }
    }
}

fn silent(name: &str, log: &str) {
    for secret in [SECRET, ENCODED] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{name} holds a payload");
    }
}
