//! Two of three nodes are lost for good: the third goes on with what it has when an operator says
//! so, and the lost ones are refused when they come back.

use std::time::Instant;

use serde_json::Value;

use crate::http::{get, request};
use crate::nodes::{Nodes, all_healthy, ask, copies, nodes_of, vote};
use crate::process::{SPRAWLCTL, command, eventually, run};

/// Runs `sprawlctl cluster recover` on a node's directory; its code, and what it printed.
fn recover(nodes: &Nodes, at: usize, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = command(SPRAWLCTL);
    command.args(["cluster", "recover", "--data-dir"]).arg(nodes.data(at)).args(flags);
    let output = run(&mut command);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn publish(nodes: &Nodes, at: usize, topic: &str) -> u16 {
    let body = format!(r#"{{"topic":"{topic}","payload":"x"}}"#);
    request(&nodes.node(at).address, "POST", "/publish", &body).status
}

#[test]
fn the_last_node_goes_on_without_the_lost_ones() {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    let voting = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let before = nodes.settled("one cluster whose nodes all vote", voting);
    let topics: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    for topic in &topics {
        eventually("a topic that is made", || (publish(&nodes, 2, topic) == 200).then_some(()));
    }
    eventually("three copies of each topic", || {
        topics.iter().all(|topic| copies(&nodes, 2, topic) == 3).then_some(())
    });

    let (code, said) = recover(&nodes, 2, &["--unsafe"]);
    assert!(code == Some(1) && said.contains("in use"), "a node that runs: {said}");
    nodes.kill(0);
    nodes.kill(1);
    nodes.kill(2);
    let (code, said) = recover(&nodes, 2, &["--keep", &nodes.name(1), "--unsafe"]);
    assert!(code == Some(1) && said.contains("have a majority"), "two of three: {said}");
    let (code, said) = recover(&nodes, 2, &[]);
    assert!(code == Some(1) && said.contains("nothing was changed"), "{said}");
    for lost in [0, 1] {
        assert!(said.contains(&nodes.name(lost)), "{said}");
    }
    assert!(said.matches("WARNING").count() >= 3, "{said}");
    assert!(said.contains("every partition is on a node that stays"), "{said}");
    // Nobody agrees with it: it is as it was.
    nodes.start_bare(2, &[]);
    let own_view = eventually("a node that shows what it knows", || ask(nodes.node(2)));
    assert_eq!(own_view["registered"], false, "{own_view}");
    assert_ne!(get(&nodes.node(2).address, "/health/ready").status, 200);
    nodes.kill(2);

    let (code, said) = recover(&nodes, 2, &["--unsafe"]);
    assert!(code == Some(0) && said.contains("done"), "{said}");
    let began = Instant::now();
    nodes.start_bare(2, &[]);
    let shown = nodes.settled("a cluster of one", |shown| all_healthy(shown, 1) && vote(shown, 1));
    println!("the last node leads {:?} after its start", began.elapsed());
    assert_eq!(shown["cluster_id"], before["cluster_id"]);
    for topic in &topics {
        eventually("a topic of which it holds a copy", || {
            (publish(&nodes, 2, topic) == 200).then_some(())
        });
    }
    eventually("a new topic", || (publish(&nodes, 2, "new") == 200).then_some(()));

    // The lost ones come back together, with a majority of the votes that once were.
    let (first, second) = std::thread::scope(|scope| {
        let both = [0, 1].map(|at| {
            let nodes = &nodes;
            scope.spawn(move || nodes.refused_at(&nodes.data(at), &nodes.ports[at]))
        });
        let [first, second] = both.map(|refused| refused.join().expect("it ends"));
        (first, second)
    });
    for line in [first, second] {
        assert!(line.contains("retired from the cluster"), "{line}");
    }
    let after = nodes.settled("the same cluster", |shown| all_healthy(shown, 1) && vote(shown, 1));
    assert_eq!(after["cluster_id"], before["cluster_id"]);
    eventually("a topic after all", || (publish(&nodes, 2, "new") == 200).then_some(()));

    // Wiped, they are newcomers.
    for at in [0, 1] {
        std::fs::remove_dir_all(nodes.data(at)).expect("its folder");
    }
    nodes.start_all(&[0, 1]);
    let whole = nodes.settled("three that vote", voting);
    assert_eq!(whole["cluster_id"], before["cluster_id"]);
}

#[test]
fn who_is_kept_follows_the_node_that_goes_on() {
    let mut nodes = Nodes::new(5);
    nodes.start_all(&[0, 1, 2, 3, 4]);
    let whole = |shown: &Value| all_healthy(shown, 5) && vote(shown, 3);
    let before = nodes.settled("one cluster of five with three voters", whole);
    nodes.voters_changed(3);
    let votes = |name: &String| {
        let of_name = |node: &&Value| node["node_id"] == name.as_str();
        let votes = |node: &Value| node["role"] == "leader" || node["role"] == "voter";
        nodes_of(&before).iter().find(of_name).is_some_and(votes)
    };
    let (voters, others): (Vec<usize>, Vec<usize>) = (0..5).partition(|at| votes(&nodes.name(*at)));
    let (survivor, lost) = (voters[0], &voters[1..]);
    let stay: Vec<usize> = [&[survivor], &others[..]].concat();
    assert_eq!((lost.len(), others.len()), (2, 2), "{before}");
    (0..5).for_each(|at| nodes.kill(at));

    let kept: Vec<String> = others.iter().map(|at| nodes.name(*at)).collect();
    let flags = ["--unsafe", "--keep", &kept[0], "--keep", &kept[1]];
    let (code, said) = recover(&nodes, survivor, &flags);
    assert!(code == Some(0) && said.contains("done"), "{said}");
    let began = Instant::now();
    nodes.start_together(&stay, &[]);
    let three = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let shown = nodes.settled_among("the three that stay, who all vote", &stay, three);
    println!("the three agree {:?} after their start", began.elapsed());
    assert_eq!(shown["cluster_id"], before["cluster_id"]);
    for at in &stay {
        let topic = format!("after-{at}");
        eventually("a new topic", || (publish(&nodes, *at, &topic) == 200).then_some(()));
    }
    for at in lost {
        let line = nodes.refused_at(&nodes.data(*at), &nodes.ports[*at]);
        assert!(line.contains("retired from the cluster"), "{line}");
    }
}
