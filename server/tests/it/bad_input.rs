//! Whatever is sent, what comes back is a problem document that says what is wrong; nothing that
//! was stored is lost, and no memory is kept.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::http::{Connection, Reply, get, read_all, request};
use crate::process::Node;

mod rows;
mod slow;

use rows::{BODY_BYTES_MAX, Row};

/// How often all rows are sent while memory is watched.
const ROUNDS: usize = 10;
/// How much more memory a node may have after bad input than before it: docs/operations.md.
pub(crate) const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// How many good messages are there.
const MESSAGES: usize = 100;

#[track_caller]
pub(crate) fn is_problem(reply: &Reply, status: u16, detail: &str, what: &str) -> Value {
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

/// A node with messages in `t`, and a subscription `s`.
#[track_caller]
fn filled(folder: &tempfile::TempDir) -> (Node, Vec<Value>) {
    let limit = format!("{BODY_BYTES_MAX}");
    let node = Node::start_with(&folder.path().join("data"), &["--body-max-size", &limit]);
    let at = &node.address;
    for number in 0..MESSAGES {
        let body = json!({"topic": "t", "id": format!("m-{number}"), "payload": number});
        assert_eq!(request(at, "POST", "/publish", &body.to_string()).status, 200);
    }
    assert_eq!(request(at, "POST", "/subscribe", r#"{"id":"s","topics":["t"]}"#).status, 200);
    let messages = read_all(at, "t");
    assert_eq!(messages.len(), MESSAGES);
    (node, messages)
}

/// The memory that the node has, in bytes.
#[track_caller]
pub(crate) fn resident(node: &Node) -> u64 {
    let metrics = get(&node.address, "/metrics?format=json").json();
    metrics["system"]["process_resident_bytes"].as_u64().expect("a figure")
}

#[track_caller]
fn send(at: &str, row: &Row) {
    let Row { method, path, body, .. } = row;
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let what = format!("{method} {path} {shown}");
    let mut connection = Connection::open(at).expect("it listens");
    let reply = connection.send(method, path, body);
    let reply = reply.unwrap_or_else(|error| panic!("{what}: {error}"));
    let document = is_problem(&reply, row.status, &row.detail, &what);
    let publish = ["/publish", "/publish/batch", "/topics/{topic}/messages"];
    if method == "POST" && publish.contains(&&*row.template) {
        assert_eq!(document["stored"], "no", "{what}: {document}");
    }
    if row.status == 405 {
        assert!(reply.header("allow").is_some(), "{what}: {}", reply.head);
    }
}

#[test]
fn every_endpoint_refuses_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, before) = filled(&folder);
    let at = &node.address;
    let document = get(at, "/openapi.json").json();
    let rows = rows::rows(&document);
    let operations =
        document["paths"].as_object().expect("paths").iter().flat_map(|(path, item)| {
            item.as_object()
                .expect("operations")
                .keys()
                .map(move |method| (method.to_uppercase(), path))
        });
    let tried: BTreeSet<(&str, &str)> =
        rows.iter().map(|row| (&*row.method, &*row.template)).collect();
    for (method, path) in operations {
        assert!(tried.contains(&(&*method, path)), "no rows for {method} {path}");
    }
    rows.iter().for_each(|row| send(at, row));
    let resident_before = resident(&node);
    for _ in 0..ROUNDS {
        rows.iter().for_each(|row| send(at, row));
    }
    let resident_after = resident(&node);
    println!("{} rows, resident {resident_before} before, {resident_after} after", rows.len());
    let grown = resident_after.saturating_sub(resident_before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more");
    assert_eq!(read_all(at, "t"), before, "what was stored");
    let topics = get(at, "/topics").json();
    assert_eq!((&topics["count"], &topics["topics"][0]["name"]), (&1.into(), &"t".into()));
    assert_eq!(get(at, "/subscriptions").json()["count"], 1);
}

#[test]
fn a_bad_message_does_not_spoil_its_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, before) = filled(&folder);
    let at = &node.address;
    let bad: Vec<_> = rows::messages().collect();
    let mut lines: Vec<&str> = bad.iter().map(|(line, ..)| *line).collect();
    lines.push(r#"{"topic":"t","payload":"good"}"#);
    let reply = request(at, "POST", "/publish/batch", &lines.join("\n"));
    assert_eq!(reply.status, 207, "{}", reply.json());
    let answers = reply.json();
    let answers = answers.as_array().expect("one answer each");
    assert_eq!(answers.len(), lines.len());
    for ((line, status, detail), answer) in bad.iter().zip(answers) {
        assert_eq!(
            (&answer["status"], &answer["stored"]),
            (&json!(status), &json!("no")),
            "{line}"
        );
        assert!(answer["detail"].as_str().is_some_and(|said| said.contains(detail)), "{answer}");
    }
    assert_eq!(answers.last().expect("the good one")["offset"], before.len());
}

#[test]
fn what_is_no_endpoint_is_said_and_the_id_of_a_refused_publish_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _) = filled(&folder);
    let at = &node.address;
    for path in ["/nowhere", "/topics/t/messages/x", "/topics//", "/%2e%2e/etc", "//publish"] {
        is_problem(&get(at, path), 404, "no endpoint", path);
    }
    let given = r#"{"topic":"a b","payload":"x","id":"mine"}"#;
    assert_eq!(request(at, "POST", "/publish", given).json()["id"], "mine");
    let made = request(at, "POST", "/publish", r#"{"topic":"a b","payload":"x"}"#).json();
    assert!(made["id"].is_string(), "{made}");
    let many = "x".repeat(5_000);
    for (header, status, detail) in [
        ("sprawl-ttl: x", 400, "sprawl-ttl: "),
        ("sprawl-delay: -1", 400, "sprawl-delay: "),
        ("sprawl-priority: 10", 422, "priority: 10"),
        ("sprawl-priority: 18446744073709551616", 400, "sprawl-priority: "),
        ("sprawl-expected-offset: -1", 400, "sprawl-expected-offset: "),
        ("sprawl-expected-offset: 18446744073709551615", 422, "sprawl-expected-offset: "),
        ("sprawl-producer: p", 422, "go together"),
        ("sprawl-sequence: 1", 422, "go together"),
        ("sprawl-producer: a b\r\nsprawl-sequence: 1", 422, "producer: a name"),
        ("sprawl-producer: \r\nsprawl-sequence: 1", 422, "producer: a name"),
        ("sprawl-producer: p\r\nsprawl-sequence: x", 400, "sprawl-sequence: "),
        ("sprawl-producer: p\r\nsprawl-sequence: -1", 400, "sprawl-sequence: "),
        ("sprawl-producer: p\r\nsprawl-sequence: 9223372036854775808", 422, "sequence: "),
        ("sprawl-colour: red", 400, "'sprawl-colour'"),
        ("sprawl-id: ", 422, "id: "),
        ("sprawl-key: \u{e9}\u{ff}", 200, ""),
        (&format!("sprawl-key: {many}"), 422, "key: longer than"),
        (&format!("content-type: {many}"), 422, "content_type: longer than"),
    ] {
        let head = "POST /topics/t/messages HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n";
        let mut connection = Connection::open(at).expect("it listens");
        let reply = connection.send_raw(format!("{head}{header}\r\n\r\nx").as_bytes());
        let reply = reply.expect("an answer");
        if status == 200 {
            assert_eq!(reply.status, 200, "{header}: {}", reply.json());
        } else {
            let document = is_problem(&reply, status, detail, header);
            assert_eq!(document["stored"], "no", "{header}");
        }
    }
    let head = b"POST /topics/t/messages HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nsprawl-key: ";
    let mut connection = Connection::open(at).expect("it listens");
    let reply = connection.send_raw(&[&head[..], b"\xff\r\n\r\n"].concat()).expect("an answer");
    is_problem(&reply, 400, "sprawl-key: the header is not UTF-8", "a header of Latin-1");
}

