//! `zoo`: each planted bug must be caught by the invariant that it breaks, within its budget.

use std::time::{Duration, Instant};

use clap::Args;
use sprawl_core::zoo::{Bug, plant};

use super::run::sweep;
use super::{exit, span};
use crate::gossip;
use crate::world::apart;

/// A planted bug, and who must catch it.
pub(super) struct Planted {
    pub(super) id: &'static str,
    pub(super) bug: Bug,
    invariant: &'static str,
}

/// Within how many seeds each is caught.
const SEEDS: u64 = 200;

/// All of them.
const ZOO: [Planted; 17] = [
    Planted { id: "no-sync", bug: Bug::NoSync, invariant: "AckMeansDurable" },
    Planted {
        id: "checksum-unverified",
        bug: Bug::ChecksumUnverified,
        invariant: "NoCorruptByteServed",
    },
    Planted { id: "window-not-rebuilt", bug: Bug::WindowNotRebuilt, invariant: "NoDuplicateId" },
    Planted {
        id: "producers-not-rebuilt",
        bug: Bug::ProducersNotRebuilt,
        invariant: "NumberStandsOnce",
    },
    Planted { id: "epoch-resumed", bug: Bug::EpochResumed, invariant: "EpochIndexNamesOneEntry" },
    Planted {
        id: "repeat-answered-early",
        bug: Bug::RepeatAnsweredEarly,
        invariant: "NothingAckedIsLost",
    },
    Planted { id: "delay-ignored", bug: Bug::DelayIgnored, invariant: "NotBeforeDelay" },
    Planted {
        id: "ttl-by-the-wall-clock",
        bug: Bug::TtlByTheWallClock,
        invariant: "NoExpiredDelivery",
    },
    Planted {
        id: "retention-by-the-wall-clock",
        bug: Bug::RetentionByTheWallClock,
        invariant: "NothingUnexpiredDeleted",
    },
    Planted { id: "window-without-bound", bug: Bug::WindowWithoutBound, invariant: "BoundsHold" },
    Planted { id: "lobby-without-bound", bug: Bug::LobbyWithoutBound, invariant: "BoundsHold" },
    Planted {
        id: "lobby-without-shares",
        bug: Bug::LobbyWithoutShares,
        invariant: "LightLoadIsServed",
    },
    Planted { id: "buried-after-done", bug: Bug::BuriedAfterDone, invariant: "AtLeastOnce" },
    Planted {
        id: "latest-at-first-pull",
        bug: Bug::LatestAtFirstPull,
        invariant: "SubscribedMeansFromHere",
    },
    Planted {
        id: "refutes-without-raise",
        bug: Bug::RefutesWithoutRaise,
        invariant: "NoFalseFailed",
    },
    Planted { id: "old-failed-overrides", bug: Bug::OldFailedOverrides, invariant: "Converges" },
    Planted { id: "join-told-once", bug: Bug::JoinToldOnce, invariant: "ChangeKnownWithin" },
];

/// How many times each bug is sought, from other seeds each time, for the median.
const STARTS: u64 = 10;
/// How far apart the starts are.
const STRIDE: u64 = 10_000;

/// The bug to plant, where one is named; the exit code, where there is none of the name.
pub(super) fn planted(id: Option<&str>) -> Result<Option<Bug>, u8> {
    let Some(id) = id else { return Ok(None) };
    match find(id) {
        Some(planted) => Ok(Some(planted.bug)),
        None => {
            eprintln!("there is no planted bug '{id}'");
            Err(exit::USAGE)
        }
    }
}

/// The planted bug of this name.
fn find(id: &str) -> Option<&'static Planted> {
    ZOO.iter().find(|planted| planted.id == id)
}

#[derive(Args)]
pub(super) struct Zoo {
    /// Only this one
    #[arg(long)]
    bug: Option<String>,
    /// Begin no further search after this long; each bug is sought at least once
    #[arg(long, value_parser = span)]
    budget: Option<Duration>,
}

