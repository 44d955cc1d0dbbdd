//! Several nodes in one folder, each a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use crate::http::{Connection, get};
use crate::process::{Node, SPRAWL, command, eventually, free_port, run};

/// Nodes in one folder, each of which names the addresses of all as seeds.
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) ports: Vec<String>,
    pub(crate) seeds: String,
    /// Removed when the nodes have ended: fields are dropped in their order.
    pub(crate) folder: tempfile::TempDir,
    /// Held by one test at a time of those that have many nodes, which would take the processors
    /// from one another and from the others.
    _crowd: Option<MutexGuard<'static, ()>>,
}

/// From so many nodes on it is a crowd.
const CROWD: usize = 5;

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        static CROWDED: Mutex<()> = Mutex::new(());
        let crowd = || CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = (count >= CROWD).then(crowd);
        let ports: Vec<String> = (0..count).map(|_| free_port()).collect();
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            ports,
            seeds: addresses.join(","),
            nodes: (0..count).map(|_| None).collect(),
            _crowd: crowd,
        }
    }

    pub(crate) fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join("data").join(format!("node-{}", self.ports[at]))
    }

    /// Starts a node in the folder, with no more than these flags and its ports.
    pub(crate) fn start_bare(&mut self, at: usize, flags: &[&str]) {
        self.start_together(&[at], flags);
    }

    /// Starts nodes one after the other, without waiting for any of them to find the others.
    pub(crate) fn start_together(&mut self, order: &[usize], flags: &[&str]) {
        let started: Vec<Node> = std::thread::scope(|scope| {
            let launched: Vec<_> = order
                .iter()
                .map(|at| {
                    let mut command = command(SPRAWL);
                    command.current_dir(self.folder.path());
                    command.args(["--bind-port", &self.ports[*at], "--http-port", "0"]).args(flags);
                    let log = self.folder.path().join(format!("{at}.log"));
                    scope.spawn(move || Node::launch(command, log))
                })
                .collect();
            launched.into_iter().map(|node| node.join().expect("it starts")).collect()
        });
        for (at, node) in order.iter().zip(started) {
            self.nodes[*at] = Some(node);
        }
    }

    /// Starts all, in this order, each with the addresses of all as seeds.
    pub(crate) fn start_all(&mut self, order: &[usize]) {
        let seeds = self.seeds.clone();
        self.start_together(order, &["--seeds", &seeds]);
    }

    pub(crate) fn start_with(&mut self, at: usize, flags: &[&str]) {
        let seeds = self.seeds.clone();
        self.start_bare(at, &[&["--seeds", &seeds], flags].concat());
    }

    pub(crate) fn start(&mut self, at: usize) {
        self.start_with(at, &[]);
    }

    /// Copies the data directory of a node as it is at this moment. Nothing is to be written
    /// meanwhile: the files would be of different moments, which the copy finds before all else.
    pub(crate) fn copy(&self, at: usize, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        let copied = Command::new("cp").arg("-a").arg(self.data(at)).arg(&to).status();
        assert!(copied.expect("cp runs").success(), "a copy of node {at}");
        to
    }

    /// Starts a process from a directory, at a free address, that is to be refused; gives
    /// the one line that it ends with.
    #[track_caller]
    pub(crate) fn refused(&self, data: &Path) -> String {
        self.refused_at(data, "0")
    }

    /// The same, at this port.
    #[track_caller]
    pub(crate) fn refused_at(&self, data: &Path, port: &str) -> String {
        let mut command = command(SPRAWL);
        command.current_dir(self.folder.path()).args(["--http-port", "0", "--data-dir"]).arg(data);
        command.args(["--bind-port", port]);
        let began = Instant::now();
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let mut lines = said.lines().filter(|line| line.starts_with("sprawl: "));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            panic!("one line was expected: {said}");
        };
        assert_eq!(said.lines().last(), Some(line), "it is the last one");
        println!("{line}: after {:?}", began.elapsed());
        line.to_owned()
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it runs")
    }

    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").kill();
    }

    /// Ends nodes without warning, all at once.
    pub(crate) fn kill_together(&mut self, gone: &[usize]) {
        self.signal(gone, "KILL");
        gone.iter().for_each(|at| self.kill(*at));
    }

    /// Sends a signal to nodes, to all at once.
    pub(crate) fn signal(&self, to: &[usize], name: &str) {
        let pids = to.iter().map(|at| self.node(*at).pid().to_string());
        let sent = Command::new("kill").arg(format!("-{name}")).args(pids).status();
        assert!(sent.expect("kill runs").success(), "{name} to {to:?}");
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some())
    }

    pub(crate) fn name(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at])
    }

    /// The node of this name.
    #[track_caller]
    pub(crate) fn at(&self, name: &Value) -> usize {
        let found = (0..self.nodes.len()).find(|at| *name == self.name(*at).as_str());
        found.expect("one of them has this name")
    }

    /// The node that leads each topic's first partition, by its name. Waits until every live node
    /// shows the same table of the topics.
    #[track_caller]
    pub(crate) fn owners(&self) -> BTreeMap<String, String> {
        let table = |at| {
            let mut shown = get(&self.node(at).address, "/dht").json();
            assert_eq!(shown["node_id"].take(), self.name(at).as_str(), "it speaks for itself");
            shown
        };
        eventually("the same table of the topics at every node", || {
            let mut shown = self.live().map(table);
            let first = shown.next()?;
            shown.all(|other| other == first).then(|| owners_in(&first))
        })
    }

    /// Waits until every live node shows a cluster that fits, all the same one, with the same
    /// leader; gives what the first of them shows.
    #[track_caller]
    pub(crate) fn settled(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.settled_among(what, &self.live().collect::<Vec<_>>(), fits)
    }

    /// Waits until a change to so many voters is over. All show the new voters from its first step
    /// on, at which the old ones are needed still.
    #[track_caller]
    pub(crate) fn voters_changed(&self, count: usize) {
        let fits = |line: &str| {
            line.contains("has changed change=Voters") && line.matches("NodeId(").count() == count
        };
        eventually("the end of a change of the voters", || {
            self.live().any(|at| self.node(at).log().lines().any(fits)).then_some(())
        });
    }

    /// The same as [`Self::settled`], of some of the nodes.
    #[track_caller]
    pub(crate) fn settled_among(
        &self,
        what: &str,
        some: &[usize],
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, || {
            let shown: Vec<Value> =
                some.iter().map(|at| ask(self.node(*at))).collect::<Option<_>>()?;
            let same = |one: &Value| {
                ["cluster_id", "leader"].iter().all(|field| one[field] == shown[0][field])
            };
            let known = shown[0]["cluster_id"].is_string() && shown[0]["leader"].is_string();
            (known && shown.iter().all(|one| same(one) && fits(one))).then(|| shown[0].clone())
        })
    }
}

