//! `cluster`: many seeds of clusters, or one of them again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::run::Profile;
use super::sweep::Sweep;
use super::{commit, exit};
use crate::cluster::{self, ClusterPlan, Outcome, classes};
use crate::trace::Log;
use crate::world::apart;

/// In so many seeds everything happens that is to be shown.
const SEEDS_FOR_ALL: u64 = 100;

/// What is lost with the last disk that holds it.
const LOST: &str = "messages lost with all their disks";
/// Within what time somebody leads again, in 99 of 100 seeds.
const LED_P99_MAX: Duration = Duration::from_secs(2);

/// What is printed while one seed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    /// Nothing
    None,
    /// Faults, starts, elections and what is decided
    Short,
    /// Each input of each control machine, and each deed of each member
    Full,
}

impl From<Shown> for Log {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::None => Log::None,
            Shown::Short => Log::Short,
            Shown::Full => Log::Full,
        }
    }
}

#[derive(Args)]
pub(super) struct Cluster {
    /// How many nodes there are at first [default: as the seed says]
    #[arg(long)]
    nodes: Option<u32>,
    #[command(flatten)]
    sweep: Sweep,
    /// Run this seed alone, and print what happens
    #[arg(long)]
    seed: Option<u64>,
    /// Run this plan alone, and print what happens
    #[arg(long)]
    plan: Option<PathBuf>,
    /// What to print of a run alone
    #[arg(long, value_enum, default_value = "short")]
    log: Shown,
    /// Which faults
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// Of a run alone, print nothing but the chain hash over all events
    #[arg(long)]
    hash: bool,
    /// Plant this bug (see `cargo sim-zoo zoo --help`)
    #[cfg(zoo)]
    #[arg(long)]
    bug: Option<String>,
}

impl Cluster {
    pub(super) fn run(self) -> u8 {
        #[cfg(zoo)]
        let planted = match super::zoo::planted(self.bug.as_deref()) {
            Ok(planted) => planted,
            Err(code) => return code,
        };
        let plant = || {
            #[cfg(zoo)]
            sprawl_core::zoo::plant(planted);
        };
        let alone = match (&self.plan, self.seed) {
            (Some(path), _) => Some(read(path)),
            (None, Some(seed)) => Some(Ok(self.plan_of(seed))),
            (None, None) => None,
        };
        match alone {
            None => self.sweep(&plant),
            Some(Ok(plan)) => self.replay(&plan, &plant),
            Some(Err(why)) => {
                eprintln!("{why}");
                exit::USAGE
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.profile == Profile::Calm
    }

    fn plan_of(&self, seed: u64) -> ClusterPlan {
        ClusterPlan::of_seed(seed, self.nodes, self.is_calm())
    }

    fn replay(&self, plan: &ClusterPlan, plant: &(impl Fn() + Sync)) -> u8 {
        let log = if self.hash { Log::None } else { self.log.into() };
        let outcome = apart(|| {
            plant();
            cluster::run(plan, log)
        });
        if self.hash {
            println!("{:016x} {}", outcome.chain, outcome.events);
            return 0;
        }
        let mut sum = Sum::default();
        sum.add(&outcome);
        sum.print();
        println!("chain: {:016x} over {} events", outcome.chain, outcome.events);
        for (invariant, detail) in &outcome.violations {
            println!("{invariant}: {detail}");
        }
        sum.code()
    }

    fn sweep(&self, plant: &(impl Fn() + Sync)) -> u8 {
        let mut sum = Sum::default();
        let live = |seed| {
            plant();
            let plan = self.plan_of(seed);
            let outcome = cluster::run(&plan, Log::None);
            (plan, outcome)
        };
        self.sweep.run(live, |_, (plan, outcome)| {
            report(&plan, (self.nodes, self.is_calm()), &outcome);
            sum.add(&outcome);
        });
        sum.print();
        sum.code()
    }
}

/// Prints a failure, first the command that repeats it, and keeps its plan.
pub(super) fn report(plan: &ClusterPlan, (nodes, calm): (Option<u32>, bool), outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    let nodes = nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    let calm = if calm { " --profile calm" } else { "" };
    println!("cargo sim cluster --seed {}{nodes}{calm}   # at commit {}", plan.seed, commit());
    match super::keep(&format!("cluster-{}", plan.seed), plan) {
        Ok(path) => println!("  or: cargo sim cluster --plan {}", path.display()),
        Err(why) => println!("  its plan could not be kept: {why}"),
    }
    for (invariant, detail) in &outcome.violations {
        println!("  {invariant}: {detail}");
    }
}

fn read(path: &std::path::Path) -> Result<ClusterPlan, String> {
    let at = path.display();
    let text = std::fs::read(path).map_err(|error| format!("'{at}' is no file: {error}"))?;
    let plan: ClusterPlan =
        serde_json::from_slice(&text).map_err(|error| format!("'{at}' is no plan: {error}"))?;
    plan.is_run().map(|()| plan)
}

/// What many runs came to.
#[derive(Default)]
pub(super) struct Sum {
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
    led_again_after: Vec<Duration>,
    served_on_after: Vec<Duration>,
    served_again_after: Vec<Duration>,
}

impl Sum {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.nodes += outcome.nodes;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.forbidden += outcome.forbidden;
        self.led_after.push(outcome.led_after);
        self.settled_after.push(outcome.settled_after);
        self.led_again_after.extend(outcome.led_again_after);
        self.served_on_after.extend(outcome.served_on_after);
        self.served_again_after.extend(outcome.served_again_after);
        let raft = &outcome.raft;
        for (what, count) in [
            ("changes agreed", outcome.agreed),
            ("changes of unknown fate", outcome.unknown),
            ("elections", raft.elections),
            ("entries committed", raft.commits),
            ("messages stored", outcome.mail.0),
            ("messages read meanwhile", outcome.observed),
            ("messages read back", outcome.mail.1),
            ("messages removed", outcome.removed),
            ("states given to replicas", outcome.installed),
            ("copies moved", outcome.moved.0),
            ("leads moved", outcome.moved.1),
            (LOST, outcome.mail.2),
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
        let wanted = self.counts.iter().filter(|(what, _)| **what != LOST);
        let never = wanted.filter(|(_, count)| **count == 0).map(|(what, _)| *what);
        let not_one = |class: &&'static str| self.faults.get(class).is_none_or(|count| *count == 0);
        never.chain(classes().into_iter().filter(not_one)).collect()
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
            ("led again after a leader's death", &mut self.led_again_after),
            ("served on after one was told to end", &mut self.served_on_after),
            ("served again after a third's death", &mut self.served_again_after),
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
            0 if self.seeds == 0 || !self.missing().is_empty() => exit::COVERAGE,
            code => code,
        }
    }
}

/// So many of 100 of these, which ascend, are at most this.
pub(super) fn quantile(sorted: &[Duration], part: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * part / 100).copied().unwrap_or_default()
}
