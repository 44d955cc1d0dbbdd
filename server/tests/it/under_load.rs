//! Nodes that are stopped, killed, added and taken away while clients publish: no client that tries
//! again sees a failure, and what was acknowledged is there, once.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failover::{Times, rounds, started, whole};
use crate::load::{Load, topic};
use crate::nodes::{Nodes, all_healthy, copies, nodes_of, owners};
use crate::process::{SPRAWLCTL, command, eventually, run, signal};

/// How many clients publish, each to a topic of its own.
const CLIENTS: usize = 6;
/// The pause of a client after each message.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until each topic has so many copies that count.
#[track_caller]
fn replicated(nodes: &Nodes, wanted: u64) {
    let all =
        || nodes.live().all(|at| (0..CLIENTS).all(|c| copies(nodes, at, &topic(c)) == wanted));
    eventually("copies of every topic", || all().then_some(()));
}

/// Starts nodes again, and waits until all is as it was before.
#[track_caller]
fn come_back(nodes: &mut Nodes, gone: &[usize], load: &Load) {
    nodes.start_together(gone, &[]);
    whole(nodes);
    load.goes_to(nodes);
    replicated(nodes, 3);
}

/// How many partitions each node holds and leads, as a cluster shows it.
fn loads(shown: &Value) -> Vec<(u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let load = |node: &Value| (number(&node["partitions"]), number(&node["leads"]));
    nodes_of(shown).iter().map(load).collect()
}

/// Whether no node has two more than another one.
fn even(shown: &Value) -> bool {
    let within = |all: Vec<u64>| all.iter().max() <= all.iter().min().map(|min| min + 1).as_ref();
    let (held, led): (Vec<u64>, Vec<u64>) = loads(shown).into_iter().unzip();
    within(held) && within(led)
}

#[test]
fn a_rolling_restart_is_seen_by_no_client_that_tries_again() {
    let mut nodes = started(3);
    let load = Load::begin(&nodes, CLIENTS, PAUSE);
    replicated(&nodes, 3);
    let mut stopped = Times::new("of 3 each told to stop in turn: it ends");
    let mut gaps = Times::new("of 3 each told to stop in turn: gap of a client");
    for _ in 0..rounds() {
        for at in 0..3 {
            let began = Instant::now();
            let node = nodes.nodes[at].take().expect("it runs");
            load.goes_to(&nodes);
            assert_eq!(node.stop().code(), Some(0));
            stopped.note(began);
            load.all_served_since(Instant::now());
            come_back(&mut nodes, &[at], &load);
            gaps.extend(load.gaps_since(began));
        }
    }
    println!("{} messages are there", load.judge(&nodes));
}

#[test]
fn nodes_that_come_and_go_share_the_work() {
    let mut nodes = started(5);
    // Two of them come later.
    (3..5).for_each(|at| {
        let address = format!("http://{}", nodes.node(at).address);
        let left = run(command(SPRAWLCTL).args(["-n", &address, "cluster", "leave"]));
        assert!(left.status.success(), "{left:?}");
        assert_eq!(nodes.nodes[at].take().expect("it runs").ended().code(), Some(1));
        std::fs::remove_dir_all(nodes.data(at)).expect("its folder");
    });
    nodes.settled("a cluster of three", |shown| all_healthy(shown, 3));
    let load = Load::begin(&nodes, CLIENTS, PAUSE);
    replicated(&nodes, 3);
    let began = Instant::now();
    (3..5).for_each(|at| nodes.start(at));
    load.goes_to(&nodes);
    let address = format!("http://{}", nodes.node(0).address);
    nodes.settled("a cluster of five", |shown| all_healthy(shown, 5));
    let asked = run(command(SPRAWLCTL).args(["-n", &address, "cluster", "rebalance"]));
    assert!(asked.status.success(), "{asked:?}");
    let shown = nodes.settled("all five share", |shown| all_healthy(shown, 5) && even(shown));
    println!("two nodes came: even after {:?}: {:?}", began.elapsed(), loads(&shown));
    replicated(&nodes, 3);
    println!("longest gap of a client meanwhile: {:?}", load.gaps_since(began).iter().max());

    // The one that leads the first topic leaves, with all that it holds.
    let led_by = owners(nodes.node(0))[&topic(0)].clone();
    let at = (0..5).find(|at| nodes.name(*at) == led_by).expect("one of the five");
    let other = (at + 1) % 5;
    let address = format!("http://{}", nodes.node(other).address);
    let began = Instant::now();
    let asked = run(command(SPRAWLCTL).args(["-n", &address, "cluster", "decommission", &led_by]));
    assert!(asked.status.success(), "{asked:?}");
    let node = nodes.nodes[at].take().expect("it runs");
    load.goes_to(&nodes);
    assert_eq!(node.ended().code(), Some(1));
    println!("a node was decommissioned: it has ended after {:?}", began.elapsed());
    let shown = nodes.settled("four share", |shown| all_healthy(shown, 4) && even(shown));
    println!("even after {:?}: {:?}", began.elapsed(), loads(&shown));
    replicated(&nodes, 3);
    println!("longest gap of a client meanwhile: {:?}", load.gaps_since(began).iter().max());
    println!("{} messages are there", load.judge(&nodes));
}

#[test]
fn a_third_is_killed_and_nothing_acknowledged_is_lost() {
    let mut nodes = started(6);
    let load = Load::begin(&nodes, CLIENTS, PAUSE);
    replicated(&nodes, 3);
    let mut gaps = Times::new("of 6 a third killed: gap of a client");
    for number in 0..rounds() {
        let first = (number * 2) % 6;
        let began = Instant::now();
        let gone: Vec<_> =
            (0..2).filter_map(|next| nodes.nodes[(first + next) % 6].take()).collect();
        load.goes_to(&nodes);
        let pids = gone.iter().map(|node| node.pid().to_string());
        let sent = std::process::Command::new("kill").arg("-9").args(pids).status();
        assert!(sent.expect("kill runs").success());
        drop(gone);
        load.all_served_since(Instant::now());
        come_back(&mut nodes, &[first, (first + 1) % 6], &load);
        gaps.extend(load.gaps_since(began));
    }
    println!("{} messages are there", load.judge(&nodes));
}

#[test]
fn a_node_stands_still_and_goes_on_and_nothing_acknowledged_is_lost() {
    let nodes = started(3);
    let load = Load::begin(&nodes, CLIENTS, PAUSE);
    replicated(&nodes, 3);
    let mut gaps = Times::new("of 3 one stands still: gap of a client");
    for number in 0..rounds() {
        let pid = nodes.node(number % 3).pid();
        let began = Instant::now();
        signal(pid, "STOP");
        load.all_served_since(began + Duration::from_secs(2));
        signal(pid, "CONT");
        whole(&nodes);
        replicated(&nodes, 3);
        gaps.extend(load.gaps_since(began));
    }
    println!("{} messages are there", load.judge(&nodes));
}
