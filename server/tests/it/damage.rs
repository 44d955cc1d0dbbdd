//! A damaged log is said, never served as if it were whole.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::http::Connection;
use crate::process::{Node, SPRAWL, command, run};

/// How many messages stand in the log before it is damaged.
const MESSAGES: usize = 400;

/// A node's directory after a kill, with messages in its write-ahead log alone.
fn killed(data: &Path) -> PathBuf {
    let node = Node::start(data);
    let mut connection = Connection::open(&node.address).expect("it listens");
    for number in 0..MESSAGES {
        let payload = format!("{number}:").repeat(50);
        let body = json!({"topic": "t", "id": format!("m-{number}"), "payload": payload});
        let reply = connection.send("POST", "/publish", body.to_string().as_bytes());
        assert_eq!(reply.expect("an answer").status, 200);
    }
    node.kill();
    let files = fs::read_dir(data.join("db")).expect("a database").map(|file| {
        let path = file.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        (path, bytes)
    });
    let last = format!("m-{}", MESSAGES - 1).into_bytes();
    let mut holds = files.filter(|(path, bytes)| {
        let log = path.extension().is_some_and(|extension| extension == "log");
        log && bytes.windows(last.len()).any(|part| part == last)
    });
    holds.next().expect("a log that holds the last message").0
}

/// The place of a message in a log.
fn place(log: &[u8], number: usize) -> usize {
    let id = format!("m-{number}").into_bytes();
    log.windows(id.len()).position(|part| part == id).expect("the message is there")
}

/// Starts the node on a damaged directory: it must say so in one line and end.
#[track_caller]
fn refuses(data: &Path, what: &str) {
    let output = run(command(SPRAWL).args(["--http-port", "0", "--data-dir"]).arg(data));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("sprawl: ") && last.contains("damaged"), "{what}: {said}");
    assert!(output.stdout.is_empty(), "{what}: it must not have served");
}

#[test]
fn a_byte_flipped_in_the_middle_of_the_log_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let log = killed(&data);
    let whole = fs::read(&log).expect("a file");
    let mut flipped = whole.clone();
    let at = place(&whole, MESSAGES / 2);
    flipped[at] ^= 1;
    fs::write(&log, &flipped).expect("written");
    refuses(&data, "a flipped byte");
    refuses(&data, "a flipped byte, again");
    fs::write(&log, &whole).expect("written");
    let node = Node::start(&data);
    assert_eq!(crate::http::read_all(&node.address, "t").len(), MESSAGES, "nothing was changed");
}

#[test]
fn a_log_cut_below_the_last_noted_sync_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let log = killed(&data);
    let whole = fs::read(&log).expect("a file");
    fs::write(&log, &whole[..place(&whole, MESSAGES / 2)]).expect("written");
    refuses(&data, "a cut log");
}