impl Zoo {
    pub(super) fn run(self) -> u8 {
        if let Some(bug) = self.bug.as_deref().filter(|bug| find(bug).is_none()) {
            let all: Vec<_> = ZOO.iter().map(|planted| planted.id).collect();
            eprintln!("there is no planted bug '{bug}'; there are {}", all.join(", "));
            return exit::USAGE;
        }
        let chosen = |planted: &&Planted| self.bug.as_deref().is_none_or(|bug| bug == planted.id);
        let began = Instant::now();
        let mut found: Vec<(&Planted, Vec<Option<u64>>)> =
            ZOO.iter().filter(chosen).map(|planted| (planted, Vec::new())).collect();
        for start in 0..STARTS {
            for (planted, seeds) in &mut found {
                let late = self.budget.is_some_and(|budget| began.elapsed() > budget);
                if start > 0 && late {
                    continue;
                }
                seeds.push(planted.seek(start * STRIDE));
            }
        }
        found.iter().map(|(planted, seeds)| planted.judge(seeds)).max().unwrap_or(0)
    }
}

/// Where a bug is sought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    /// Among whole nodes.
    Nodes,
    /// Among many machines of the membership alone.
    Gossip,
}

impl Planted {
    fn world(&self) -> World {
        match self.bug {
            Bug::RefutesWithoutRaise | Bug::OldFailedOverrides | Bug::JoinToldOnce => World::Gossip,
            Bug::NoSync
            | Bug::ChecksumUnverified
            | Bug::WindowNotRebuilt
            | Bug::ProducersNotRebuilt
            | Bug::EpochResumed
            | Bug::RepeatAnsweredEarly
            | Bug::DelayIgnored
            | Bug::TtlByTheWallClock
            | Bug::RetentionByTheWallClock
            | Bug::WindowWithoutBound
            | Bug::LobbyWithoutBound
            | Bug::LobbyWithoutShares
            | Bug::BuriedAfterDone
            | Bug::LatestAtFirstPull
            // These three break rules between nodes, and no entry seeks them among single ones.
            | Bug::PlacementUnordered
            | Bug::ZoneIgnored
            | Bug::SessionsByTheWallClock => World::Nodes,
        }
    }

    /// How many seeds from `from` on it took until its invariant spoke.
    fn seek(&self, from: u64) -> Option<u64> {
        match self.world() {
            World::Nodes => self.seek_among_nodes(from),
            World::Gossip => self.seek_in_gossip(from),
        }
    }

    fn seek_in_gossip(&self, from: u64) -> Option<u64> {
        let caught = |seed: &u64| {
            let outcome = apart(|| {
                plant(Some(self.bug));
                gossip::run(&gossip::Settings::of_seed(*seed))
            });
            outcome.violations.contains_key(self.invariant)
        };
        (from..from + SEEDS).find(caught).map(|seed| seed - from + 1)
    }

    /// How many seeds from `from` on it took until its invariant spoke.
    fn seek_among_nodes(&self, from: u64) -> Option<u64> {
        let mut caught = None;
        let plant_it = |_| plant(Some(self.bug));
        sweep(
            from..from + SEEDS,
            None,
            None,
            plant_it,
            |seed, outcome| {
                if outcome.violations.contains_key(self.invariant) {
                    caught = Some(caught.map_or(seed, |before: u64| before.min(seed)));
                }
                caught.is_none()
            },
            false,
        );
        caught.map(|seed| seed - from + 1)
    }

    fn judge(&self, found: &[Option<u64>]) -> u8 {
        let mut caught: Vec<u64> = found.iter().flatten().copied().collect();
        caught.sort_unstable();
        let (starts, times) = (found.len(), caught.len());
        let median = caught.get(caught.len() / 2).map_or("none".to_owned(), u64::to_string);
        println!(
            "{:<28} {:<26} caught in {times} of {starts} starts, median seeds {median}",
            self.id, self.invariant
        );
        if times == starts { 0 } else { exit::COVERAGE }
    }
}
