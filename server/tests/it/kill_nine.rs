//! kill -9, twenty times, under load: an acknowledgement is a promise.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::http::{Connection, read_all};
use crate::process::{Node, eventually, free_port};

/// How often the node is killed.
const KILLS: u64 = 20;
/// How many publishers there are, each with a topic of two.
const WRITERS: u64 = 6;
/// How many acknowledgements come between two kills.
const ACKED_BETWEEN: u64 = 60;

/// What a publisher was told: the topic and the offset of each id, and what it had sent.
type Acked = BTreeMap<String, (String, u64, String)>;

/// Publishes one message after the other, each until it is acknowledged, under the same id.
fn write(
    writer: u64,
    address: &str,
    stop: &AtomicBool,
    count: &AtomicU64,
    tries: &AtomicU64,
) -> Acked {
    let topic = format!("load-{}", writer % 2);
    let mut acked = Acked::new();
    let mut connection: Option<Connection> = None;
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (id, payload) =
            (format!("w{writer}-{number}"), format!("{writer}:{number}:").repeat(9));
        let body = json!({"topic": topic, "id": id, "payload": payload}).to_string();
        let offset = eventually("an acknowledgement", || {
            if connection.is_none() {
                connection = Connection::open(address).ok();
            }
            tries.fetch_add(1, Ordering::SeqCst);
            match connection.as_mut()?.send("POST", "/publish", body.as_bytes()) {
                Ok(reply) if reply.status == 200 => reply.json()["offset"].as_u64(),
                Ok(reply) => {
                    let problem = reply.json();
                    assert!(matches!(reply.status, 503 | 504), "{problem}");
                    None
                }
                Err(_) => {
                    connection = None;
                    None
                }
            }
        });
        acked.insert(id, (topic.clone(), offset, payload));
        count.fetch_add(1, Ordering::SeqCst);
    }
    acked
}

fn start(data: &Path, port: &str) -> Node {
    Node::start_with(data, &["--http-port", port])
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let (stop, count, tries) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let acked: Mutex<Acked> = Mutex::default();
    let node = std::thread::scope(|scope| {
        let mut node = start(&data, &port);
        for writer in 0..WRITERS {
            let (address, stop, count, tries, acked) = (&address, &stop, &count, &tries, &acked);
            scope.spawn(move || {
                let told = write(writer, address, stop, count, tries);
                acked.lock().expect("no writer failed").extend(told);
            });
        }
        for kill in 0..KILLS {
            let before = count.load(Ordering::SeqCst);
            eventually("progress between two kills", || {
                (count.load(Ordering::SeqCst) >= before + ACKED_BETWEEN).then_some(())
            });
            node.kill();
            node = start(&data, &port);
            assert!(node.line.starts_with("sprawl "), "start {kill}: {}", node.line);
        }
        stop.store(true, Ordering::SeqCst);
        node
    });
    let acked = acked.into_inner().expect("no writer failed");
    let (count, tries) = (count.into_inner(), tries.into_inner());
    assert!(count >= KILLS * ACKED_BETWEEN && acked.len() as u64 == count, "{count} acknowledged");
    assert!(tries > count, "no try was ever cut off: {tries} for {count}");
    let mut found: BTreeMap<String, (String, u64, String)> = BTreeMap::new();
    for topic in ["load-0", "load-1"] {
        for (at, message) in read_all(&node.address, topic).iter().enumerate() {
            let text = |field: &str| message[field].as_str().expect("text").to_owned();
            let offset = message["offset"].as_u64().expect("a number");
            assert_eq!(offset, at as u64, "offsets are dense");
            let place = (topic.to_owned(), offset, text("payload"));
            let other = found.insert(text("id"), place);
            assert_eq!(other, None, "{} stands twice", text("id"));
        }
    }
    for (id, told) in &acked {
        assert_eq!(found.get(id), Some(told), "{id} is not where its publisher was told");
    }
    assert_eq!(found.len(), acked.len(), "each id was tried until it was acknowledged");
    repeats_find_the_first(&address, &acked);
}

/// The last message of each publisher is still in the window, across all the kills.
fn repeats_find_the_first(address: &str, acked: &Acked) {
    let mut connection = Connection::open(address).expect("it listens");
    for writer in 0..WRITERS {
        let mine = acked.iter().filter(|(id, _)| id.starts_with(&format!("w{writer}-")));
        let number = |id: &str| id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
        let last = mine.max_by_key(|(id, _)| number(id)).expect("each has published");
        let (id, (topic, offset, payload)) = last;
        let body = json!({"topic": topic, "id": id, "payload": payload}).to_string();
        let reply: Value =
            connection.send("POST", "/publish", body.as_bytes()).expect("an answer").json();
        assert_eq!((&reply["duplicate"], &reply["offset"]), (&json!(true), &json!(offset)));
    }
}
