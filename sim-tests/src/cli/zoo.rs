//! `zoo`: each planted bug must be caught by the invariant that it breaks, within its budget.

use std::time::{Duration, Instant};

use clap::Args;
use sprawl_core::zoo::{Bug, plant};

use super::determinism::pair;
use super::sweep::first;
use super::{exit, span};
use crate::case::{Kind, Origin};
use crate::gossip::{self, Settings};
use crate::world::Watch;

/// A planted bug, and who must catch it where.
pub(super) struct Planted {
    pub(super) id: &'static str,
    pub(super) bug: Bug,
    invariant: &'static str,
    world: World,
}

/// Where a bug is sought.
#[derive(Clone, Copy)]
enum World {
    /// In a node with its clients.
    Node,
    /// Among the nodes of a cluster.
    Cluster,
    /// Among many machines of the membership alone.
    Gossip,
    /// Among the nodes of a cluster, in two processes that are to do the same.
    Twice,
}

/// Within how many seeds each is caught.
const SEEDS: u64 = 200;

/// All of them.
const ZOO: &[Planted] = &[
    node("no-sync", Bug::NoSync, "AckMeansDurable"),
    node("checksum-unverified", Bug::ChecksumUnverified, "NoCorruptByteServed"),
    node("place-not-sealed", Bug::PlaceNotSealed, "NoPhantom"),
    node("window-not-rebuilt", Bug::WindowNotRebuilt, "NoDuplicateId"),
    node("producers-not-rebuilt", Bug::ProducersNotRebuilt, "NumberStandsOnce"),
    node("epoch-resumed", Bug::EpochResumed, "EpochIndexNamesOneEntry"),
    node("repeat-answered-early", Bug::RepeatAnsweredEarly, "NothingAckedIsLost"),
    node("delay-ignored", Bug::DelayIgnored, "NotBeforeDelay"),
    node("ttl-by-the-wall-clock", Bug::TtlByTheWallClock, "NoExpiredDelivery"),
    node("retention-by-the-wall-clock", Bug::RetentionByTheWallClock, "NothingUnexpiredDeleted"),
    node("window-without-bound", Bug::WindowWithoutBound, "BoundsHold"),
    node("lobby-without-bound", Bug::LobbyWithoutBound, "BoundsHold"),
    node("lobby-without-shares", Bug::LobbyWithoutShares, "LightLoadIsServed"),
    node("buried-after-done", Bug::BuriedAfterDone, "AtLeastOnce"),
    node("latest-at-first-pull", Bug::LatestAtFirstPull, "SubscribedMeansFromHere"),
    gossip("refutes-without-raise", Bug::RefutesWithoutRaise, "NoFalseFailed"),
    gossip("old-failed-overrides", Bug::OldFailedOverrides, "Converges"),
    gossip("join-told-once", Bug::JoinToldOnce, "ChangeKnownWithin"),
    cluster("placement-unordered", Bug::PlacementUnordered, "PlacementAgrees"),
    cluster("zone-ignored", Bug::ZoneIgnored, "ReplicasSpread"),
    cluster("followers-not-awaited", Bug::FollowersNotAwaited, "NothingAckedIsLost"),
    cluster("replica-answered-early", Bug::ReplicaAnsweredEarly, "InSyncHoldsCommitted"),
    cluster("set-changed-before-agreed", Bug::SetChangedBeforeAgreed, "InSyncHoldsCommitted"),
    cluster("unclean-run-counts", Bug::UncleanRunCounts, "NothingAckedIsLost"),
    cluster("set-below-min", Bug::SetBelowMin, "BoundsHold"),
    cluster("leader-cuts-its-tail", Bug::LeaderCutsItsTail, "NothingObservedIsLost"),
    cluster("serves-before-start", Bug::ServesBeforeStart, "InSyncHoldsCommitted"),
    cluster("damage-kept-to-itself", Bug::DamageKeptToItself, "EveryRequestResolves"),
    cluster("moved-before-in-sync", Bug::MovedBeforeInSync, "InSyncHoldsCommitted"),
    cluster("farewell-unheard", Bug::FarewellUnheard, "ServesOnWithin"),
    cluster("tail-may-lead", Bug::TailMayLead, "NothingAckedIsLost"),
    cluster("retained-not-copied", Bug::RetainedNotCopied, "InSyncHoldsCommitted"),
    cluster("earlier-reign-counts", Bug::EarlierReignCounts, "InSyncHoldsCommitted"),
    cluster("answers-counted", Bug::AnswersCounted, "InSyncHoldsCommitted"),
    cluster("deposed-acknowledges", Bug::DeposedAcknowledges, "NothingAckedIsLost"),
    cluster("flight-without-bound", Bug::FlightWithoutBound, "BoundsHold"),
    cluster("hops-counted-once", Bug::HopsCountedAtTheOriginOnly, "HopBound"),
    twice("sent-in-hash-order", Bug::SentInHashOrder, "check-determinism"),
    cluster("breaker-never-closes", Bug::BreakerNeverCloses, "GoodputReturns"),
    cluster("epoch-inherited", Bug::EpochInherited, "EpochIndexNamesOneEntry"),
    cluster("sessions-by-the-wall-clock", Bug::SessionsByTheWallClock, "NoOscillation"),
    cluster("vote-answered-early", Bug::VoteAnsweredEarly, "OneVotePerTerm"),
    cluster("append-answered-early", Bug::AppendAnsweredEarly, "LogMatching"),
    cluster("snapshot-head-first", Bug::SnapshotHeadFirst, "StateMachineSafety"),
    cluster("snapshot-replaced-by-older", Bug::SnapshotReplacedByOlder, "SnapshotCoversPurged"),
    cluster("damage-taken-for-none", Bug::DamageTakenForNone, "DamageStopsTheStart"),
    cluster("wiped-keeps-identity", Bug::WipedKeepsIdentity, "LeaderCompleteness"),
    cluster("founds-in-silence", Bug::FoundsInSilence, "OneClusterPerSeeds"),
    cluster("change-answered-early", Bug::ChangeAnsweredEarly, "MetadataLinearizable"),
    cluster("proposal-not-handed-on", Bug::ProposalNotHandedOn, "ProposalsAgreed"),
    cluster("down-by-own-clock", Bug::DownByOwnClock, "ViewsArePrefixes"),
    cluster("unknown-taken-for-retired", Bug::UnknownTakenForRetired, "NodesGoOn"),
    cluster("election-without-jitter", Bug::ElectionWithoutJitter, "LeaderWithin"),
];

