//! Many nodes, and groups of them that are not to become one: one cluster of each, never another.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use crate::http::get;
use crate::nodes::{Nodes, all_healthy, ask, nodes_of, vote};
use crate::process::eventually;

/// How many nodes the largest cluster of the tests has.
const MANY: usize = 10;

/// Every node is one of the same cluster.
fn one_cluster(nodes: &Nodes) -> Value {
    let ids: BTreeSet<String> =
        nodes.live().filter_map(|at| ask(nodes.node(at))).map(|own| text(&own)).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids.into_iter().next().map(Value::from).expect("one")
}

fn text(shown: &Value) -> String {
    shown["cluster_id"].as_str().unwrap_or_default().to_owned()
}

/// Why a node is not ready, as it says itself.
fn waits(nodes: &Nodes, at: usize) -> Option<String> {
    let reply = get(&nodes.node(at).address, "/health/ready");
    let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
    (reply.status == 503).then_some(detail)
}

/// That a node belongs to no cluster, and says why.
#[track_caller]
fn founds_nothing(nodes: &Nodes, at: usize) {
    eventually("a node that says whom it waits for", || {
        waits(nodes, at).filter(|why| why.contains("not answered")).map(drop)
    });
    let own = ask(nodes.node(at));
    assert!(own.is_none_or(|own| !own["cluster_id"].is_string()), "node {at} has founded");
}

#[test]
fn ten_nodes_become_one_cluster_in_any_order() {
    let straight: Vec<usize> = (0..MANY).collect();
    let turned: Vec<usize> = (0..MANY).map(|at| (at * 7 + 3) % MANY).collect();
    for order in [straight, turned] {
        let mut nodes = Nodes::new(MANY);
        let began = Instant::now();
        nodes.start_all(&order);
        nodes.settled("one cluster", |shown| all_healthy(shown, MANY));
        println!("{MANY} nodes, started as {order:?}: one cluster after {:?}", began.elapsed());
        nodes.settled("enough vote", |shown| vote(shown, 7));
        println!("{MANY} nodes: seven vote after {:?}", began.elapsed());
        one_cluster(&nodes);
    }
}

/// Nodes that are started with less than all that they are to wait for found nothing, whichever
/// they are and however often they are wiped; when the rest comes, there is one cluster.
#[test]
fn a_part_of_the_seeds_founds_nothing() {
    let mut nodes = Nodes::new(5);
    for at in 0..5 {
        nodes.start(at);
        founds_nothing(&nodes, at);
        nodes.kill(at);
        std::fs::remove_dir_all(nodes.data(at)).expect("its folder");
    }
    nodes.start_all(&[3, 1]);
    for at in [3, 1] {
        founds_nothing(&nodes, at);
    }
    // One that had not founded is killed and comes back as it was.
    nodes.kill(1);
    for at in [1, 4, 0] {
        nodes.start(at);
        founds_nothing(&nodes, 3);
    }
    nodes.start(2);
    nodes.settled("one cluster", |shown| all_healthy(shown, 5));
    let cluster = one_cluster(&nodes);
    // A seed that is wiped then, and hears of nobody but of those that it waits for, joins again.
    nodes.settled("three vote", |shown| vote(shown, 3));
    nodes.kill(4);
    std::fs::remove_dir_all(nodes.data(4)).expect("its folder");
    nodes.start(4);
    nodes.settled("the same cluster", |shown| all_healthy(shown, 5));
    assert_eq!(one_cluster(&nodes), cluster);
}

#[test]
fn two_groups_stay_two_clusters() {
    let (mut ones, mut others) = (Nodes::new(3), Nodes::new(3));
    ones.start_all(&[0, 1, 2]);
    others.start_all(&[2, 1, 0]);
    for group in [&ones, &others] {
        group.settled("a cluster of three", |shown| all_healthy(shown, 3) && vote(shown, 3));
    }
    let (one, other) = (one_cluster(&ones), one_cluster(&others));
    assert_ne!(one, other);
    // A member that is started again with the other group's seeds stays what it is.
    ones.kill(1);
    ones.start_bare(1, &["--seeds", &others.seeds]);
    ones.settled("the first group as it was", |shown| all_healthy(shown, 3));
    others.settled("the second group as it was", |shown| all_healthy(shown, 3));
    assert_eq!((one_cluster(&ones), one_cluster(&others)), (one, other.clone()));
    // A newcomer whose seeds are of both joins one of them, and that one only.
    let mut both = Nodes::new(1);
    both.seeds = format!("{},{}", others.name(0), ones.name(0));
    both.start(0);
    let began = Instant::now();
    let joined = eventually("a cluster of four", || {
        let shown = ask(both.node(0))?;
        all_healthy(&shown, 4).then(|| shown["cluster_id"].clone())
    });
    println!("a node with seeds of two clusters has joined one after {:?}", began.elapsed());
    let count = |group: &Nodes| {
        let wanted = if one_cluster(group) == joined { 4 } else { 3 };
        group.settled("a group and its own", |shown| all_healthy(shown, wanted));
        wanted
    };
    assert_eq!(count(&ones) + count(&others), 7);
    // The address of one group's dead node is taken by the other's: nobody takes it for a member.
    let (port, seeds) = (ones.ports[2].clone(), others.seeds.clone());
    ones.kill(2);
    let mut thief = Nodes::new(1);
    thief.ports[0] = port;
    thief.start_bare(0, &["--seeds", &seeds]);
    eventually("a member of the second group", || {
        (ask(thief.node(0))?["cluster_id"] == other).then_some(())
    });
    let name = ones.name(2);
    ones.settled("the dead node is down", |shown| {
        let node = nodes_of(shown).iter().find(|node| node["node_id"] == *name);
        node.is_some_and(|node| node["down_since"].is_string())
    });
    eventually("a line about the other cluster", || {
        let said = (0..2).map(|at| ones.node(at).log()).collect::<String>();
        said.contains("belongs to another cluster").then_some(())
    });
    assert_ne!(one_cluster(&ones), one_cluster(&thief));
}
