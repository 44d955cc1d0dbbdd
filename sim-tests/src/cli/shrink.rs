//! `shrink`: the smallest plan that still breaks the same invariant.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::failures::keep;
use super::which::Which;
use super::{exit, span};
use crate::case::{Case, Ran};
use crate::shrink::{Oracle, shrink};
use crate::world::Watch;

#[derive(Args)]
pub(super) struct Shrink {
    #[command(flatten)]
    which: Which,
    /// The invariant that is to be broken still [default: that of the planted bug, else one of
    /// safety before one of progress]
    #[arg(long)]
    invariant: Option<String>,
    /// Under how many seeds each smaller plan is tried: what is left out shifts all that is drawn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Try no more after this long
    #[arg(long, value_parser = span, default_value = "10m")]
    budget: Duration,
    /// Where to write the smallest plan [default: target/sim-failures/NAME-small.json]
    #[arg(short, long)]
    output: Option<PathBuf>,
}

impl Shrink {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let (case, plant) = (self.which.case()?, self.which.bug.plant()?);
        let ran = case.run(Watch::none(), plant);
        let Some(invariant) = self.sought(&ran) else {
            let broken: Vec<_> = ran.violations().keys().copied().collect();
            let broken = if broken.is_empty() { "nothing".to_owned() } else { broken.join(", ") };
            eprintln!("the run breaks {broken}: there is nothing to look for in a smaller one");
            return Err(exit::USAGE);
        };
        println!("{invariant}: {}", ran.violations()[invariant]);
        let plan = serde_json::to_value(&case).expect("a plan is data");
        let bar = ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("constant"),
        );
        let mut trials = Trials {
            invariant,
            plant,
            seeds: self.seeds,
            jobs: std::thread::available_parallelism().map_or(1, Into::into),
            until: Instant::now() + self.budget,
            runs: 0,
            bar,
        };
        let small = shrink(plan, case.parts(), &mut trials);
        trials.bar.finish_and_clear();
        let small: Case = serde_json::from_value(small).expect("it was run");
        let after = small.run(Watch::none(), plant);
        self.compare((&case, &ran), (&small, &after), trials.runs);
        let path = match &self.output {
            Some(path) => {
                let text = serde_json::to_vec_pretty(&small).expect("a plan is data");
                std::fs::write(path, text).map(|()| path.clone())
            }
            None => keep(&format!("{}-small", case.name()), &small),
        };
        let path = path.map_err(|error| {
            eprintln!("the plan could not be kept: {error}");
            exit::USAGE
        })?;
        println!("cargo sim replay {}{}", path.display(), self.which.bug.argument());
        println!("  {invariant}: {}", after.violations()[invariant]);
        Ok(0)
    }

    /// The invariant to break again, if the run broke it.
    fn sought(&self, ran: &Ran) -> Option<&'static str> {
        let wanted = self.invariant.as_deref().or(self.which.bug.invariant());
        let broken = ran.violations().keys().copied();
        match wanted {
            Some(wanted) => broken.clone().find(|&name| name == wanted),
            None => {
                let safety = |name: &&str| !crate::invariants::is_liveness(name);
                broken.clone().find(safety).or(broken.clone().next())
            }
        }
    }

    fn compare(&self, before: (&Case, &Ran), after: (&Case, &Ran), runs: u64) {
        let sizes = |(case, ran): (&Case, &Ran)| {
            let (faults, nodes) = case.size();
            [faults as u64, nodes as u64, ran.operations(), ran.chain().1]
        };
        println!("{:<12} {:>10} {:>10} {:>8}", "", "before", "after", "left");
        let (before, after) = (sizes(before), sizes(after));
        for (what, (was, is)) in ["faults", "nodes", "operations", "events"]
            .into_iter()
            .zip(before.into_iter().zip(after))
        {
            let left = 100.0 * is as f64 / was.max(1) as f64;
            println!("{what:<12} {was:>10} {is:>10} {left:>6.1} %");
        }
        println!("after {runs} runs");
    }
}

/// Runs smaller plans, some at once.
struct Trials<P> {
    invariant: &'static str,
    plant: P,
    seeds: u64,
    jobs: usize,
    until: Instant,
    runs: u64,
    bar: ProgressBar,
}

impl<P: Fn() + Sync + Copy> Trials<P> {
    /// Whether the run of a plan breaks the invariant.
    fn breaks(&self, case: &Case) -> bool {
        case.run(Watch::none(), self.plant).violations().contains_key(self.invariant)
    }

    /// The plan under other seeds, its own first.
    fn cases(&self, plan: &Value, seed: u64) -> Option<Case> {
        let mut case: Case = serde_json::from_value(plan.clone()).ok()?;
        case.tidy();
        *case.seed_mut() = case.seed_mut().wrapping_add(seed);
        Some(case)
    }
}

impl<P: Fn() + Sync + Copy> Oracle for Trials<P> {
    fn first_of(&mut self, plans: Vec<Value>) -> Option<Value> {
        let numbers = 0..self.seeds;
        let all = numbers.flat_map(|seed| plans.iter().map(move |plan| (plan, seed)));
        let cases: Vec<Case> = all.filter_map(|(plan, seed)| self.cases(plan, seed)).collect();
        for some in cases.chunks(self.jobs) {
            if self.is_over() {
                return None;
            }
            self.runs += some.len() as u64;
            let broken: Vec<bool> = std::thread::scope(|scope| {
                let runs: Vec<_> =
                    some.iter().map(|case| scope.spawn(|| self.breaks(case))).collect();
                runs.into_iter().map(|run| run.join().unwrap_or(false)).collect()
            });
            if let Some((case, _)) = some.iter().zip(broken).find(|(_, broken)| *broken) {
                let (faults, nodes) = case.size();
                let runs = self.runs;
                self.bar.set_message(format!("{faults} faults, {nodes} nodes, {runs} runs"));
                self.bar.tick();
                return Some(serde_json::to_value(case).expect("a plan is data"));
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.until
    }
}