const fn node(id: &'static str, bug: Bug, invariant: &'static str) -> Planted {
    Planted { id, bug, invariant, world: World::Node }
}

const fn cluster(id: &'static str, bug: Bug, invariant: &'static str) -> Planted {
    Planted { id, bug, invariant, world: World::Cluster }
}

const fn gossip(id: &'static str, bug: Bug, invariant: &'static str) -> Planted {
    Planted { id, bug, invariant, world: World::Gossip }
}

const fn twice(id: &'static str, bug: Bug, invariant: &'static str) -> Planted {
    Planted { id, bug, invariant, world: World::Twice }
}

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

/// The invariant that the planted bug of this name breaks.
pub(super) fn invariant(id: &str) -> Option<&'static str> {
    find(id).map(|planted| planted.invariant)
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
                seeds.push(planted.seek_aloud(start * STRIDE));
            }
        }
        found.iter().map(|(planted, seeds)| planted.judge(seeds)).max().unwrap_or(0)
    }
}

impl Planted {
    /// [`Planted::seek`], and says what came of it: a search may take minutes.
    fn seek_aloud(&self, from: u64) -> Option<u64> {
        let began = Instant::now();
        let found = self.seek(from);
        let what = match found {
            Some(seeds) => format!("caught after {seeds} seeds"),
            None => format!("not caught within {SEEDS} seeds"),
        };
        println!("{} from {from} on: {what}, {:.1} s", self.id, began.elapsed().as_secs_f64());
        found
    }

    /// How many seeds from `from` on it took until its invariant spoke.
    fn seek(&self, from: u64) -> Option<u64> {
        let violations = |seed| {
            let run = |kind| {
                let case = Origin { seed, kind, calm: false, nodes: None }.case();
                case.run(Watch::none(), || plant(Some(self.bug))).violations().clone()
            };
            match self.world {
                World::Node => run(Kind::Node),
                World::Cluster => run(Kind::Cluster),
                World::Gossip => {
                    plant(Some(self.bug));
                    gossip::run(&Settings::of_seed(seed)).violations
                }
                World::Twice => self.differs(seed).into_iter().collect(),
            }
        };
        first(from..from + SEEDS, violations, |found| found.contains_key(self.invariant))
    }

    /// What two processes made of a seed, where they did not do the same.
    fn differs(&self, seed: u64) -> Option<(&'static str, String)> {
        let run = ["replay", &seed.to_string(), "--world", "cluster", "--bug", self.id];
        let (first, second) = pair(&run, &[]).expect("a run of its own is started");
        (first != second).then(|| (self.invariant, format!("{first} and {second}")))
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
