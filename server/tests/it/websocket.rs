//! WebSockets, with a client of another making: Python's `websockets`, and sockets by hand for
//! what it would not do. The scenarios stand in websocket.py.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::{Connection, get};
use crate::process::{Node, end_of, eventually, run};

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/websocket.py");
/// What the handshake of a client is made of.
const HANDSHAKE: [&str; 4] = [
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// A Python that has the package: the system's, or the one that `.ci/need` makes.
pub(crate) fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let made = cache.or_else(home).map(|cache| cache.join("sprawl/python/bin/python3"));
    let has_it = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import websockets.sync.client"]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    [Some("python3".into()), made].into_iter().flatten().find(has_it)
}

/// Plays a scenario against a node of its own.
#[track_caller]
fn play(scenario: &str) {
    let Some(python) = python() else {
        println!("SKIPPED: python3 with the package websockets is missing");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let output = run(Command::new(python).args([SCENARIOS, scenario, &node.address]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {said}\n{}", node.log());
    assert_eq!(get(&node.address, "/health").status, 200);
}

#[test]
fn messages_come_on_credit_and_publishes_are_answered() {
    play("round_trip");
}

#[test]
fn publishes_are_pipelined() {
    play("pipelined");
}

#[test]
fn malformed_frames_get_problems() {
    play("malformed");
}

#[test]
fn broken_frames_end_the_socket_alone() {
    play("broken_frames");
}

#[test]
fn a_slow_reader_stops_only_itself() {
    play("slow_reader");
}

#[test]
fn a_half_closed_connection_ends() {
    play("half_closed");
}

#[test]
fn a_stop_says_good_bye() {
    let Some(python) = python() else {
        println!("SKIPPED: python3 with the package websockets is missing");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let heard = folder.path().join("heard");
    let file = std::fs::File::create(&heard).expect("a file");
    let mut client = Command::new(python);
    let client = client.args([SCENARIOS, "stopped", &node.address]).stdout(file);
    let mut client = client.spawn().expect("Python runs");
    eventually("an open socket", || {
        let said = std::fs::read_to_string(&heard).expect("a file");
        said.contains("open").then_some(())
    });
    let began = Instant::now();
    assert_eq!(node.stop().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(end_of(&mut client).success());
}

#[test]
fn what_is_no_handshake_gets_a_problem_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let mut connection = Connection::open(&node.address).expect("it listens");
    let subscribe = br#"{"id":"s","topics":["t"]}"#;
    assert_eq!(connection.send("POST", "/subscribe", subscribe).expect("an answer").status, 200);
    let mut ask = |path: &str, headers: &[&str]| {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
        let reply = connection.send_raw(request.as_bytes()).expect("an answer");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{request}");
        let version = reply.header("sec-websocket-version").map(str::to_owned);
        (reply.status, version)
    };
    let path = "/subscriptions/s/ws";
    let required = (426, Some("13".to_owned()));
    assert_eq!(ask(path, &[]), required);
    assert_eq!(ask(path, &HANDSHAKE[1..]), required);
    let old = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 8"];
    assert_eq!(ask(path, &old), required);
    assert_eq!(ask(path, &HANDSHAKE[..3]), (400, None));
    assert_eq!(ask("/subscriptions/none/ws", &HANDSHAKE), (404, None));
    assert_eq!(ask("/subscriptions/s/ws?x=1", &HANDSHAKE), (400, None));
}
