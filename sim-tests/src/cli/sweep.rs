//! Many seeds, side by side.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::span;
use crate::world::apart;

/// Which seeds, and how many of them at once.
#[derive(Args, Clone, Debug)]
pub(super) struct Sweep {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    pub(super) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(super) from: u64,
    /// How many at once [default: one a core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Begin no seed after this long
    #[arg(long, value_parser = span)]
    budget: Option<Duration>,
}

impl Sweep {
    /// From a seed on, for so long.
    pub(super) fn endless(from: u64, budget: Duration) -> Self {
        Self { seeds: u64::MAX - from, from, jobs: None, budget: Some(budget) }
    }

    /// Runs all of them with a bar that shows how far it is; `done` is told of each, and may print.
    pub(super) fn run<T: Send>(
        &self,
        run: impl Fn(u64) -> T + Sync,
        mut done: impl FnMut(u64, T) + Send,
    ) {
        let bar = ProgressBar::new(self.seeds).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {elapsed} of {duration}")
                .expect("the template is constant"),
        );
        let seeds = self.from..self.from.saturating_add(self.seeds);
        side_by_side(seeds, self.jobs, self.budget, run, |seed, outcome| {
            bar.inc(1);
            bar.suspend(|| done(seed, outcome));
            true
        });
        bar.finish_and_clear();
    }
}

/// Runs seeds, each on a thread of its own, until they end, time ends, or `done` says enough.
pub(super) fn side_by_side<T: Send>(
    seeds: Range<u64>,
    jobs: Option<usize>,
    budget: Option<Duration>,
    run: impl Fn(u64) -> T + Sync,
    done: impl FnMut(u64, T) -> bool + Send,
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
                    let outcome = apart(|| run(seed));
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The seed among these at which `caught` first says so, counted from 1.
#[cfg(zoo)]
pub(super) fn first<T: Send>(
    seeds: Range<u64>,
    run: impl Fn(u64) -> T + Sync,
    caught: impl Fn(&T) -> bool + Sync,
) -> Option<u64> {
    let (from, mut found) = (seeds.start, None);
    side_by_side(seeds, None, None, run, |seed, outcome| {
        if caught(&outcome) {
            found = Some(found.map_or(seed, |before: u64| before.min(seed)));
        }
        found.is_none()
    });
    found.map(|seed| seed - from + 1)
}