#[test]
fn what_is_too_large_is_refused_and_the_connection_is_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _) = filled(&folder);
    let at = &node.address;
    let mut connection = Connection::open(at).expect("it listens");
    let large = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    let reply = connection.send("POST", "/publish", large.as_bytes()).expect("an answer");
    is_problem(&reply, 413, "at most 1048576 bytes", "a large body");
    let fits = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(BODY_BYTES_MAX - 64));
    let reply = connection.send("POST", "/publish", fits.as_bytes()).expect("an answer");
    assert_eq!(reply.status, 200);
    let head = "POST /publish HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let reply = connection.send_raw(chunks.as_bytes()).expect("an answer");
    is_problem(&reply, 413, "at most 1048576 bytes", "large chunks");
    let headers = "x: y\r\n".repeat(200);
    for (head, statuses) in [
        (format!("GET /health HTTP/1.1\r\nhost: h\r\n{headers}\r\n"), &[431][..]),
        (format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "x".repeat(70_000)), &[414, 431]),
        ("GET /health HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n".to_owned(), &[400]),
        ("POST /publish HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n".to_owned(), &[400]),
    ] {
        let mut connection = Connection::open(at).expect("it listens");
        let reply = connection.send_raw(head.as_bytes()).expect("an answer");
        assert!(statuses.contains(&reply.status), "{statuses:?}: {}", reply.head);
    }
}