/// The cluster as a node shows it; nothing while it does not.
pub(crate) fn ask(node: &Node) -> Option<Value> {
    let mut connection = Connection::open(&node.address).ok()?;
    let reply = connection.send("GET", "/cluster/status", b"").ok()?;
    (reply.status == 200).then(|| reply.json())
}

pub(crate) fn nodes_of(shown: &Value) -> &[Value] {
    shown["nodes"].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn all_healthy(shown: &Value, count: usize) -> bool {
    let nodes = nodes_of(shown);
    nodes.len() == count
        && nodes.iter().all(|node| node["state"] == "healthy" && node["down_since"].is_null())
}

/// Whether so many nodes vote: a node that joins learns first.
pub(crate) fn vote(shown: &Value, count: usize) -> bool {
    nodes_of(shown).iter().filter(|node| votes(node)).count() == count
}

pub(crate) fn votes(node: &Value) -> bool {
    node["role"] == "leader" || node["role"] == "voter"
}

pub(crate) fn boot(shown: &Value, name: &str) -> u64 {
    let node = nodes_of(shown).iter().find(|node| node["node_id"] == name);
    node.and_then(|node| node["boot"].as_u64()).unwrap_or(0)
}

/// The node that leads each topic's first partition, by its name, as a node shows it.
pub(crate) fn owners(node: &Node) -> BTreeMap<String, String> {
    owners_in(&get(&node.address, "/dht").json())
}

fn owners_in(shown: &Value) -> BTreeMap<String, String> {
    let topics = shown["topic_map"].as_object().expect("a table").values();
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let owner = |topic: &Value| (text(&topic[0]["topic"]), text(&topic[0]["owners"][0]));
    topics.map(owner).collect()
}

/// How many partitions each node holds and leads, as a cluster shows it.
pub(crate) fn loads(shown: &Value) -> Vec<(u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let load = |node: &Value| (number(&node["partitions"]), number(&node["leads"]));
    nodes_of(shown).iter().map(load).collect()
}

/// Whether no node has two more than another one.
pub(crate) fn even(shown: &Value) -> bool {
    let within = |all: Vec<u64>| all.iter().max() <= all.iter().min().map(|min| min + 1).as_ref();
    let (held, led): (Vec<u64>, Vec<u64>) = loads(shown).into_iter().unzip();
    within(held) && within(led)
}

/// How many copies of a topic count, as a node shows it; none where it does not know the topic.
pub(crate) fn copies(nodes: &Nodes, at: usize, topic: &str) -> u64 {
    let shown = get(&nodes.node(at).address, &format!("/topics/{topic}"));
    if shown.status != 200 {
        return 0;
    }
    shown.json()["replication_in_effect"].as_u64().expect("a number")
}
