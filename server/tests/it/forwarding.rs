//! Three nodes, each a process: whatever a client asks, it may ask any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use crate::http::{Reply, get, read_all, request};
use crate::nodes::{Nodes, all_healthy, copies, vote};
use crate::process::eventually;

const TOPICS: usize = 20;
/// How many messages each topic gets.
const MESSAGES: usize = 3;

fn three() -> Nodes {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    let voting = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    nodes.settled("one cluster whose nodes all vote", voting);
    nodes
}

pub(crate) fn post(nodes: &Nodes, at: usize, path: &str, body: &Value) -> Reply {
    let at = at % nodes.nodes.len();
    request(&nodes.node(at).address, "POST", path, &body.to_string())
}

#[track_caller]
pub(crate) fn good(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

/// Receives what a subscription has, through a node, and acknowledges it through the next one.
#[track_caller]
pub(crate) fn receive(nodes: &Nodes, at: usize, id: &str, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let path = format!("/subscriptions/{id}/messages?max=100&wait=10");
        let page = good(&get(&nodes.node(at % nodes.nodes.len()).address, &path));
        let messages = page["messages"].as_array().expect("messages");
        assert!(!messages.is_empty(), "{id} has {got:?} of {count}");
        let tokens: Vec<&Value> = messages.iter().map(|one| &one["ack_token"]).collect();
        let path = format!("/subscriptions/{id}/ack");
        let acked = good(&post(nodes, at + 1, &path, &json!({ "tokens": tokens })));
        assert_eq!(acked["acked"], tokens.len(), "{acked}");
        let payload = |one: &Value| one["payload"].as_str().expect("a text").to_owned();
        got.extend(messages.iter().map(payload));
    }
    got
}

/// The sum of a counter over all nodes.
fn counted(nodes: &Nodes, field: &str) -> u64 {
    let of = |at| get(&nodes.node(at).address, "/metrics?format=json").json();
    nodes.live().map(|at| of(at)["router"][field].as_u64().expect("a counter")).sum()
}

#[test]
fn what_is_published_through_any_node_is_received_once_through_another() {
    let nodes = three();
    for number in 0..TOPICS {
        let body = json!({
            "id": format!("s{number}"), "topics": [format!("t{number}")], "from": "latest",
        });
        good(&post(&nodes, number * 7, "/subscribe", &body));
        // From here on, at once and through any node.
        for message in 0..MESSAGES {
            let payload = format!("{number}-{message}");
            let body = json!({ "topic": format!("t{number}"), "payload": payload });
            let published = good(&post(&nodes, number * 5 + message, "/publish", &body));
            assert_eq!(published["offset"], message, "{published}");
        }
    }
    let leaders: BTreeSet<String> = nodes.owners().into_values().collect();
    assert_eq!(leaders.len(), 3, "each node leads some topics: {leaders:?}");
    for number in 0..TOPICS {
        let mut got = receive(&nodes, number + 1, &format!("s{number}"), MESSAGES);
        got.sort();
        let all: Vec<_> = (0..MESSAGES).map(|message| format!("{number}-{message}")).collect();
        assert_eq!(got, all);
        for at in 0..3 {
            let read = read_all(&nodes.node(at).address, &format!("t{number}"));
            assert_eq!(read.len(), MESSAGES, "through node {at}");
        }
    }
    let (calls, asked) = (counted(&nodes, "calls"), counted(&nodes, "asked"));
    println!("{calls} calls between nodes, {} of them retries", counted(&nodes, "call_retries"));
    assert!(asked > 0 && calls >= asked, "{calls} calls, {asked} asked");
}

#[test]
fn a_subscription_whose_partitions_several_nodes_lead_is_served_by_each() {
    let nodes = three();
    let body = json!({ "id": "wide", "topics": ["wide.*"], "from": "earliest" });
    good(&post(&nodes, 0, "/subscribe", &body));
    // It has no partition yet, and so nobody has waited for the others to know of it.
    eventually("a subscription that every node knows", || {
        let knows = |at| get(&nodes.node(at).address, "/subscriptions/wide").status == 200;
        (0..3).all(knows).then_some(())
    });
    // Somebody waits already when the topics come.
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| receive(&nodes, 2, "wide", 1));
        let items: Vec<Value> = (0..TOPICS)
            .map(|number| {
                let topic = format!("wide.{number}");
                json!({ "topic": topic, "payload": number.to_string() })
            })
            .collect();
        let stored = good(&post(&nodes, 1, "/publish/batch", &Value::Array(items)));
        let outcomes = stored.as_array().or(stored["results"].as_array()).expect("outcomes");
        assert_eq!(outcomes.len(), TOPICS, "{stored}");
        waiting.join().expect("it receives")
    });
    let leaders: BTreeSet<String> = nodes.owners().into_values().collect();
    assert_eq!(leaders.len(), 3, "{leaders:?}");
    let rest = receive(&nodes, 1, "wide", TOPICS - waiting.len());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    waiting.into_iter().chain(rest).for_each(|one| *counts.entry(one).or_default() += 1);
    assert!(counts.len() == TOPICS && counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn when_a_leader_dies_what_it_acknowledged_is_read_and_more_is_published() {
    let mut nodes = three();
    for number in 0..TOPICS {
        let body = json!({ "topic": format!("t{number}"), "payload": "before" });
        good(&post(&nodes, number, "/publish", &body));
    }
    eventually("three copies of each topic", || {
        (0..TOPICS).all(|number| copies(&nodes, 0, &format!("t{number}")) == 3).then_some(())
    });
    let owners = nodes.owners();
    nodes.kill(2);
    let lost = nodes.name(2);
    let of = |is_lost: bool| owners.iter().find(|(_, owner)| (**owner == lost) == is_lost);
    let (gone, there) = (of(true).expect("some").0, of(false).expect("some").0);
    let publish = |topic: &str| {
        let body = json!({ "topic": topic, "payload": "after", "id": "one" });
        post(&nodes, 0, "/publish", &body)
    };
    assert_eq!(publish(there).status, 200);
    let began = Instant::now();
    eventually("another leader", || (publish(gone).status == 200).then_some(()));
    println!("published {:?} after the leader's death", began.elapsed());
    for at in [0, 1] {
        let path = format!("/topics/{gone}/messages?offset=0");
        let read = get(&nodes.node(at).address, &path).json();
        let payloads: Vec<&str> = read["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .filter_map(|message| message["payload"].as_str())
            .collect();
        assert_eq!(payloads, ["before", "after"], "through node {at}: {read}");
    }
    let copies_lack = |nodes: &Nodes, count: usize| {
        let shown = get(&nodes.node(0).address, "/cluster/status").json();
        let partitions = &shown["partitions"];
        let named = partitions["under_replicated_partitions"].as_array().expect("a list").len();
        assert!(partitions["under_replicated"] == named, "{partitions}");
        (partitions["leaderless"] == 0 && named == count).then_some(())
    };
    eventually("each topic lacks a copy", || copies_lack(&nodes, TOPICS));
    nodes.start(2);
    eventually("none lacks one", || copies_lack(&nodes, 0));
}
