//! Publishing, reading back, subscribing; and that light load is never refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::http::{Connection, get, read_all, request};
use crate::process::Node;

#[test]
fn a_message_comes_back_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    let sent = json!({
        "topic": "orders.paid", "payload": "line\n\u{1f980} \"x\"", "id": "order-1", "key": "k",
        "headers": {"b": "1", "a": "2"}, "content_type": "text/plain",
    });
    let first = request(at, "POST", "/publish", &sent.to_string());
    assert_eq!(first.status, 200, "{:?}", first.json());
    let wanted = json!({
        "status": "published", "id": "order-1", "topic": "orders.paid", "partition": 0,
        "offset": 0, "duplicate": false, "stored": "yes",
    });
    assert_eq!(first.json(), wanted);
    let again = request(at, "POST", "/publish", &sent.to_string()).json();
    assert_eq!((&again["duplicate"], &again["offset"]), (&json!(true), &json!(0)));
    for (field, value, read) in [
        ("payload", json!(""), json!("")),
        ("payload", json!({"a": [1, null]}), json!("{\"a\":[1,null]}")),
        ("payload", json!(null), json!("null")),
        ("payload_base64", json!("/wA="), json!("/wA=")),
        ("payload_base64", json!("aGVsbG8="), json!("hello")),
    ] {
        let sent = json!({"topic": "forms", field: value});
        let reply = request(at, "POST", "/publish", &sent.to_string()).json();
        let id = reply["id"].as_str().expect("the node makes an id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        let path = format!("/topics/forms/messages?offset={}", reply["offset"]);
        let message = get(at, &path).json()["messages"][0].clone();
        assert_eq!(message["id"], json!(id));
        let payload = message.get("payload").or(message.get("payload_base64"));
        assert_eq!(payload, Some(&read), "{sent}");
    }
    let message = &read_all(at, "orders.paid")[0];
    for field in ["topic", "payload", "id", "key", "headers", "content_type"] {
        assert_eq!(message[field], sent[field], "{field}");
    }
    let timestamp = message["timestamp"].as_str().expect("text");
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
}

#[test]
fn a_subscription_gives_a_message_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    request(at, "POST", "/publish", r#"{"topic":"t","payload":"before"}"#);
    let wanted = r#"{"id":"s","topics":["t","other"],"ack_wait":"200ms"}"#;
    let made = request(at, "POST", "/subscribe", wanted).json();
    assert_eq!(made["status"], "subscribed", "{made}");
    assert_eq!(made["topics"], json!(["other", "t"]));
    request(at, "POST", "/publish", r#"{"topic":"t","payload":"after"}"#);
    let pull = || {
        let page = get(at, "/subscriptions/s/messages?wait=10s").json();
        page["messages"].as_array().expect("messages").clone()
    };
    let (first, second) = (pull(), pull());
    assert_eq!((first.len(), &first[0]["payload"]), (1, &json!("after")), "{first:?}");
    assert_eq!((&first[0]["attempt"], &second[0]["attempt"]), (&json!(1), &json!(2)));
    let tokens = json!({ "tokens": [second[0]["ack_token"]] }).to_string();
    let acked = request(at, "POST", "/subscriptions/s/ack", &tokens).json();
    assert_eq!(acked, json!({"acked": 1, "expired": []}));
    let page = get(at, "/subscriptions/s/messages?wait=500ms").json();
    assert_eq!(page, json!({"messages": []}));
    let listed = get(at, "/subscriptions").json();
    assert_eq!((&listed["count"], &listed["subscriptions"][0]["id"]), (&json!(1), &json!("s")));
    assert_eq!(get(at, "/subscriptions/s").json()["ack_wait"], json!(0.2));
    let differs = request(at, "POST", "/subscribe", r#"{"id":"s","topics":["else"]}"#);
    assert_eq!(differs.status, 409, "{:?}", differs.json());
}

#[test]
fn what_the_node_says_of_itself_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    for number in 0..3 {
        let body = format!(r#"{{"topic":"t","payload":"{number}"}}"#);
        assert_eq!(request(at, "POST", "/publish", &body).status, 200);
    }
    request(at, "POST", "/subscribe", r#"{"id":"s","topics":["t"]}"#);
    let topics = get(at, "/topics").json();
    let topic = &topics["topics"][0];
    assert_eq!((&topics["count"], &topic["name"]), (&json!(1), &json!("t")), "{topics}");
    assert_eq!(topic["message_count"], json!(3), "{topics}");
    assert_eq!((&topic["subscriber_count"], &topic["storage_tier"]), (&json!(1), &json!("disk")));
    let shown = get(at, "/topics/t").json();
    assert_eq!(shown["partitions"][0]["end_offset"], json!(3), "{shown}");
    assert_eq!(shown["partitions"][0]["serving"], json!(true), "{shown}");
    let health = get(at, "/health");
    assert_eq!((health.status, &health.json()["cluster_size"]), (200, &json!(1)));
    assert_eq!(health.json()["nodeId"], get(at, "/status").json()["node_id"]);
    let metrics = get(at, "/metrics?format=json").json();
    assert_eq!(metrics["router"]["published"], json!(3), "{metrics}");
    assert_eq!(metrics["storage"]["messages"], json!(3), "{metrics}");
    assert!(metrics["system"]["process_resident_bytes"].as_u64() > Some(1 << 20), "{metrics}");
    let text = String::from_utf8(get(at, "/metrics").body).expect("text");
    assert!(text.contains("\nsprawl_published_total 3\n") && text.ends_with("# EOF\n"), "{text}");
    let document = get(at, "/openapi.json").json();
    let index = get(at, "/").json();
    let paths = document["paths"].as_object().expect("paths").values();
    let methods: usize = paths.filter_map(|path| path.as_object()).map(|path| path.len()).sum();
    assert_eq!(index["endpoints"].as_array().map(Vec::len), Some(methods), "{index}");
}

#[test]
fn light_load_is_never_refused_and_survives_a_kill() {
    const MESSAGES: u64 = 500;
    const PARALLEL: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let node = Node::start(&data);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                let mut connection = Connection::open(&node.address).expect("it listens");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= MESSAGES {
                        return;
                    }
                    let body =
                        json!({"topic": "t", "id": format!("m-{number}"), "payload": number});
                    let reply = connection.send("POST", "/publish", body.to_string().as_bytes());
                    let reply = reply.expect("an answer");
                    assert_eq!(reply.status, 200, "{}", reply.json());
                }
            });
        }
    });
    let before = read_all(&node.address, "t");
    all_there(&before, MESSAGES);
    node.kill();
    let node = Node::start(&data);
    assert_eq!(read_all(&node.address, "t"), before, "the same after the kill");
}

fn all_there(messages: &[Value], count: u64) {
    let by_id: BTreeMap<&str, &Value> = messages
        .iter()
        .map(|message| (message["id"].as_str().expect("an id"), &message["payload"]))
        .collect();
    assert_eq!((messages.len() as u64, by_id.len() as u64), (count, count));
    for number in 0..count {
        assert_eq!(by_id.get(&*format!("m-{number}")), Some(&&json!(number.to_string())));
    }
    for (at, message) in messages.iter().enumerate() {
        assert_eq!(message["offset"], json!(at), "offsets are dense");
    }
}
