//! Several nodes, each a process, that become one cluster and stay one.

use std::time::Instant;

use serde_json::Value;

use crate::http::{get, request};
use crate::nodes::{Nodes, all_healthy, ask, boot, nodes_of, vote};
use crate::process::{Node, SPRAWL, SPRAWLCTL, command, eventually, free_port, run};

#[test]
fn nodes_become_one_cluster_in_any_order() {
    for order in [vec![0, 1, 2], vec![2, 0, 1], vec![3, 1, 4, 0, 2]] {
        let count = order.len();
        let mut nodes = Nodes::new(count);
        let began = Instant::now();
        nodes.start_all(&order);
        let shown = nodes.settled("one cluster", |shown| all_healthy(shown, count));
        let what = format!("{count} nodes, started as {order:?}");
        println!("{what}: one cluster after {:?}", began.elapsed());
        nodes.settled("enough vote", |shown| vote(shown, 2 * (count / 3) + 1));
        println!("{what}: enough vote after {:?}", began.elapsed());
        for at in nodes.live() {
            assert_eq!(
                ask(nodes.node(at)).map(|own| own["cluster_id"].clone()),
                Some(shown["cluster_id"].clone())
            );
            nodes.node(at).ready();
        }
    }
}

/// The lines of the README, on free ports, one of them in Go's spelling.
#[test]
fn the_lines_of_the_readme_make_a_cluster() {
    let readme = include_str!("../../../README.md");
    let lines: Vec<&str> =
        readme.lines().filter(|line| line.starts_with("target/release/sprawl --bind")).collect();
    let ports = ["7946", "7947", "7948"];
    let mut nodes = Nodes::new(ports.len());
    assert_eq!(lines.len(), ports.len());
    for (at, line) in lines.iter().enumerate() {
        let mut line = (*line).to_owned();
        for (printed, free) in ports.iter().zip(&nodes.ports) {
            line = line.replace(printed, free);
        }
        let (_, arguments) = line.split_once(' ').expect("arguments");
        let go = arguments.replace("--bind-port ", "-bindPort=").replace("--seeds ", "-seeds=");
        let arguments = if at == 1 { go } else { arguments.to_owned() };
        // No port of the README's own is free for sure.
        let arguments = arguments.split(' ').map(|word| match word {
            "9070" | "9071" | "9072" => "0",
            word => word,
        });
        let mut command = command(SPRAWL);
        command.args(arguments).current_dir(nodes.folder.path());
        let log = nodes.folder.path().join(format!("{at}.log"));
        nodes.nodes[at] = Some(Node::launch(command, log));
    }
    nodes.settled("one cluster", |shown| all_healthy(shown, 3));
    assert!((0..3).all(|at| nodes.data(at).is_dir()), "each has its data under ./data");
}

/// How much a node has to do, the others show too.
#[test]
fn load_is_known_everywhere() {
    let mut nodes = Nodes::new(2);
    nodes.start_all(&[0, 1]);
    nodes.settled("one cluster", |shown| all_healthy(shown, 2));
    let began = Instant::now();
    let payload = "x".repeat(100_000);
    let body = format!(r#"{{"topic":"t","payload":"{payload}"}}"#);
    let busy = eventually("load", || {
        let published = request(&nodes.node(0).address, "POST", "/publish", &body);
        assert_eq!(published.status, 200, "{}", published.json());
        let busy = |at: usize| {
            let shown = get(&nodes.node(at).address, "/health/membership").json();
            let all = shown["members"].as_array().cloned().unwrap_or_default();
            let each: Vec<f64> = all.iter().filter_map(|one| one["busy"].as_f64()).collect();
            each.iter().any(|busy| *busy > 0.0).then_some(each)
        };
        Some((busy(0)?, busy(1)?))
    });
    println!("both show load after {:?}: {busy:?}", began.elapsed());
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back() {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    let fits = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let before = nodes.settled("one cluster whose nodes all vote", fits);
    nodes.voters_changed(3);
    let leader = before["leader"].as_str().expect("a name").to_owned();
    let at = (0..3).find(|at| nodes.name(*at) == leader).expect("one of the three");

    let began = Instant::now();
    nodes.kill(at);
    nodes.settled("a new leader", |shown| shown["leader"] != leader.as_str());
    println!("a new leader {:?} after kill -9 of the old one", began.elapsed());
    nodes.settled("a verdict", |shown| {
        let gone = nodes_of(shown).iter().find(|node| node["node_id"] == leader.as_str());
        gone.is_some_and(|node| node["state"] == "failed" && node["down_since"].is_string())
    });
    println!("agreed that it is down, and failed, after {:?}", began.elapsed());

    let other = format!("http://{}", nodes.node((at + 1) % 3).address);
    let output = run(command(SPRAWLCTL).args(["-n", &other, "diagnose"]));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("node {leader} is down")), "{said}");

    // It belongs to a cluster: it needs no seeds any more.
    let began = Instant::now();
    assert!(nodes.data(at).join("contacts").is_file(), "it has kept where the others are");
    nodes.start_bare(at, &[]);
    let after = nodes.settled("the node is back", |shown| {
        all_healthy(shown, 3) && boot(shown, &leader) > boot(&before, &leader)
    });
    println!("the killed node is back after {:?}", began.elapsed());
    assert_eq!(after["cluster_id"], before["cluster_id"]);
}

