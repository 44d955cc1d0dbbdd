//! `gossip`: the membership alone, with many nodes for long, or many short runs with faults.

use std::time::{Duration, Instant};

use clap::Args;
use sprawl_core::cluster::gossip::MemberEventKind;

use super::failures::commit;
use super::{exit, span};
use crate::gossip::{Outcome, Profile, Settings, Spans, Tally, run};
use crate::world::apart;

/// Within how long 99 of 100 changes are known to every live node, in runs without faults.
const KNOWN_P99: Duration = Duration::from_millis(50);
/// Within how long half of the deaths are known to every live node.
const DETECTED_P50: Duration = Duration::from_secs(3);
/// So many changes make a quantile that can be held against its bound.
const ENOUGH: usize = 200;

#[derive(Args)]
pub(super) struct Gossip {
    /// How many nodes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=2000))]
    nodes: u16,
    /// How much time passes, in hours
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// What happens
    #[arg(long, value_enum, default_value = "calm")]
    profile: Profile,
    /// For how long a process stands still now and then, at most, in milliseconds
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// The seed; without any other option, that of a short run, as --seeds has them
    #[arg(long)]
    seed: Option<u64>,
    /// Many short runs instead, everything about them drawn from their seeds, from --seed on
    #[arg(long)]
    seeds: Option<u64>,
    /// Begin no short run after this long
    #[arg(long, value_parser = span)]
    budget: Option<Duration>,
    /// The short run of --seed alone
    #[arg(long, requires = "seed")]
    short: bool,
    /// Plant this bug (see `cargo sim-zoo zoo --help`)
    #[cfg(zoo)]
    #[arg(long)]
    bug: Option<String>,
}

impl Gossip {
    pub(super) fn run(self) -> u8 {
        #[cfg(zoo)]
        let planted = match super::zoo::planted(self.bug.as_deref()) {
            Ok(planted) => planted,
            Err(code) => return code,
        };
        let live = |settings: &Settings| {
            apart(|| {
                #[cfg(zoo)]
                sprawl_core::zoo::plant(planted);
                run(settings)
            })
        };
        let seed = self.seed.unwrap_or(0);
        let began = Instant::now();
        let mut sum = Sum::default();
        if self.seeds.is_some() || self.short {
            for seed in seed..seed + self.seeds.unwrap_or(1) {
                if self.budget.is_some_and(|budget| began.elapsed() > budget) {
                    break;
                }
                let settings = Settings::of_seed(seed);
                sum.add(&format!("--short --seed {seed}"), settings.profile, &live(&settings));
            }
        } else {
            let settings = self.settings(seed);
            let again = format!(
                "--nodes {} --hours {} --profile {:?} --pause-ms {} --seed {seed}",
                self.nodes, self.hours, self.profile, self.pause_ms
            );
            sum.add(&again.to_lowercase(), settings.profile, &live(&settings));
        }
        sum.judge();
        sum.print(began.elapsed());
        sum.code()
    }

    fn settings(&self, seed: u64) -> Settings {
        Settings {
            seed,
            nodes: usize::from(self.nodes),
            profile: self.profile,
            lasts: Duration::from_secs_f64(self.hours * 3_600.0),
            pause_max: Duration::from_millis(self.pause_ms),
            check_each: 997,
            known_max: Duration::from_secs(2),
        }
    }
}

/// What runs came to together.
#[derive(Default)]
struct Sum {
    runs: u64,
    /// Of runs whose quantiles are held against their bounds.
    tally: Tally,
    /// Of runs with faults, which say only that something happened.
    churned: Tally,
    steps: u64,
    chain: u64,
    simulated: Duration,
    traffic: (f64, f64),
    converged: Vec<Duration>,
    violations: std::collections::BTreeMap<&'static str, String>,
}

