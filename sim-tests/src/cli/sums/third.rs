//! What became of many clusters that lost a third of their nodes, and how long each partition
//! waited.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quantile;
use crate::cli::exit;
use crate::cluster::{Class, Outcome, Third as Seen};

/// What many deaths came to.
#[derive(Default)]
pub(super) struct Thirds {
    seeds: u64,
    simulated: Duration,
    /// Runs that say nothing.
    vacuous: u64,
    acknowledged: u64,
    read: u64,
    lost: u64,
    gaps: BTreeMap<Class, Vec<Option<Duration>>>,
    restored_after: Vec<Duration>,
    violations: BTreeMap<&'static str, u64>,
}

impl Thirds {
    pub(super) fn add(&mut self, outcome: &Outcome, seen: &Seen) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.vacuous += u64::from(seen.is_vacuous());
        self.acknowledged += seen.acknowledged;
        self.read += outcome.mail.1;
        self.lost += outcome.mail.2;
        self.restored_after.extend(seen.restored_after);
        for &(class, gap) in &seen.gaps {
            self.gaps.entry(class).or_default().push(gap);
        }
        for &invariant in outcome.violations.keys() {
            *self.violations.entry(invariant).or_insert(0) += 1;
        }
    }

    pub(super) fn seeds(&self) -> u64 {
        self.seeds
    }

    pub(super) fn print(&mut self) {
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let Self { seeds, acknowledged, read, lost, .. } = self;
        println!("summary: {seeds} seeds, {hours:.1} simulated hours");
        println!("acknowledged: {acknowledged}, read back: {read}, lost with all disks: {lost}");
        println!(
            "| left of a partition | partitions | share | taken again after: p50 | p99 | max \
             | never |"
        );
        println!("|---|---|---|---|---|---|---|");
        let all: usize = self.gaps.values().map(Vec::len).sum();
        for (class, gaps) in &self.gaps {
            let mut took: Vec<Duration> = gaps.iter().flatten().copied().collect();
            took.sort();
            let [p50, p99, max] = [50, 99, 100].map(|part| match took.is_empty() {
                true => "–".to_owned(),
                false => format!("{:.2} s", quantile(&took, part).as_secs_f64()),
            });
            let left = match class {
                Class::Left(left) => format!("{left}"),
                Class::NoQuorum(left) => format!("{left}, and no majority of the voters"),
            };
            let (count, never) = (gaps.len(), gaps.len() - took.len());
            let share = 100.0 * count as f64 / all as f64;
            println!("| {left} | {count} | {share:.1} % | {p50} | {p99} | {max} | {never} |");
        }
        self.restored_after.sort();
        if !self.restored_after.is_empty() {
            let [p50, p99, max] = [50, 99, 100].map(|part| quantile(&self.restored_after, part));
            println!("all copies there again after: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}");
        }
        let violated: Vec<_> =
            self.violations.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let violated = if violated.is_empty() { "none".to_owned() } else { violated.join(", ") };
        println!("violated: {violated}; runs that say nothing: {}", self.vacuous);
    }

    pub(super) fn code(&self) -> u8 {
        match exit::of_violations(self.violations.keys().copied()) {
            0 if self.vacuous > 0 => exit::COVERAGE,
            code => code,
        }
    }
}
