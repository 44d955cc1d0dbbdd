//! A world of gossip machines alone: one heap of events, a thousand nodes, hundreds of hours.
//!
//! Nothing of the whole nodes' simulation is in it: no runtime, no sockets, no disk. Links have a
//! latency each, lose, repeat and delay; processes stand still, die, return, leave and come. The
//! same settings give the same events.

mod measure;
mod network;
mod story;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use measure::{Spans, Tally};

use crate::invariants::Findings;
use crate::plan::Draw;

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Profile {
    /// 1 % loss, links of 0.5 to 5 ms; now and then one node leaves, joins, dies, returns
    Calm,
    /// The same links; a third of the nodes dies at once, and returns
    Third,
    /// Every fault of networks and processes, then peace
    Churn,
}

/// A run, as data.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) profile: Profile,
    /// How much simulated time passes, the settling at the start not counted.
    pub(crate) lasts: Duration,
    /// For how long a process stands still at most, in calm runs; zero is never.
    pub(crate) pause_max: Duration,
    /// How often machines are asked whether they keep their bounds: each so many steps.
    pub(crate) check_each: u64,
    /// What changes are held against: the hard limit for each, from the first node that knows.
    pub(crate) known_max: Duration,
}

/// How long all nodes have to find each other before anything is measured.
pub(crate) const SETTLES: Duration = Duration::from_secs(20);

impl Settings {
    /// A short run, everything about it drawn from the seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut draw = Draw::new(seed, 0);
        let profile = [Profile::Calm, Profile::Churn, Profile::Third][(seed % 3) as usize];
        let nodes = draw.log_range(3, 40) as usize;
        let lasts = Duration::from_secs(match profile {
            Profile::Calm | Profile::Third => 100,
            Profile::Churn => draw.range(30, 120),
        });
        let pause_max = Duration::from_millis(if draw.percent(50) { 100 } else { 0 });
        let known_max = Duration::from_secs(1);
        Self { seed, nodes, profile, lasts, pause_max, check_each: 1, known_max }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Events of the heap that were handled.
    pub(crate) steps: u64,
    /// A hash over all of them, datagrams' bytes included.
    pub(crate) chain: u64,
    pub(crate) simulated: Duration,
    /// The mean of bytes and datagrams that a node sent in a second, after it settled.
    pub(crate) bytes_a_second: f64,
    pub(crate) datagrams_a_second: f64,
    /// How long after the last fault all views were equal; in runs with faults.
    pub(crate) converged_after: Option<Duration>,
    pub(crate) violations: BTreeMap<&'static str, String>,
}

/// Runs what the settings say, on this thread.
pub(crate) fn run(settings: &Settings) -> Outcome {
    let findings = Findings::default();
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world::World::new(settings.clone(), findings.clone()).live()
    }));
    let mut outcome = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        findings.violated("NoPanic", text.to_owned());
        Outcome::default()
    });
    outcome.violations = findings.violations();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(profile: Profile, nodes: usize, seed: u64) -> Outcome {
        let lasts = Duration::from_secs(60);
        run(&Settings { profile, nodes, lasts, ..Settings::of_seed(seed) })
    }

    #[test]
    fn a_seed_gives_the_same_events_twice_and_another_seed_others() {
        for profile in [Profile::Calm, Profile::Third, Profile::Churn] {
            let [a, b, c] = [(7, 9), (7, 9), (7, 10)].map(|(n, s)| short(profile, n, s).chain);
            assert_eq!(a, b, "{profile:?}");
            assert_ne!(a, c, "{profile:?}");
        }
    }

    #[test]
    fn short_runs_of_every_profile_hold_and_say_something() {
        for seed in 0..12 {
            let outcome = run(&Settings::of_seed(seed));
            assert_eq!(outcome.violations, BTreeMap::new(), "cargo sim gossip --seed {seed}");
            assert!(outcome.tally.changes() > 0, "seed {seed} measured nothing");
        }
    }
}
