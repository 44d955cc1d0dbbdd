//! Leaders that are killed or paused, and thirds of a cluster at once: each time whoever lives
//! agrees again on who belongs to it, who is down and who leads.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::nodes::{Nodes, all_healthy, boot, nodes_of, vote};

/// How many rounds are run of each kind where nobody asks for more: `SPRAWL_TEST_ROUNDS`.
const ROUNDS: usize = 2;

pub(crate) fn rounds() -> usize {
    let asked = std::env::var_os("SPRAWL_TEST_ROUNDS");
    let number = |asked: std::ffi::OsString| asked.to_str().and_then(|asked| asked.parse().ok());
    asked.map_or(ROUNDS, |asked| number(asked).expect("SPRAWL_TEST_ROUNDS is a number"))
}

/// How long something took, round by round.
pub(crate) struct Times(String, Vec<Duration>);

impl Times {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into(), Vec::new())
    }

    pub(crate) fn note(&mut self, began: Instant) {
        self.1.push(began.elapsed());
    }

    pub(crate) fn extend(&mut self, times: Vec<Duration>) {
        self.1.extend(times);
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        self.1.sort_unstable();
        let at = |place: usize| self.1.get(place).copied().unwrap_or_default();
        let (p50, max) = (at(self.1.len() / 2), at(self.1.len().saturating_sub(1)));
        let p99 = at(self.1.len().saturating_sub(1) * 99 / 100);
        println!("{}: {} times, p50 {p50:.2?}, p99 {p99:.2?}, max {max:.2?}", self.0, self.1.len());
    }
}

pub(crate) fn started(count: usize) -> Nodes {
    let mut nodes = Nodes::new(count);
    nodes.start_all(&(0..count).collect::<Vec<_>>());
    whole(&nodes);
    nodes.voters_changed(2 * (count / 3) + 1);
    nodes
}

/// Waits until all are there, and as many vote as are to.
pub(crate) fn whole(nodes: &Nodes) -> Value {
    let count = nodes.nodes.len();
    let fits = |shown: &Value| all_healthy(shown, count) && vote(shown, 2 * (count / 3) + 1);
    nodes.settled("a whole cluster", fits)
}

/// Whether these are down, agreed and in gossip, and nobody else is; and one that lives leads.
pub(crate) fn are_down(nodes: &Nodes, shown: &Value, gone: &[usize]) -> bool {
    let all = nodes_of(shown);
    let fits = |node: &Value| {
        let is_gone = gone.iter().any(|at| node["node_id"] == nodes.name(*at).as_str());
        let state = if is_gone { "failed" } else { "healthy" };
        node["state"] == state && node["down_since"].is_string() == is_gone
    };
    let leads = gone.iter().all(|at| shown["leader"] != nodes.name(*at).as_str());
    leads && all.len() == nodes.nodes.len() && all.iter().all(fits)
}

/// Kills nodes at once, and starts them again when the others agree.
fn round(nodes: &mut Nodes, gone: &[usize], (agreed, back): (&mut Times, &mut Times)) {
    let began = Instant::now();
    nodes.kill_together(gone);
    nodes.settled("those who live agree", |shown| are_down(nodes, shown, gone));
    agreed.note(began);
    let began = Instant::now();
    nodes.start_together(gone, &[]);
    whole(nodes);
    back.note(began);
}

#[test]
fn leaders_are_killed_again_and_again() {
    let mut nodes = started(3);
    let mut agreed = Times::new("of 3 the leader killed: all agree that it is down and who leads");
    let mut back = Times::new("of 3 the leader killed: all are back");
    for _ in 0..rounds() {
        let at = nodes.at(&whole(&nodes)["leader"]);
        round(&mut nodes, &[at], (&mut agreed, &mut back));
    }
}

#[test]
fn a_third_is_killed_again_and_again() {
    for (count, agreed, back) in [
        (6, "of 6 a third killed: all agree", "of 6 a third killed: all are back"),
        (9, "of 9 a third killed: all agree", "of 9 a third killed: all are back"),
    ] {
        let mut nodes = started(count);
        let (mut agreed, mut back) = (Times::new(agreed), Times::new(back));
        for number in 0..rounds() {
            // The leader, and the next ones: others each time.
            let first = nodes.at(&whole(&nodes)["leader"]);
            let step = 1 + number % 2;
            let gone: Vec<usize> = (0..count / 3).map(|at| (first + at * step) % count).collect();
            round(&mut nodes, &gone, (&mut agreed, &mut back));
        }
    }
}

#[test]
fn a_leader_that_was_paused_follows_its_successor() {
    let nodes = started(3);
    let before = whole(&nodes);
    let at = nodes.at(&before["leader"]);
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    let began = Instant::now();
    nodes.signal(&[at], "STOP");
    let down = |shown: &Value| are_down(&nodes, shown, &[at]);
    nodes.settled_among("the others agree", &others, down);
    println!("a leader paused: the others agree after {:?}", began.elapsed());
    let began = Instant::now();
    nodes.signal(&[at], "CONT");
    let after = whole(&nodes);
    println!("it goes on: all agree after {:?}", began.elapsed());
    let name = nodes.name(at);
    assert_eq!(boot(&after, &name), boot(&before, &name), "the same run goes on");
}
