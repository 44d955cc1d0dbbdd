//! Whatever is sent, what comes back is a problem document that says what is wrong.

use serde_json::Value;

use crate::http::{Connection, Reply, get, request};
use crate::process::Node;

/// Method, path, body, status, and what the detail must say.
const BAD: [(&str, &str, &str, u16, &str); 50] = [
    ("GET", "/nowhere", "", 404, "no endpoint '/nowhere'"),
    ("GET", "/topics/t/messages/x", "", 404, "no endpoint"),
    ("DELETE", "/topics", "", 405, "does not take DELETE"),
    ("GET", "/publish", "", 405, "does not take GET"),
    ("POST", "/health", "", 405, "does not take POST"),
    ("POST", "/publish", "", 400, "the body is empty"),
    ("POST", "/publish", "{", 400, "not JSON"),
    ("POST", "/publish", "\"t\"", 400, "expected form"),
    ("POST", "/publish", "[]", 400, "must be a JSON object"),
    ("POST", "/publish", "\u{0}", 400, "not JSON"),
    ("POST", "/publish", r#"{"payload":"x"}"#, 400, "missing field `topic`"),
    ("POST", "/publish", r#"{"topic":"t"}"#, 400, "payload"),
    ("POST", "/publish", r#"{"topic":7,"payload":"x"}"#, 400, "expected form"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x"} y"#, 400, "not JSON"),
    ("POST", "/publish", r#"{"topic":"t","payload":"\ud800"}"#, 400, "payload"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","ttl":"10s"}"#, 400, "field 'ttl'"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","delay":1}"#, 400, "field 'delay'"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","priority":1}"#, 400, "field 'priority'"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","payload_base64":""}"#, 400, "both"),
    ("POST", "/publish", r#"{"topic":"t","payload_base64":"!"}"#, 422, "payload_base64"),
    ("POST", "/publish", r#"{"topic":"t","payload_base64":7}"#, 400, "payload_base64"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","headers":{"a":1}}"#, 400, "a string"),
    ("POST", "/publish", r#"{"topic":"","payload":"x"}"#, 422, "topic: a name has 1 to 249"),
    ("POST", "/publish", r#"{"topic":"a b","payload":"x"}"#, 422, "topic: a name consists of"),
    ("POST", "/publish", r#"{"topic":"..","payload":"x"}"#, 422, "topic: a name has no empty"),
    ("POST", "/publish", r#"{"topic":"_sys","payload":"x"}"#, 422, "the system's own"),
    ("POST", "/publish", r#"{"topic":"t","payload":"x","id":""}"#, 422, "id: a message id"),
    ("POST", "/subscribe", "", 400, "the body is empty"),
    ("POST", "/subscribe", "{}", 400, "missing field `topics`"),
    ("POST", "/subscribe", r#"{"topics":[]}"#, 422, "topics: a subscription names 1 to"),
    ("POST", "/subscribe", r#"{"topics":["a.*"]}"#, 422, "no wildcards"),
    ("POST", "/subscribe", r#"{"topics":["t"],"id":"a b"}"#, 422, "id: a name consists"),
    ("POST", "/subscribe", r#"{"topics":["t"],"from":"2026-01-01T00:00:00Z"}"#, 422, "from:"),
    ("POST", "/subscribe", r#"{"topics":["t"],"group":"g"}"#, 400, "field 'group'"),
    ("POST", "/subscribe", r#"{"topics":["t"],"ack_wait":"0"}"#, 422, "ack_wait: it is from"),
    ("POST", "/subscribe", r#"{"topics":["t"],"ack_wait":"soon"}"#, 400, "no duration"),
    ("GET", "/topics/none", "", 404, "no topic 'none'"),
    ("GET", "/topics/none/messages", "", 404, "no topic 'none'"),
    ("GET", "/topics/t/messages?partition=9", "", 404, "no partition 9"),
    ("GET", "/topics/t/messages?offset=x", "", 400, "offset: 'x'"),
    ("GET", "/topics/t/messages?offset=-1", "", 400, "offset: '-1'"),
    ("GET", "/topics/t/messages?max=0", "", 422, "max: 0"),
    ("GET", "/topics/t/messages?max=1001", "", 422, "max: 1001"),
    ("GET", "/topics/t/messages?wait=31s", "", 422, "wait: '31s'"),
    ("GET", "/topics/t/messages?at=now", "", 400, "parameter 'at'"),
    ("GET", "/topics/%FF/messages", "", 400, "UTF-8"),
    ("GET", "/subscriptions/none", "", 404, "no subscription 'none'"),
    ("GET", "/subscriptions/none/messages", "", 404, "no subscription 'none'"),
    ("POST", "/subscriptions/none/ack", r#"{"tokens":["1-0-1"]}"#, 404, "no subscription"),
    ("POST", "/subscriptions/none/ack", r#"{"tokens":["x"]}"#, 422, "not an ack_token"),
];

#[track_caller]
fn is_problem(reply: &Reply, status: u16, detail: &str, what: &str) -> Value {
    let document = reply.json();
    assert_eq!(reply.status, status, "{what}: {document}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(document["status"].as_u64(), Some(u64::from(status)), "{what}: {document}");
    assert_eq!(document["error"], document["detail"], "{what}: {document}");
    for field in ["type", "title", "detail"] {
        assert!(document[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {field}");
    }
    let said = document["detail"].as_str().unwrap_or_default();
    assert!(said.contains(detail), "{what}: {said:?} does not say {detail:?}");
    document
}

#[test]
fn bad_input_gets_a_problem_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    request(at, "POST", "/publish", r#"{"topic":"t","payload":"good"}"#);
    for (method, path, body, status, detail) in BAD {
        let what = format!("{method} {path} {body}");
        let reply = request(at, method, path, body);
        let document = is_problem(&reply, status, detail, &what);
        let publish = (method, path) == ("POST", "/publish");
        assert_eq!(document.get("stored"), publish.then(|| "no".into()).as_ref(), "{what}");
        if publish && body.contains("\"topic\"") && body.ends_with('}') && !body.contains("\\u") {
            assert!(document["id"].is_string(), "{what}: {document}");
        }
        if status == 405 {
            assert!(reply.header("allow").is_some(), "{what}: {}", reply.head);
        }
    }
    let given = r#"{"topic":"a b","payload":"x","id":"mine"}"#;
    assert_eq!(request(at, "POST", "/publish", given).json()["id"], "mine");
    let topics = get(at, "/topics").json();
    assert_eq!((&topics["count"], &topics["topics"][0]["message_count"]), (&1.into(), &1.into()));
}

#[test]
fn what_is_too_large_is_refused_and_the_connection_is_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start_with(&folder.path().join("data"), &["--body-max-size", "1MiB"]);
    let at = &node.address;
    let large = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(1 << 20));
    let document = is_problem(
        &request(at, "POST", "/publish", &large),
        413,
        "at most 1048576 bytes",
        "a large body",
    );
    assert_eq!(document["stored"], "no");
    let fits = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat((1 << 20) - 64));
    assert_eq!(request(at, "POST", "/publish", &fits).status, 200);
    let mut connection = Connection::open(at).expect("it listens");
    let headers = "x: y\r\n".repeat(200);
    let many = format!("GET /health HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
    let reply = connection.send_raw(many.as_bytes()).expect("an answer");
    assert_eq!(reply.status, 431, "{}", reply.head);
}
