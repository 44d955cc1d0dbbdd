//! Directories that are copied, rolled back or retired: started beside or after the node that they
//! were taken from, they end with one line, and that node and its clients notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Connection, get, request};
use crate::nodes::{Nodes, all_healthy, ask, boot, nodes_of, owners, vote};
use crate::process::{Node, SPRAWLCTL, command, eventually, run};

const COPIED: &str = "sprawl: a node with this data directory's identity is running at ";
const RETIRED: &str = "retired from the cluster";
/// How often a client publishes.
const PUBLISH_PAUSE: Duration = Duration::from_millis(10);

/// Three nodes that all vote.
fn three() -> (Nodes, Value) {
    let mut nodes = Nodes::new(3);
    nodes.start_all(&[0, 1, 2]);
    let voting = |shown: &Value| all_healthy(shown, 3) && vote(shown, 3);
    let shown = nodes.settled("one cluster whose nodes all vote", voting);
    (nodes, shown)
}

fn publish(address: &str, topic: &str) -> u16 {
    let body = format!(r#"{{"topic":"{topic}","payload":"x"}}"#);
    request(address, "POST", "/publish", &body).status
}

/// A client of a node that publishes on and on, to a topic that this node leads.
struct Client {
    over: Arc<AtomicBool>,
    publishing: JoinHandle<usize>,
}

impl Client {
    #[track_caller]
    fn of(node: &Node) -> Self {
        let address = node.address.clone();
        let mut number = 0;
        let name = get(&address, "/dht").json()["node_id"].as_str().map(str::to_owned);
        let topic = eventually("a topic that the node leads", || {
            number += 1;
            let topic = format!("t{number}");
            let is_stored = publish(&address, &topic) == 200;
            (is_stored && owners(node).get(&topic) == name.as_ref()).then_some(topic)
        });
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let publishing = std::thread::spawn(move || {
            let mut connection = Connection::open(&address).expect("the node listens");
            let mut count = 0;
            let body = format!(r#"{{"topic":"{topic}","payload":"x"}}"#);
            while !told.load(Ordering::Relaxed) {
                let reply = connection.send("POST", "/publish", body.as_bytes());
                let reply = reply.expect("the connection lives");
                assert_eq!(reply.status, 200, "publish {count}: {}", reply.json());
                count += 1;
                std::thread::park_timeout(PUBLISH_PAUSE);
            }
            count
        });
        Self { over, publishing }
    }

    /// Ends it; every publish succeeded, at once.
    #[track_caller]
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let count = self.publishing.join().expect("each publish succeeds");
        assert!(count > 0, "it has published");
        println!("meanwhile {count} publishes, none refused");
    }
}

/// How the others see a node: nothing of this changes while copies of it are refused.
fn seen(nodes: &Nodes, at: usize) -> Vec<(Value, Value)> {
    let name = nodes.name(at);
    let looking = nodes.live().map(|other| {
        let shown = ask(nodes.node(other)).expect("it answers");
        let node = nodes_of(&shown).iter().find(|node| node["node_id"] == name.as_str()).cloned();
        let mut node = node.expect("it is known");
        // Its role may move, because others may elect; and its client's topic comes meanwhile.
        for moving in ["role", "leads", "partitions"] {
            node.as_object_mut().map(|node| node.remove(moving));
        }
        let members = get(&nodes.node(other).address, "/health/membership").json();
        let members = members["members"].as_array().cloned().unwrap_or_default();
        let member = members.iter().find(|member| member["node_id"] == name.as_str());
        let member = member.unwrap_or_else(|| panic!("a member {name} in {members:?}"));
        let who = ["node_id", "address", "state"].map(|field| member[field].clone());
        // The part after the point rises when a busy machine has a node suspected for a moment.
        let run = member["incarnation"].as_str().and_then(|of| of.split('.').next());
        (node, Value::from([&who[..], &[run.into()]].concat()))
    });
    looking.collect()
}

#[test]
fn a_copy_is_refused_while_its_original_lives() {
    let (nodes, shown) = three();
    let leader = (0..3).find(|at| shown["leader"] == nodes.name(*at).as_str());
    let leader = leader.expect("one of the three");
    for (at, what) in [(leader, "leader"), ((leader + 1) % 3, "follower")] {
        let copy = nodes.copy(at, what);
        let client = Client::of(nodes.node(at));
        let before = seen(&nodes, at);
        let line = nodes.refused(&copy);
        assert!(line.starts_with(&format!("{COPIED}{}", nodes.name(at))), "{line}");
        client.end();
        assert_eq!(seen(&nodes, at), before, "the {what} as the others see it");
        let still = nodes.settled("the same cluster", |shown| all_healthy(shown, 3));
        assert_eq!(still["leader"], shown["leader"], "nobody was elected");
    }
}

#[test]
fn a_copy_of_the_only_node_finds_its_original() {
    let mut nodes = Nodes::new(1);
    nodes.start_bare(0, &[]);
    nodes.settled("a cluster of one", |shown| all_healthy(shown, 1));
    let copy = nodes.copy(0, "copy");
    let client = Client::of(nodes.node(0));
    let line = nodes.refused(&copy);
    assert!(line.starts_with(&format!("{COPIED}{}", nodes.name(0))), "{line}");
    client.end();
}

/// Of one with the number of the run that lives, and of an older one.
#[test]
fn a_directory_of_a_number_that_is_past_is_refused_for_good() {
    let (mut nodes, shown) = three();
    let at = 2;
    let name = nodes.name(at);
    let again = |nodes: &mut Nodes, least: u64| {
        let began = Instant::now();
        nodes.start_bare(at, &[]);
        let back = |shown: &Value| all_healthy(shown, 3) && boot(shown, &name) >= least;
        nodes.settled("the node is back", back);
        println!("a node that was stopped is back after {:?}", began.elapsed());
    };
    let stop = |nodes: &mut Nodes| {
        let stopped = nodes.nodes[at].take().expect("it runs").stop();
        assert!(stopped.success(), "{stopped}");
    };
    let first = boot(&shown, &name);
    stop(&mut nodes);
    let old = nodes.copy(at, "old");
    again(&mut nodes, first + 1);
    stop(&mut nodes);
    let twin = nodes.copy(at, "twin");
    again(&mut nodes, first + 2);
    let client = Client::of(nodes.node(at));
    let before = seen(&nodes, at);
    // Its next start has the number of the run that lives.
    let line = nodes.refused(&twin);
    assert!(
        line.contains("was copied or rolled back")
            && line.contains("start with an empty directory"),
        "{line}"
    );
    let line = nodes.refused(&old);
    assert!(line.contains("copied or rolled back"), "{line}");
    // Each start has a greater number than the one before. None of them is any better.
    for _ in 0..3 {
        let again = nodes.refused(&old);
        assert!(again.ends_with(line.trim_start_matches("sprawl: ")), "{again}");
    }
    client.end();
    assert_eq!(seen(&nodes, at), before, "as the others see it");
}

#[test]
fn a_node_that_was_decommissioned_or_replaced_is_refused_for_good() {
    let mut nodes = Nodes::new(4);
    let named = |nodes: &mut Nodes, at: usize| {
        nodes.start_with(at, &["--node-id", &format!("node-{at}")]);
    };
    (0..4).for_each(|at| named(&mut nodes, at));
    let voting = |shown: &Value| all_healthy(shown, 4) && vote(shown, 3);
    nodes.settled("one cluster of which three vote", voting);
    // One that nobody could tell that it is to go.
    nodes.kill(3);
    let other = format!("http://{}", nodes.node(0).address);
    let output = run(command(SPRAWLCTL).args(["-n", &other, "cluster", "decommission", "node-3"]));
    assert!(output.status.success(), "{output:?}");
    nodes.settled("a cluster of three", |shown| all_healthy(shown, 3) && vote(shown, 3));
    let line = nodes.refused(&nodes.data(3));
    assert!(line.contains(RETIRED) && line.contains("start"), "{line}");
    let again = nodes.refused(&nodes.data(3));
    assert!(again.contains(RETIRED) && again.contains("start"), "{again}");
    // One whose place another has taken.
    nodes.kill(2);
    let old = nodes.copy(2, "old");
    std::fs::remove_dir_all(nodes.data(2)).expect("its folder");
    named(&mut nodes, 2);
    nodes.settled("its successor", |shown| all_healthy(shown, 3) && vote(shown, 3));
    let line = nodes.refused(&old);
    assert!(line.contains(RETIRED) && line.contains("start"), "{line}");
    nodes.settled("the cluster as it was", |shown| all_healthy(shown, 3) && vote(shown, 3));
}
