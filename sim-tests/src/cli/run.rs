//! `run`: many seeds, side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::summary::{Summary, report};
use super::{exit, span};
use crate::plan::Plan;
use crate::trace::Log;
use crate::world::{self, Outcome, Watch};

/// Which plans the seeds are expanded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// No faults
    Calm,
    /// Each class of faults on or off, by seed
    Swarm,
}

#[derive(Args)]
pub(super) struct Run {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Which faults
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// How many at once [default: one a core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Begin no seed after this long
    #[arg(long, value_parser = span)]
    budget: Option<Duration>,
}

impl Run {
    pub(super) fn run(self) -> u8 {
        let calm = self.profile == Profile::Calm;
        let bar = ProgressBar::new(self.seeds).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {elapsed} of {duration}")
                .expect("the template is constant"),
        );
        let mut summary = Summary::new(self.seeds);
        let seeds = self.from..self.from.saturating_add(self.seeds);
        sweep(
            seeds,
            self.jobs,
            self.budget,
            |_| (),
            |seed, outcome| {
                bar.inc(1);
                bar.suspend(|| report(seed, calm, &outcome));
                summary.add(&outcome);
                true
            },
            calm,
        );
        bar.finish_and_clear();
        summary.print();
        if summary.seeds() == 0 { exit::COVERAGE } else { summary.code() }
    }
}

/// Runs seeds side by side until they end, time ends, or `done` says enough. `prepare` is called
/// on the thread of each run, before it.
pub(super) fn sweep(
    seeds: std::ops::Range<u64>,
    jobs: Option<usize>,
    budget: Option<Duration>,
    prepare: impl Fn(u64) + Sync,
    done: impl FnMut(u64, Outcome) -> bool + Send,
    calm: bool,
) {
    let jobs = jobs.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let (next, began) = (AtomicU64::new(seeds.start), Instant::now());
    let done = Mutex::new((done, true));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = budget.is_some_and(|budget| began.elapsed() > budget);
                    if seed >= seeds.end || late {
                        return;
                    }
                    let outcome = world::apart(|| {
                        prepare(seed);
                        let watch = Watch { log: Log::None, tamper: false };
                        world::run(&Plan::of_seed(seed, calm), watch)
                    });
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let (tell, on) = &mut *done;
                    *on = *on && tell(seed, outcome);
                    if !*on {
                        return;
                    }
                }
            });
        }
    });
}