impl Sum {
    fn add(&mut self, again: &str, profile: Profile, outcome: &Outcome) {
        self.runs += 1;
        match profile {
            Profile::Calm | Profile::Third => self.tally.add(&outcome.tally),
            Profile::Churn => self.churned.add(&outcome.tally),
        }
        self.steps += outcome.steps;
        self.chain ^= outcome.chain;
        self.simulated += outcome.simulated;
        self.traffic.0 += outcome.bytes_a_second;
        self.traffic.1 += outcome.datagrams_a_second;
        self.converged.extend(outcome.converged_after);
        if !outcome.violations.is_empty() {
            println!("cargo sim gossip {again}   # at commit {}", commit());
        }
        for (invariant, detail) in &outcome.violations {
            let short: String = detail.chars().take(2_000).collect();
            println!("  {invariant}: {short}");
            self.violations.entry(invariant).or_insert(short);
        }
    }

    /// Holds the quantiles over all runs against their bounds.
    fn judge(&mut self) {
        let known = self.tally.all_known();
        let [p99] = known.at([99]);
        if known.len() >= ENOUGH && p99 > KNOWN_P99 {
            let detail = format!("p99 of {} changes is {p99:?}", known.len());
            self.violations.entry("ChangeKnownWithin").or_insert(detail);
        }
        let [p50] = self.tally.detected_by_all.at([50]);
        if p50 > DETECTED_P50 {
            let detail = format!("the median of deaths is {p50:?}");
            self.violations.entry("FailureDetectedWithin").or_insert(detail);
        }
    }

    fn print(&self, elapsed: Duration) {
        let (hours, seconds) = (self.simulated.as_secs_f64() / 3_600.0, elapsed.as_secs_f64());
        println!("gossip: {} runs, {hours:.2} h simulated in {seconds:.1} s", self.runs);
        let speed = self.simulated.as_secs_f64() / seconds;
        let rate = self.steps as f64 / seconds / 1e6;
        println!("speed: {speed:.0} times real time, {} events, {rate:.2} M/s", self.steps);
        println!("chain: {:016x}", self.chain);
        let line = |name: &str, spans: &Spans| {
            let [p50, p99, max] = spans.at([50, 99, 100]);
            println!("{name:<34} {:>7}  p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}", spans.len());
        };
        line("known to all: every change", &self.tally.all_known());
        for (kind, spans) in &self.tally.known {
            line(&format!("known to all: {kind:?}").to_lowercase(), spans);
        }
        for (kind, spans) in &self.tally.known_paused {
            line(&format!("  past a pause: {kind:?}").to_lowercase(), spans);
        }
        line("death known to a node", &self.tally.detected);
        line("death known to all", &self.tally.detected_by_all);
        let (doubted, wrong) = (self.tally.doubted, self.tally.false_verdicts);
        println!("live nodes doubted {doubted} times; false verdicts: {wrong}");
        let runs = self.runs as f64;
        let (bytes, datagrams) = (self.traffic.0 / runs, self.traffic.1 / runs);
        if self.churned.changes() > 0 {
            let Tally { doubted, false_verdicts, .. } = self.churned;
            let changes = self.churned.changes();
            println!(
                "amid faults: {changes} changes, {doubted} doubts, {false_verdicts} false verdicts"
            );
        }
        println!("sent per node and second: {bytes:.0} bytes, {datagrams:.1} datagrams");
        if let Some(kib) = resident_kib() {
            println!("memory of the process: {} MiB", kib / 1_024);
        }
        if !self.converged.is_empty() {
            let most = self.converged.iter().max().expect("there is one");
            println!("converged after healing: {} runs, max {most:.1?}", self.converged.len());
        }
        for invariant in self.violations.keys() {
            println!("violated: {invariant}: {}", self.violations[invariant]);
        }
        if self.violations.is_empty() {
            println!("violated: nothing");
        }
    }

    fn code(&self) -> u8 {
        match exit::of_violations(self.violations.keys().copied()) {
            0 if self.tally.changes() + self.churned.changes() == 0 || self.known_nothing() => {
                exit::COVERAGE
            }
            code => code,
        }
    }

    /// Whether many runs saw no join, no leave or no death.
    fn known_nothing(&self) -> bool {
        let seen = |kind| {
            self.tally.known.contains_key(&kind) || self.tally.known_paused.contains_key(&kind)
        };
        let all = [MemberEventKind::Joined, MemberEventKind::Left, MemberEventKind::Failed];
        self.runs >= 20 && !all.into_iter().all(seen)
    }
}

/// How much memory the process has, as the kernel says.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