#[test]
fn a_wiped_node_replaces_its_old_self() {
    let mut nodes = Nodes::new(3);
    let named = |nodes: &mut Nodes, at: usize| {
        nodes.start_with(at, &["--node-id", &format!("node-{at}")]);
    };
    (0..3).for_each(|at| named(&mut nodes, at));
    // As long as only one votes, it is the one that must not be killed.
    let voting = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let before = nodes.settled("one cluster whose nodes all vote", voting);
    nodes.kill(2);
    std::fs::remove_dir_all(nodes.data(2)).expect("its folder");
    let began = Instant::now();
    named(&mut nodes, 2);
    let disk = |shown: &Value| {
        let node = nodes_of(shown).iter().find(|node| node["node_id"] == "node-2");
        node.map(|node| node["disk_id"].clone())
    };
    let after = nodes.settled("the new node in the place of the old", |shown| {
        all_healthy(shown, 3) && disk(shown) != disk(&before)
    });
    println!("a wiped node has replaced its old self after {:?}", began.elapsed());
    assert_eq!(after["cluster_id"], before["cluster_id"]);
}

#[test]
fn a_voter_that_moves_is_found_where_it_is() {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    let fits = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let before = nodes.settled("one cluster whose nodes all vote", fits);
    nodes.voters_changed(3);
    let (name, data) = (nodes.name(2), nodes.data(2));
    let data = data.to_str().expect("a path in UTF-8").to_owned();
    nodes.kill(2);
    nodes.ports[2] = free_port();
    let began = Instant::now();
    nodes.start_bare(2, &["--data-dir", &data]);
    let moved = nodes.settled("the node at its new address", |shown| {
        fits(shown) && boot(shown, &name) > boot(&before, &name)
    });
    println!("a voter that has moved votes again after {:?}", began.elapsed());
    assert_eq!(moved["cluster_id"], before["cluster_id"]);

    // It counts: without another one, it and the third agree.
    let other = (0..2).find(|at| nodes.name(*at) != moved["leader"]).expect("one does not lead");
    nodes.kill(other);
    nodes.settled("a verdict by the two that are left", |shown| {
        nodes_of(shown).iter().any(|node| node["down_since"].is_string())
    });
}

#[test]
fn a_silent_seed_is_named() {
    let mut nodes = Nodes::new(3);
    nodes.start(0);
    nodes.start(1);
    let silent = nodes.name(2);
    eventually("a node that says whom it waits for", || {
        let reply = get(&nodes.node(0).address, "/health/ready");
        let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
        (reply.status == 503 && detail.contains(&silent)).then_some(())
    });
}

#[test]
fn a_wrong_key_keeps_a_node_out() {
    let mut nodes = Nodes::new(3);
    nodes.start_with(0, &["--cluster-key", "right"]);
    nodes.start_with(1, &["--cluster-key", "right", "--found"]);
    nodes.start_with(2, &["--cluster-key", "wrong"]);
    eventually("a cluster of those with the key", || {
        all_healthy(&ask(nodes.node(0))?, 2).then_some(())
    });
    let reply = get(&nodes.node(2).address, "/health/ready");
    assert_eq!(reply.status, 503, "{}", reply.json());
    let shown = get(&nodes.node(2).address, "/health/membership").json();
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(1), "{shown}");
}

#[test]
fn a_node_that_leaves_is_gone_for_good() {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    nodes.settled("one cluster", |shown| all_healthy(shown, 3) && vote(shown, 3));
    let began = Instant::now();
    let at = format!("http://{}", nodes.node(2).address);
    let output = run(command(SPRAWLCTL).args(["-n", &at, "cluster", "leave"]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(nodes.nodes[2].take().expect("it runs").ended().code(), Some(1));
    let shown = nodes.settled("a cluster of two", |shown| all_healthy(shown, 2));
    println!("a node has left after {:?}", began.elapsed());
    assert!(nodes_of(&shown).iter().all(|node| node["node_id"] != nodes.name(2).as_str()));
    let members = get(&nodes.node(0).address, "/health/membership").json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(2), "{members}");
}
