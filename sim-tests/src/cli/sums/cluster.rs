//! What many runs of clusters came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quantile;
use crate::cli::exit;
use crate::cluster::{Outcome, classes};

/// In so many seeds everything happens that is to be shown.
const SEEDS_FOR_ALL: u64 = 100;

/// What is lost with the last disk that holds it.
const LOST: &str = "messages lost with all their disks";
/// What subscriptions begin behind, where nobody has to know where they began.
const EXCUSED: &str = "deliveries excused";
/// Runs that say nothing of subscriptions.
const MEAGRE: &str = "runs with few deliveries";
/// Within what time somebody leads again, in 99 of 100 seeds.
const LED_P99_MAX: Duration = Duration::from_secs(2);

/// The sum of the runs so far.
#[derive(Default)]
pub(super) struct Clusters {
    seeds: u64,
    nodes: u64,
    simulated: Duration,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    forbidden: u64,
    violations: BTreeMap<&'static str, u64>,
    led_after: Vec<Duration>,
    settled_after: Vec<Duration>,
    writable_after: Vec<Duration>,
    led_again_after: Vec<Duration>,
    served_on_after: Vec<Duration>,
    served_again_after: Vec<Duration>,
    drained_after: Vec<Duration>,
}

impl Clusters {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.nodes += outcome.nodes;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.forbidden += outcome.forbidden;
        self.led_after.push(outcome.led_after);
        self.settled_after.push(outcome.settled_after);
        self.writable_after.push(outcome.writable_after);
        self.led_again_after.extend(outcome.led_again_after);
        self.served_on_after.extend(outcome.served_on_after);
        self.served_again_after.extend(outcome.served_again_after);
        let (raft, subscribers) = (&outcome.raft, &outcome.subscribers);
        self.drained_after.extend(outcome.drained_after);
        for (what, count) in [
            ("changes agreed", outcome.agreed),
            ("changes of unknown fate", outcome.unknown),
            ("elections", raft.elections),
            ("entries committed", raft.commits),
            ("messages stored", outcome.mail.0),
            ("messages read meanwhile", outcome.observed),
            ("messages read back", outcome.mail.1),
            ("messages removed", outcome.removed),
            ("acknowledged early and lost", outcome.forgotten),
            ("states given to replicas", outcome.installed),
            ("copies moved", outcome.moved.0),
            ("leads moved", outcome.moved.1),
            ("members with a tail", outcome.moved.2),
            (LOST, outcome.mail.2),
            ("subscriptions made", subscribers.made),
            ("messages delivered", subscribers.delivered),
            ("deliveries again", subscribers.repeated),
            ("deliveries acknowledged", subscribers.acked),
            ("deliveries given back", subscribers.given_back),
            ("dead letters", subscribers.buried),
            (EXCUSED, subscribers.excused),
            (MEAGRE, subscribers.meagre),
            ("logs cut back", raft.truncations),
            ("membership changes", raft.membership_changes),
            ("purges", raft.purges),
            ("snapshots installed", raft.snapshots_installed),
            ("starts", raft.starts),
            ("views compared", outcome.compared),
            ("votes for others", raft.votes),
        ] {
            *self.counts.entry(what).or_insert(0) += count;
        }
        for (&class, count) in &outcome.faults {
            *self.faults.entry(class).or_insert(0) += count;
        }
        for &invariant in outcome.violations.keys() {
            *self.violations.entry(invariant).or_insert(0) += 1;
        }
    }

    /// What never happened, where there were seeds enough for all to happen.
    fn missing(&self) -> Vec<&'static str> {
        if self.seeds < SEEDS_FOR_ALL || self.faults.is_empty() {
            return Vec::new();
        }
        // That nothing is lost is no want.
        let rare = [LOST, EXCUSED, MEAGRE];
        let wanted = self.counts.iter().filter(|(what, _)| !rare.contains(what));
        let never = wanted.filter(|(_, count)| **count == 0).map(|(what, _)| *what);
        let not_one = |class: &&'static str| self.faults.get(class).is_none_or(|count| *count == 0);
        never.chain(classes().into_iter().filter(not_one)).collect()
    }

    pub(super) fn seeds(&self) -> u64 {
        self.seeds
    }

    pub(super) fn print(&mut self) {
        let list = |of: &BTreeMap<&'static str, u64>| {
            let all: Vec<_> = of.iter().map(|(what, count)| format!("{what} {count}")).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        println!("summary: {} seeds, {} nodes", self.seeds, self.nodes);
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        println!("simulated: {hours:.1} h, events: {}", self.events);
        println!("of them: {}", list(&self.counts));
        println!("faults: {}; forbidden: {}", list(&self.faults), self.forbidden);
        for (what, all) in [
            ("led after healing", &mut self.led_after),
            ("settled after healing", &mut self.settled_after),
            ("written after healing", &mut self.writable_after),
            ("led again after a leader's death", &mut self.led_again_after),
            ("served on after one was told to end", &mut self.served_on_after),
            ("served again after a third's death", &mut self.served_again_after),
            ("drained at the end", &mut self.drained_after),
        ] {
            all.sort();
            let (p50, p99, max) = (quantile(all, 50), quantile(all, 99), quantile(all, 100));
            println!("{what}: p50 {p50:.2?}, p99 {p99:.2?}, max {max:.2?}");
        }
        if self.is_led_late() {
            println!("LeaderWithin: in one of 100 seeds it takes more than {LED_P99_MAX:?}");
        }
        for what in self.missing() {
            println!("vacuous: in no seed was there any of: {what}");
        }
        println!("violated: {}", list(&self.violations));
    }

    /// Whether, over enough seeds, it takes too long until somebody leads.
    fn is_led_late(&self) -> bool {
        let late = |all: &Vec<Duration>| {
            all.len() as u64 >= SEEDS_FOR_ALL && quantile(all, 99) > LED_P99_MAX
        };
        late(&self.led_after) || late(&self.led_again_after)
    }

    pub(super) fn code(&self) -> u8 {
        match exit::of_violations(self.violations.keys().copied()) {
            0 if self.is_led_late() => exit::of_violations(["LeaderWithin"].into_iter()),
            0 if !self.missing().is_empty() => exit::COVERAGE,
            code => code,
        }
    }
}
