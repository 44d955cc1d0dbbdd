//! What many runs of a node with its clients came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quantile;
use crate::cli::exit;
use crate::history::KINDS;
use crate::world::Outcome;

/// In so many seeds everything happens that clients can make happen.
const SEEDS_FOR_ALL_KINDS: u64 = 50;

/// The sum of the runs so far.
#[derive(Default)]
pub(super) struct Nodes {
    seeds: u64,
    vacuous: u64,
    simulated: Duration,
    events: u64,
    stored: usize,
    seen: u64,
    acknowledged: u64,
    work: BTreeMap<&'static str, u64>,
    starts: u64,
    faults: BTreeMap<&'static str, u64>,
    violations: BTreeMap<&'static str, u64>,
    writable_after: Vec<Duration>,
}

impl Nodes {
    pub(super) fn seeds(&self) -> u64 {
        self.seeds
    }

    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.vacuous += u64::from(outcome.vacuous.is_some());
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.stored += outcome.stored;
        self.seen += outcome.seen;
        self.acknowledged += outcome.acknowledged;
        self.starts += outcome.starts;
        self.writable_after.push(outcome.writable_after);
        for (&kind, count) in &outcome.work {
            *self.work.entry(kind).or_insert(0) += count;
        }
        for (&class, count) in &outcome.faults {
            *self.faults.entry(class).or_insert(0) += count;
        }
        for &invariant in outcome.violations.keys() {
            *self.violations.entry(invariant).or_insert(0) += 1;
        }
    }

    /// The worst that was found, as an exit code.
    pub(super) fn code(&self) -> u8 {
        match exit::of_violations(self.violations.keys().copied()) {
            0 if self.vacuous > 0 || !self.missing().is_empty() => exit::COVERAGE,
            code => code,
        }
    }

    /// What never happened, where there were seeds enough for all to happen.
    fn missing(&self) -> Vec<&'static str> {
        let enough = self.seeds >= SEEDS_FOR_ALL_KINDS;
        let never = |kind: &&'static str| self.work.get(kind).is_none_or(|times| *times == 0);
        KINDS.into_iter().filter(|_| enough).filter(never).collect()
    }

    pub(super) fn print(&mut self, elapsed: Duration) {
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let speed = self.simulated.as_secs_f64() / elapsed.as_secs_f64();
        let seconds = elapsed.as_secs_f64();
        println!("summary: {} seeds in {seconds:.1} s", self.seeds);
        println!("simulated: {hours:.1} h, {speed:.0} times as fast as real time");
        println!("events: {}, node starts: {}", self.events, self.starts);
        println!(
            "messages: {} stored, {} seen, {} acknowledged by subscribers",
            self.stored, self.seen, self.acknowledged
        );
        let work: Vec<_> = self.work.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        println!("of them and beside: {}", work.join(", "));
        let faults: Vec<_> = self.faults.iter().map(|(class, n)| format!("{class} {n}")).collect();
        println!("faults: {}", if faults.is_empty() { "none".into() } else { faults.join(", ") });
        self.writable_after.sort();
        let [p50, p99, max] = [50, 99, 100].map(|part| quantile(&self.writable_after, part));
        println!("all writable after healing: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}");
        println!("vacuous: {}", self.vacuous);
        for kind in self.missing() {
            println!("vacuous: in no seed was there any of: {kind}");
        }
        for (invariant, count) in &self.violations {
            println!("violated: {invariant} in {count} seeds");
        }
        if self.violations.is_empty() {
            println!("violated: nothing");
        }
    }
}
