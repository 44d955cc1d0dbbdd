//! Clients that say a byte a second, that say half of it and no more, and that listen to nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread::{park_timeout, scope};
use std::time::{Duration, Instant};

use super::{GROWTH_BYTES_MAX, filled, is_problem, resident};
use crate::http::{Connection, read_all, request};

/// The pause after each byte.
const PAUSE: Duration = Duration::from_secs(1);
/// How many clients of each kind there are.
const CLIENTS: usize = 8;
/// The longest that the node waits for a head or a body, and some more.
const PATIENCE: Duration = Duration::from_secs(60);

const PUBLISH: &str = r#"{"topic":"t","payload":"this is said much too slowly to be heard"}"#;
const SOCKET: &str = "GET /subscriptions/s/ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\n";
const EVENTS: &str = "GET /subscriptions/s/stream HTTP/1.1\r\nhost: h\r\n\r\n";

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n")
}

#[track_caller]
fn dial(at: &str) -> TcpStream {
    let stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Says a head a byte a second, until the node has heard enough.
fn drawl(at: &str, head: &str) {
    let mut stream = dial(at);
    let began = Instant::now();
    for byte in head.bytes() {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the node still listens to {head:?}");
        park_timeout(PAUSE);
    }
    // An error says the same as the end: the node has cut it off.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Says a body a byte a second; the answer does not wait for the rest.
fn drawl_body(at: &str, path: &str) {
    let mut connection = Connection::open(at).expect("it listens");
    let mut writer = connection.writer().expect("a second handle");
    let began = Instant::now();
    let reply = scope(|scope| {
        scope.spawn(move || {
            let mut heard = writer.write_all(head(path, PUBLISH.len()).as_bytes());
            for byte in PUBLISH.bytes() {
                if began.elapsed() > PATIENCE || heard.is_err() {
                    return;
                }
                park_timeout(PAUSE);
                heard = writer.write_all(&[byte]);
            }
        });
        let reply = connection.send_raw(b"");
        connection.shutdown();
        reply.expect("an answer")
    });
    let document = is_problem(&reply, 408, "did not arrive within 30 s", path);
    assert_eq!(document.get("stored"), (path == "/publish").then(|| "no".into()).as_ref());
}

#[test]
fn whoever_is_slow_is_cut_off_and_nobody_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, before) = filled(&folder);
    let at = &*node.address;
    let resident_before = resident(&node);
    scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| drawl(at, "GET /health HTTP/1.1\r\nhost: a very long name for a host"));
            scope.spawn(|| drawl(at, SOCKET));
            scope.spawn(|| drawl_body(at, "/publish"));
            scope.spawn(|| drawl_body(at, "/subscribe"));
            scope.spawn(|| drawl_body(at, "/subscriptions/s/ack"));
        }
        assert_eq!(request(at, "POST", "/publish", r#"{"topic":"u","payload":"x"}"#).status, 200);
    });
    let resident_after = resident(&node);
    println!("{} slow clients, resident {resident_before}, {resident_after}", 5 * CLIENTS);
    assert!(resident_after.saturating_sub(resident_before) < GROWTH_BYTES_MAX);
    assert_eq!(read_all(at, "t"), before, "what was stored");
}

#[test]
fn whoever_stops_halfway_is_answered_or_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, before) = filled(&folder);
    let at = &*node.address;
    let resident_before = resident(&node);
    let publish = format!("{}{PUBLISH}", head("/publish", PUBLISH.len()));
    for end in [1, 20, 40, publish.len() - 1] {
        let mut stream = dial(at);
        stream.write_all(&publish.as_bytes()[..end]).expect("it takes it");
        stream.shutdown(Shutdown::Write).expect("half of it");
        let mut said = Vec::new();
        // An error says the same as the end: the node has let go.
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    for head in [SOCKET, EVENTS] {
        let mut stream = dial(at);
        stream.write_all(head.as_bytes()).expect("it takes it");
        stream.shutdown(Shutdown::Write).expect("half of it");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(read_all(at, "t"), before, "what was stored");
    // Streams that nobody reads: each holds what a socket takes, and no more.
    let silent: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = dial(at);
            stream.write_all(EVENTS.as_bytes()).expect("it takes it");
            stream
        })
        .collect();
    let large = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(100_000));
    for _ in 0..100 {
        assert_eq!(request(at, "POST", "/publish", &large).status, 200);
    }
    let resident_after = resident(&node);
    println!("halves and silence, resident {resident_before} before, {resident_after} after");
    assert!(resident_after.saturating_sub(resident_before) < 2 * GROWTH_BYTES_MAX);
    drop(silent);
    assert_eq!(read_all(at, "t").len(), before.len() + 100);
}
