//! Nodes that are stopped, killed, added and taken away while clients publish: no client that tries
//! again sees a failure, and what was acknowledged is there, once.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failover::{Times, are_down, rounds, started, whole};
use crate::http::get;
use crate::load::{Load, topic};
use crate::nodes::{Nodes, all_healthy, even, loads};
use crate::process::{SPRAWLCTL, command, eventually, run};

/// How many clients publish, each to a topic of its own.
const CLIENTS: usize = 6;
/// The pause of a client after each message.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until each topic is led and has so many whole copies that count, as every node shows it.
#[track_caller]
fn replicated(nodes: &Nodes, wanted: usize) {
    let is_whole = |at: usize, client: usize| {
        let shown = get(&nodes.node(at).address, &format!("/topics/{}", topic(client))).json();
        let one = &shown["partitions"][0];
        let counts = |field: &str| one[field].as_array().map(Vec::len);
        let in_sync = counts("in_sync") == Some(wanted) && counts("replicas") == Some(wanted);
        in_sync
            && counts("lost") == Some(0)
            && counts("tail") == Some(0)
            && one["leader"].is_string()
    };
    let all = || nodes.live().all(|at| (0..CLIENTS).all(|client| is_whole(at, client)));
    eventually("whole copies of every topic", || all().then_some(()));
}

/// Starts nodes again, and waits until all is as it was before.
#[track_caller]
fn come_back(nodes: &mut Nodes, gone: &[usize], load: &Load) {
    nodes.start_together(gone, &[]);
    whole(nodes);
    load.goes_to(nodes);
    replicated(nodes, 3);
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

    for way in ["decommission", "leave"] {
        goes(&mut nodes, &load, way);
    }
    println!("{} messages are there", load.judge(&nodes));
}

/// The node that leads the first topic goes for good, with all that it holds: another one is asked
/// to decommission it, or it is asked to leave.
fn goes(nodes: &mut Nodes, load: &Load, way: &str) {
    let led_by = nodes.owners()[&topic(0)].clone();
    let at = nodes.at(&led_by.as_str().into());
    let is_asked = |other: &usize| (way == "leave") == (*other == at);
    let asked = nodes.live().find(is_asked).expect("one of them");
    let address = format!("http://{}", nodes.node(asked).address);
    let began = Instant::now();
    let mut sprawlctl = command(SPRAWLCTL);
    sprawlctl.args(["-n", &address, "cluster", way]);
    sprawlctl.args((way != "leave").then_some(&led_by));
    let said = run(&mut sprawlctl);
    assert!(said.status.success(), "{said:?}");
    let node = nodes.nodes[at].take().expect("it runs");
    assert_eq!(node.ended().code(), Some(1));
    println!("{way}: a node has ended after {:?}", began.elapsed());
    load.all_served_since(Instant::now());
    load.goes_to(nodes);
    let count = nodes.live().count();
    let shared = |shown: &Value| all_healthy(shown, count) && even(shown);
    let shown = nodes.settled("those who stay share", shared);
    println!("even after {:?}: {:?}", began.elapsed(), loads(&shown));
    replicated(nodes, 3);
    println!("longest gap of a client meanwhile: {:?}", load.gaps_since(began).iter().max());
}

/// Who is struck in a round.
#[derive(Clone, Copy)]
enum Victims {
    MetadataLeader,
    PartitionLeader,
    /// Which one node may be.
    BothLeaders,
    /// Two of six, one of which leads a partition.
    Third,
}

const VICTIMS: [(Victims, &str); 4] = [
    (Victims::MetadataLeader, "the leader of the metadata"),
    (Victims::PartitionLeader, "the leader of a partition"),
    (Victims::BothLeaders, "both leaders"),
    (Victims::Third, "a third"),
];

impl Victims {
    /// The nodes that they are now; another partition in each round.
    fn find(self, nodes: &Nodes, number: usize) -> Vec<usize> {
        let metadata = nodes.at(&whole(nodes)["leader"]);
        let partition = nodes.at(&nodes.owners()[&topic(number % CLIENTS)].as_str().into());
        let mut found = match self {
            Self::MetadataLeader => vec![metadata],
            Self::PartitionLeader => vec![partition],
            Self::BothLeaders => vec![metadata, partition],
            Self::Third => vec![partition, (partition + 1) % nodes.nodes.len()],
        };
        found.dedup();
        found
    }
}

/// Strikes some of six nodes under load, round by round, each kind of victims: all clients are
/// served before those come back, and what was acknowledged is on every node at the end.
fn strike(how: &str, round: impl Fn(&mut Nodes, &[usize], &Load)) {
    let mut nodes = started(6);
    let load = Load::begin(&nodes, CLIENTS, PAUSE);
    replicated(&nodes, 3);
    let mut all = Times::new(format!("of 6 some {how}: gap of a client"));
    for (victims, who) in VICTIMS {
        let mut gaps = Times::new(format!("of 6 {who} {how}: gap of a client"));
        for number in 0..rounds() {
            let struck = victims.find(&nodes, number);
            let began = Instant::now();
            round(&mut nodes, &struck, &load);
            gaps.extend(load.gaps_since(began));
            all.extend(load.gaps_since(began));
        }
    }
    println!("{} rounds, {} messages are there", 4 * rounds(), load.judge(&nodes));
}

#[test]
fn leaders_and_thirds_are_killed_and_nothing_acknowledged_is_lost() {
    strike("killed", |nodes, struck, load| {
        nodes.kill_together(struck);
        load.all_served_since(Instant::now());
        come_back(nodes, struck, load);
    });
}

#[test]
fn leaders_and_thirds_stand_still_and_go_on_and_nothing_acknowledged_is_lost() {
    strike("standing still", |nodes, struck, load| {
        let others: Vec<usize> = nodes.live().filter(|at| !struck.contains(at)).collect();
        nodes.signal(struck, "STOP");
        // Their sessions have ended then.
        let down = |shown: &Value| are_down(nodes, shown, struck);
        nodes.settled_among("the others agree that they are down", &others, down);
        load.all_served_since(Instant::now());
        nodes.signal(struck, "CONT");
        whole(nodes);
        replicated(nodes, 3);
        load.all_served_since(Instant::now());
    });
}
