//! Topics on five and on ten nodes, each a process: every node leads and holds as many as any
//! other, all of them say the same about it, and what is published through any of them is received
//! once through each.

use std::time::Instant;

use serde_json::{Value, json};

use crate::failover::started;
use crate::forwarding::{good, post, receive};
use crate::http::get;
use crate::nodes::{Nodes, all_healthy, even, loads};
use crate::process::eventually;

/// Subscribes through each node to all topics that come, and waits until every node knows of it.
fn subscribe(nodes: &Nodes) {
    for at in nodes.live() {
        let body = json!({ "id": format!("s{at}"), "topics": ["spread.*"], "from": "earliest" });
        good(&post(nodes, at, "/subscribe", &body));
    }
    let knows = |at: usize, of: usize| {
        get(&nodes.node(at).address, &format!("/subscriptions/s{of}")).status == 200
    };
    eventually("subscriptions that every node knows", || {
        nodes.live().all(|at| nodes.live().all(|of| knows(at, of))).then_some(())
    });
}

/// Publishes to each topic through each node, and receives all of it through each node.
fn is_spread(count: usize, topics: usize) {
    let began = Instant::now();
    let nodes = started(count);
    subscribe(&nodes);
    let mut published = Vec::new();
    for topic in 0..topics {
        for at in 0..count {
            let payload = format!("{topic}-{at}");
            let body = json!({ "topic": format!("spread.{topic}"), "payload": payload });
            let stored = good(&post(&nodes, at, "/publish", &body));
            assert_eq!(stored["offset"], at, "{stored}");
            published.push(payload);
        }
    }
    assert_eq!(nodes.owners().len(), topics);
    let shared = |shown: &Value| all_healthy(shown, count) && even(shown);
    let shown = nodes.settled("all nodes share", shared);
    println!("{topics} topics on {count} nodes, held and led: {:?}", loads(&shown));
    published.sort();
    for at in 0..count {
        let mut got = receive(&nodes, at, &format!("s{at}"), published.len());
        got.sort();
        assert_eq!(got, published, "through node {at}");
        let path = format!("/subscriptions/s{at}/messages?wait=100ms");
        let more = good(&get(&nodes.node(at).address, &path));
        assert_eq!(more["messages"], json!([]), "through node {at}");
    }
    println!("{topics} topics on {count} nodes: {:?} altogether", began.elapsed());
}

#[test]
fn twenty_topics_are_spread_over_five_nodes() {
    is_spread(5, 20);
}

#[test]
fn fifty_topics_are_spread_over_ten_nodes() {
    is_spread(10, 50);
}
