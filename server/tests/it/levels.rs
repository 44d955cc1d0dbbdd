//! What an acknowledgement waits for: whoever ends in order keeps all that it has acknowledged,
//! whoever is killed is not relied on, and says so.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::http::{Connection, get, read_all, request};
use crate::nodes::{Nodes, all_healthy, copies, vote};
use crate::process::{Node, eventually};

/// How often a copy of the topic's partition was taken on trust, as soon as somebody serves it.
fn trusted(node: &Node) -> u64 {
    eventually("somebody serves the topic", || {
        let shown = get(&node.address, "/topics/t").json();
        let partition = &shown["partitions"][0];
        let is_led = !partition["leader"].is_null();
        is_led.then(|| partition["trusted"].as_u64().expect("a number"))
    })
}

/// Publishes until it is told to stop answering; gives how many were acknowledged.
fn published(node: &Node, enough: u64, end: impl FnOnce()) -> u64 {
    let acked = AtomicU64::new(0);
    let address = node.address.clone();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (address, acked) = (&address, &acked);
            scope.spawn(move || {
                let Ok(mut connection) = Connection::open(address) else { return };
                for number in 0.. {
                    let id = format!("{}-{writer}-{number}", std::process::id());
                    let body = json!({"topic": "t", "id": id, "payload": ""}).to_string();
                    match connection.send("POST", "/publish", body.as_bytes()) {
                        Ok(reply) if reply.status == 200 => acked.fetch_add(1, Ordering::SeqCst),
                        Ok(_) | Err(_) => return,
                    };
                }
            });
        }
        eventually("load", || (acked.load(Ordering::SeqCst) >= enough).then_some(()));
        end();
    });
    acked.into_inner()
}

#[test]
fn a_node_that_ends_in_order_keeps_what_it_acknowledged_and_one_that_is_killed_is_not_sure() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let node = Node::start(&data);
    let made = request(&node.address, "PUT", "/topics/t", r#"{"durability":"leader"}"#);
    assert_eq!((made.status, &made.json()["durability"]), (200, &json!("leader")));
    let (pid, mut acked) = (node.pid(), 0);
    acked += published(&node, 2_000, || crate::process::signal(pid, "TERM"));
    assert_eq!(node.ended().code(), Some(0));
    let node = Node::start(&data);
    assert_eq!(trusted(&node), 0);
    let found = read_all(&node.address, "t").len() as u64;
    assert!((acked..=acked + 4).contains(&found), "{acked} acknowledged, {found} found");
    node.kill();
    let node = Node::start(&data);
    assert_eq!(trusted(&node), 1, "it alone had it all");
    eventually("it takes messages", || {
        let body = r#"{"topic":"t","id":"behind","payload":""}"#;
        (request(&node.address, "POST", "/publish", body).status == 200).then_some(())
    });
    let first = read_all(&node.address, "t").len() as u64;
    assert_eq!(first, found + 1, "what was synced is there");
    assert_eq!(node.stop().code(), Some(0));
    assert_eq!(trusted(&Node::start(&data)), 1);
}

#[test]
fn what_all_have_received_outlives_the_leader() {
    let mut nodes = Nodes::new(3);
    (0..3).for_each(|at| nodes.start(at));
    nodes.settled("one cluster", |shown| all_healthy(shown, 3) && vote(shown, 3));
    let address = nodes.node(0).address.clone();
    let made = request(&address, "PUT", "/topics/t", r#"{"durability":"replicated"}"#);
    assert_eq!(made.status, 200);
    eventually("three copies", || (copies(&nodes, 0, "t") == 3).then_some(()));
    let shown = get(&address, "/topics/t").json();
    let leader = shown["partitions"][0]["leader"].as_str().expect("a leader").to_owned();
    let at = (0..3).find(|at| nodes.name(*at) == leader).expect("one of them");
    let pid = nodes.node(at).pid();
    let acked = published(nodes.node(at), 1_000, || crate::process::signal(pid, "KILL"));
    nodes.kill(at);
    let other = (at + 1) % 3;
    let address = nodes.node(other).address.clone();
    let after = || get(&address, "/topics/t").json()["partitions"][0]["leader"].clone();
    eventually("another leader", || (after() != leader && !after().is_null()).then_some(()));
    let found = eventually("it is read", || {
        let reply = get(&address, "/topics/t/messages?max=1");
        (reply.status == 200).then(|| read_all(&address, "t").len() as u64)
    });
    assert!((acked..=acked + 4).contains(&found), "{acked} acknowledged, {found} found");
    nodes.start(at);
    nodes.settled("all three", |shown| all_healthy(shown, 3));
    eventually("three copies again", || (copies(&nodes, other, "t") == 3).then_some(()));
    assert_eq!(trusted(nodes.node(other)), 0);
}
