//! `third`: a third of a cluster dies, many times, and how long each partition waits.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::alone::{Alone, print_end};
use super::cluster::quantile;
use super::sweep::Sweep;
use super::{commit, exit};
use crate::cluster::{self, Class, Outcome, Scenario, Third as Seen, ThirdPlan};
use crate::trace::Log;
use crate::world::apart;

#[derive(Args)]
pub(super) struct Third {
    /// Which third dies, and how
    #[arg(long, value_enum, default_value = "at-random")]
    scenario: Scenario,
    /// How many nodes there are
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(3..=60))]
    nodes: u16,
    #[command(flatten)]
    sweep: Sweep,
    #[command(flatten)]
    alone: Alone,
}

impl Third {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let plant = self.alone.plant()?;
        let alone = self.alone.plan(|seed| self.plan_of(seed), |plan: &ThirdPlan| &plan.cluster)?;
        Ok(match alone {
            None => self.sweep(&plant),
            Some(plan) => self.replay(&plan, &plant),
        })
    }

    fn plan_of(&self, seed: u64) -> ThirdPlan {
        ThirdPlan::of_seed(seed, self.scenario, usize::from(self.nodes))
    }

    fn sweep(&self, plant: &(impl Fn() + Sync)) -> u8 {
        let mut table = Table::default();
        let live = |seed| {
            plant();
            let plan = self.plan_of(seed);
            let (outcome, seen) = cluster::run_third(&plan, Log::None);
            (plan, outcome, seen)
        };
        self.sweep.run(live, |_, (plan, outcome, seen)| {
            report(&plan, &outcome);
            table.add(&outcome, seen);
        });
        table.print();
        table.code()
    }

    fn replay(&self, plan: &ThirdPlan, plant: &(impl Fn() + Sync)) -> u8 {
        let (outcome, seen) = apart(|| {
            plant();
            cluster::run_third(plan, self.alone.log())
        });
        if self.alone.is_hash(&outcome) {
            return 0;
        }
        let mut table = Table::default();
        table.add(&outcome, seen);
        table.print();
        print_end(&outcome);
        table.code()
    }
}

/// Prints a failure, first the command that repeats it, and keeps its plan.
fn report(plan: &ThirdPlan, outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    let (seed, nodes) = (plan.cluster.seed, plan.cluster.starts_ms.len());
    let name = plan.scenario.name();
    let again = format!("cargo sim third --scenario {name} --nodes {nodes} --seed {seed}");
    println!("{again}   # at commit {}", commit());
    let kept = super::keep(&format!("third-{name}-{nodes}-{seed}"), plan);
    match kept {
        Ok(path) => println!("  or: cargo sim third --plan {}", path.display()),
        Err(why) => println!("  its plan could not be kept: {why}"),
    }
    for (invariant, detail) in &outcome.violations {
        println!("  {invariant}: {detail}");
    }
}

/// What many deaths came to.
#[derive(Default)]
struct Table {
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

impl Table {
    fn add(&mut self, outcome: &Outcome, seen: Seen) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.vacuous += u64::from(seen.is_vacuous());
        self.acknowledged += seen.acknowledged;
        self.read += outcome.mail.1;
        self.lost += outcome.mail.2;
        self.restored_after.extend(seen.restored_after);
        for (class, gap) in seen.gaps {
            self.gaps.entry(class).or_default().push(gap);
        }
        for &invariant in outcome.violations.keys() {
            *self.violations.entry(invariant).or_insert(0) += 1;
        }
    }

    fn print(&mut self) {
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

    fn code(&self) -> u8 {
        match exit::of_violations(self.violations.keys().copied()) {
            0 if self.seeds == 0 || self.vacuous > 0 => exit::COVERAGE,
            code => code,
        }
    }
}
