//! `cluster`: many seeds of clusters, or one of them again.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::alone::{Alone, print_end};
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
/// What subscriptions begin behind, where nobody has to know where they began.
const EXCUSED: &str = "deliveries excused";
/// Runs that say nothing of subscriptions.
const MEAGRE: &str = "runs with few deliveries";
/// Within what time somebody leads again, in 99 of 100 seeds.
const LED_P99_MAX: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(super) struct Cluster {
    /// How many nodes there are at first [default: as the seed says]
    #[arg(long)]
    nodes: Option<u32>,
    #[command(flatten)]
    sweep: Sweep,
    #[command(flatten)]
    alone: Alone,
    /// Which faults
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
}

impl Cluster {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let plant = self.alone.plant()?;
        Ok(match self.alone.plan(|seed| self.plan_of(seed), |plan: &ClusterPlan| plan)? {
            None => self.sweep(&plant),
            Some(plan) => self.replay(&plan, &plant),
        })
    }

    fn is_calm(&self) -> bool {
        self.profile == Profile::Calm
    }

    fn plan_of(&self, seed: u64) -> ClusterPlan {
        ClusterPlan::of_seed(seed, self.nodes, self.is_calm())
    }

    fn replay(&self, plan: &ClusterPlan, plant: &(impl Fn() + Sync)) -> u8 {
        let outcome = apart(|| {
            plant();
            cluster::run(plan, self.alone.log())
        });
        if self.alone.is_hash(&outcome) {
            return 0;
        }
        let mut sum = Sum::default();
        sum.add(&outcome);
        sum.print();
        print_end(&outcome);
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
    writable_after: Vec<Duration>,
    led_again_after: Vec<Duration>,
    served_on_after: Vec<Duration>,
    served_again_after: Vec<Duration>,
    drained_after: Vec<Duration>,
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
