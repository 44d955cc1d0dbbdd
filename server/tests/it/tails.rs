//! A new copy of a long log counts as soon as it has what is new; what is older comes at a rate.

use std::time::Instant;

use serde_json::{Value, json};

use crate::http::{get, read_all, request};
use crate::nodes::{Nodes, all_healthy, nodes_of, vote, votes};
use crate::process::{SPRAWLCTL, command, eventually, run};

/// How many messages of a mebibyte the log has before the first node dies.
const OLD: usize = 12;

fn name(at: usize) -> String {
    format!("node-{at}")
}

/// The only partition of the topic, as a node shows it.
fn partition(nodes: &Nodes, at: usize) -> Value {
    get(&nodes.node(at).address, "/topics/t").json()["partitions"][0].clone()
}

fn publish(nodes: &Nodes, at: usize, id: usize) -> bool {
    let payload = "x".repeat(1 << 20);
    let body = json!({"topic": "t", "id": id.to_string(), "payload": payload}).to_string();
    request(&nodes.node(at).address, "POST", "/publish", &body).status == 200
}

/// A node with little to spend on what is old, unless that is to be over soon.
fn start(nodes: &mut Nodes, at: usize, rate: &str) {
    nodes.start_with(at, &["--node-id", &name(at), "--shards", "1", "--copy-rate", rate]);
}

#[test]
fn a_copy_counts_before_it_has_what_is_old() {
    let mut nodes = Nodes::new(4);
    (0..4).for_each(|at| start(&mut nodes, at, "64KiB"));
    nodes.settled("a cluster", |shown| all_healthy(shown, 4) && vote(shown, 3));
    let made = request(&nodes.node(0).address, "PUT", "/topics/t", r#"{"replication":3}"#);
    assert_eq!(made.status, 200, "{}", made.json());
    eventually("three copies", || {
        (partition(&nodes, 0)["in_sync"].as_array()?.len() == 3).then_some(())
    });
    assert!((0..OLD).all(|id| publish(&nodes, id % 4, id)));
    let before = partition(&nodes, 0);
    let holds = |at: &usize| {
        before["replicas"].as_array().is_some_and(|all| all.contains(&json!(name(*at))))
    };
    let leader = (0..4).find(|at| before["leader"] == name(*at)).expect("one of them");
    let free = (0..4).find(|at| !holds(at)).expect("one has no copy");
    let rest: Vec<usize> = (0..4).filter(|at| *at != leader && *at != free).collect();

    // One dies for good, and its copy is placed where there is none yet.
    let began = Instant::now();
    nodes.kill(rest[0]);
    let at = format!("http://{}", nodes.node(leader).address);
    let gone = name(rest[0]);
    let output = run(command(SPRAWLCTL).args(["-n", &at, "cluster", "decommission", &gone]));
    assert!(output.status.success(), "{output:?}");
    let is_tail = |nodes: &Nodes| partition(nodes, leader)["tail"] == json!([name(free)]);
    eventually("a copy with what is new", || is_tail(&nodes).then_some(()));
    println!("a copy counts again {:?} after a node was killed", began.elapsed());

    // Another one dies: without that copy, too few would be left.
    let vote_three = |shown: &Value| {
        vote(shown, 3) && nodes_of(shown).iter().any(|one| one["node_id"] == gone && !votes(one))
    };
    nodes.settled("three others who vote", vote_three);
    let began = Instant::now();
    nodes.kill(rest[1]);
    eventually("it is written to", || publish(&nodes, free, OLD).then_some(()));
    println!("and {:?} after another one was, the topic is written to", began.elapsed());
    assert!(is_tail(&nodes), "{}", partition(&nodes, leader));

    // Started anew it is a tail still, and now what is older may come as fast as it can.
    nodes.nodes[free].take().expect("it runs").stop();
    start(&mut nodes, free, "0");
    start(&mut nodes, rest[1], "64KiB");
    eventually("three whole copies", || {
        let shown = partition(&nodes, leader);
        let is_whole = shown["tail"] == json!([]) && shown["in_sync"].as_array()?.len() == 3;
        is_whole.then_some(())
    });
    nodes.settled("three nodes of which all vote", |shown| all_healthy(shown, 3) && vote(shown, 3));
    // It has all that the first one had, which is not there any more.
    nodes.kill(leader);
    let found = eventually("all of it", || {
        let served = partition(&nodes, free);
        let is_led = !served["leader"].is_null() && served["leader"] != name(leader);
        let found = is_led.then(|| read_all(&nodes.node(free).address, "t"))?;
        (found.len() > OLD).then_some(found)
    });
    let ids: Vec<&str> = found.iter().filter_map(|one| one["id"].as_str()).collect();
    let expected: Vec<String> = (0..=OLD).map(|id| id.to_string()).collect();
    assert_eq!(ids, expected);
}
