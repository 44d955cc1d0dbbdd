//! SIGTERM: what is in flight is finished, everything is there, and the exit code says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{Connection, get, read_all, request};
use crate::process::{Node, eventually, signal};

#[test]
fn sigterm_under_load_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let node = Node::start(&data);
    let acked = AtomicU64::new(0);
    let address = node.address.clone();
    let status = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (address, acked) = (&address, &acked);
            scope.spawn(move || {
                let Ok(mut connection) = Connection::open(address) else { return };
                for number in 0.. {
                    let body =
                        json!({"topic": "t", "id": format!("{writer}-{number}"), "payload": ""});
                    match connection.send("POST", "/publish", body.to_string().as_bytes()) {
                        Ok(reply) if reply.status == 200 => acked.fetch_add(1, Ordering::SeqCst),
                        Ok(_) | Err(_) => return,
                    };
                }
            });
        }
        eventually("load", || (acked.load(Ordering::SeqCst) > 200).then_some(()));
        node.stop()
    });
    assert_eq!(status.code(), Some(0));
    let node = Node::start(&data);
    let found = read_all(&node.address, "t").len() as u64;
    let acked = acked.into_inner();
    // Each of the four may have had one message stored whose answer it did not get.
    assert!((acked..=acked + 4).contains(&found), "{acked} acknowledged, {found} found");
}

#[test]
fn a_long_poll_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = node.address.clone();
    request(&at, "POST", "/publish", r#"{"topic":"t","payload":"x"}"#);
    request(&at, "POST", "/subscribe", r#"{"id":"s","topics":["t"]}"#);
    let polls = ["/topics/t/messages?offset=1&wait=30s", "/subscriptions/s/messages?wait=30s"];
    std::thread::scope(|scope| {
        let waiting = polls.map(|path| {
            let at = &at;
            scope.spawn(move || get(at, path))
        });
        // Both polls have arrived when the face has read their heads: it counts what it answers,
        // so their connections are asked for by the kernel's table instead.
        let port = at.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
        eventually("two open connections", || (connections_to(port) >= 2).then_some(()));
        let began = Instant::now();
        assert_eq!(node.stop().code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        for poll in waiting {
            let reply = poll.join().expect("an answer");
            assert_eq!((reply.status, &reply.json()["messages"]), (200, &json!([])));
        }
    });
}

/// How many established connections to this port the kernel knows.
fn connections_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let here = format!("0100007F:{port:04X}");
    let rows = table.lines().map(str::split_whitespace);
    rows.filter(|row| {
        let fields: Vec<&str> = row.clone().take(4).collect();
        fields.get(1) == Some(&&*here) && fields.get(3) == Some(&"01")
    })
    .count()
}

#[test]
fn an_interrupt_ends_it_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    signal(node.pid(), "INT");
    assert_eq!(node.ended().code(), Some(0));
}
