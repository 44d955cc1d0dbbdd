//! What happens in a run of a cluster, expanded from its seed. Each class of faults is off in half
//! of the seeds, and then draws nothing.

use serde::{Deserialize, Serialize};

use super::mail::TOPICS;
use super::subscribers::{self, ClusterSubscriber};
use crate::plan::{Class, DiskPace, Draw, schedule};
use crate::shrink::Parts;

/// Plans of another version are not run.
const VERSION: u32 = 11;
/// From how many retained bytes on a new copy is given the newest first.
pub(super) const NEWEST_FIRST_BYTES: [u64; 3] = [0, 2_000, 4 << 20];
/// How many bytes of what is older it asks for at a time by default.
pub(super) const OLDER_BYTES: u64 = 1 << 20;

/// How long faults and work last.
const CHAOS_MS: u64 = 60_000;
/// How long it goes before that in clusters that grow old: longer than the dedup window remembers,
/// so that logs lose their beginnings.
const AGE_MS: u64 = 150_000;
/// So many of a hundred clusters do.
const AGES_PERCENT: u64 = 10;

/// What a node keeps in memory for readers, where nobody says otherwise.
pub(super) const CACHE_BYTES: usize = 64 << 20;

/// The purposes of the dice.
#[repr(u64)]
enum Purpose {
    Nodes = 10_000,
    Net = 10_001,
    Disk = 10_002,
    Work = 10_003,
    Age = 10_004,
    Knobs = 10_005,
    Subscribers = 10_006,
    /// The classes follow, one stream each.
    Faults = 10_016,
}

/// A run of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterPlan {
    pub(crate) version: u32,
    pub(crate) seed: u64,
    /// When each of the first nodes starts; each lists all of them as seeds.
    pub(crate) starts_ms: Vec<u64>,
    /// Over how many zones the nodes are spread.
    pub(crate) zones: u32,
    /// After how many entries the metadata are stored as a snapshot.
    pub(crate) snapshot_entries: u64,
    /// How many bytes of entries a node keeps in memory for readers, and after how many entries the
    /// state of a partition is stored.
    pub(crate) cache_bytes: usize,
    pub(crate) checkpoint_entries: u64,
    /// From how many retained bytes on a new copy is given the newest first.
    pub(crate) newest_first_bytes: u64,
    /// How many bytes of what is older it asks for at a time.
    pub(crate) older_bytes: u32,
    /// How many of these a second; 0 for as many as come.
    pub(crate) older_rate: u64,
    pub(crate) link: LinkPlan,
    pub(crate) disk: DiskPace,
    /// Who changes the metadata: how many at once, with what pause between two changes. Twice as
    /// many publish, at the same pace.
    pub(crate) clients: u32,
    pub(crate) pause_ms: u64,
    /// How long the cluster is left alone with topics that keep little, before all else.
    pub(crate) age_ms: u64,
    /// How many topics acknowledge what their replicas have received, synced or not.
    pub(crate) early: u64,
    /// Who subscribes.
    pub(crate) subscribers: Vec<ClusterSubscriber>,
    pub(crate) chaos_ms: u64,
    pub(crate) faults: Vec<ClusterFault>,
}

/// How good every link is when nothing else is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkPlan {
    pub(crate) latency_us: (u64, u64),
    pub(crate) tail_permille: u64,
    pub(crate) tail_us_max: u64,
    pub(crate) loss_permille: u64,
    pub(crate) duplicate_permille: u64,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFault {
    pub(crate) at_ms: u64,
    pub(crate) what: Event,
}

/// What happens. A `node` is a draw: which of those that are there it means, their number decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Event {
    /// A process is killed; its machine goes on.
    Crash { node: u64, down_ms: u64 },
    /// A process is told to end, and hands over what it leads.
    Stop { node: u64, down_ms: u64 },
    /// A machine loses power.
    PowerFailure { node: u64, down_ms: u64 },
    /// Some machines lose power at once, each after its own draw, and come back apart.
    PowerSome { draw: u64, down_ms: u64 },
    /// All machines lose power at once.
    PowerAll { down_ms: u64 },
    /// Some machines lose power at once when a message has just been acknowledged by a topic that
    /// does so early.
    PowerAnswered { draw: u64, down_ms: u64 },
    /// A machine loses power when its disk has been handed such a step and has not synced it,
    /// after so many that pass.
    PowerAt { node: u64, point: Point, passes: u64, down_ms: u64 },
    /// All machines lose power again and again, each time for so long.
    PowerAgain { times: u64, each_ms: u64 },
    /// Some processes stand still, one of the others loses power, and they go on with what they
    /// knew.
    PowerMeanwhile { draw: u64, node: u64, for_ms: u64 },
    /// A process is killed, another node reaches nobody for a while, and a third one is told to
    /// leave when others have what it holds: all within a moment.
    AllAtOnce { draw: u64, for_ms: u64 },
    /// A process stands still.
    Pause { node: u64, for_ms: u64 },
    /// A node's disk is replaced by an empty one; it comes back under its name.
    Wipe { node: u64, down_ms: u64 },
    /// A machine loses power, and a bit of the metadata on its disk turns over.
    Spoil { node: u64, draw: u64, down_ms: u64 },
    /// A machine loses power, and its disk is put back to what it held before its newest start.
    RollBack { node: u64, down_ms: u64 },
    /// The first node's disk is replaced by an empty one, and it reaches nobody for a while.
    WipeFirst { for_ms: u64 },
    /// A bit of an entry or a state on a node's disk turns over.
    Flip { node: u64, pick: u64 },
    /// A disk says of its next sync that it failed.
    SyncError { node: u64 },
    /// A disk takes nothing for a while.
    NoSpace { node: u64, for_ms: u64 },
    /// A disk answers nothing for most of every two seconds, so often.
    Grey { node: u64, times: u64 },
    /// Who leads a partition and those who hold copies of it do not reach one another.
    CutLeader { pick: u64, for_ms: u64 },
    /// A wall clock jumps.
    ClockJump { node: u64, by_ms: i64 },
    /// Two parts do not reach one another.
    Halves { draw: u64, for_ms: u64 },
    /// A node reaches nobody, and nobody reaches it.
    Isolate { node: u64, for_ms: u64 },
    /// A node hears nobody, or nobody hears it.
    OneWay { node: u64, deaf: bool, for_ms: u64 },
    /// Some links are cut in one direction each.
    Ragged { draw: u64, for_ms: u64 },
    /// A node is cut off and not, by turns.
    Flap { node: u64, times: u64, each_ms: u64 },
    /// All links lose much.
    Lossy { permille: u64, for_ms: u64 },
    /// Another node joins.
    Join,
    /// A node is told to leave for good: at once, or when others have what it holds.
    Leave { node: u64, at_once: bool },
}

/// A step of the group's that a disk is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Point {
    /// A vote.
    Vote,
    /// An entry.
    Entry,
    /// The end of the log is cut off.
    Cut,
    /// The beginning of the log is removed.
    Purge,
    /// A snapshot.
    Snapshot,
}

impl Event {
    /// The class that the swarm turns on and off, and that the summary counts.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Event::Crash { .. } => "crash",
            Event::Stop { .. } => "stop",
            Event::PowerFailure { .. } => "power failure",
            Event::PowerSome { .. } => "power failure of some",
            Event::PowerAll { .. } => "power failure of all",
            Event::PowerAnswered { .. } => "power failure at an answer",
            Event::PowerAt { .. } => "power failure at a write",
            Event::PowerAgain { .. } => "power failure of all, again and again",
            Event::PowerMeanwhile { .. } => "power failure while others stand still",
            Event::AllAtOnce { .. } => "kill, cut and leave at once",
            Event::Pause { .. } => "pause",
            Event::Wipe { .. } => "wipe",
            Event::Spoil { .. } => "damaged metadata",
            Event::RollBack { .. } => "rolled back",
            Event::WipeFirst { .. } => "first wiped and alone",
            Event::Flip { .. } => "bit flip",
            Event::SyncError { .. } => "sync error",
            Event::NoSpace { .. } => "no space",
            Event::Grey { .. } => "grey disk",
            Event::CutLeader { .. } => "leader cut from its followers",
            Event::ClockJump { .. } => "clock jump",
            Event::Halves { .. } => "halves",
            Event::Isolate { .. } => "isolated",
            Event::OneWay { .. } => "one-way",
            Event::Ragged { .. } => "ragged",
            Event::Flap { .. } => "flapping",
            Event::Lossy { .. } => "lossy",
            Event::Join => "join",
            Event::Leave { at_once: true, .. } => "leave at once",
            Event::Leave { at_once: false, .. } => "leave",
        }
    }
}

impl Event {
    /// By how much a wall clock jumps, if that is what happens.
    pub(super) fn jump(&self) -> Option<i64> {
        match self {
            Event::ClockJump { by_ms, .. } => Some(*by_ms),
            _ => None,
        }
    }

    /// Which bit of a disk turns over, if that is what happens.
    pub(super) fn flip(&self) -> Option<u64> {
        match self {
            Event::Flip { pick, .. } => Some(*pick),
            _ => None,
        }
    }
}

fn any(dice: &mut Draw) -> u64 {
    dice.range(0, 1 << 32)
}

const CLASSES: [Class<Event>; 30] = [
    Class {
        most: 10,
        draw: |dice| Event::Crash { node: any(dice), down_ms: dice.log_range(10, 8_000) },
    },
    Class {
        most: 8,
        draw: |dice| Event::PowerFailure { node: any(dice), down_ms: dice.log_range(50, 8_000) },
    },
    Class {
        most: 4,
        draw: |dice| Event::PowerSome { draw: any(dice), down_ms: dice.log_range(50, 6_000) },
    },
    Class { most: 2, draw: |dice| Event::PowerAll { down_ms: dice.log_range(50, 5_000) } },
    Class {
        most: 6,
        draw: |dice| Event::Pause { node: any(dice), for_ms: dice.log_range(20, 15_000) },
    },
    Class {
        most: 3,
        draw: |dice| Event::Wipe { node: any(dice), down_ms: dice.log_range(50, 8_000) },
    },
    Class { most: 1, draw: |dice| Event::WipeFirst { for_ms: dice.log_range(1_000, 15_000) } },
    Class { most: 6, draw: jump },
    Class {
        most: 3,
        draw: |dice| Event::Halves { draw: any(dice), for_ms: dice.log_range(200, 15_000) },
    },
    Class {
        most: 4,
        draw: |dice| Event::Isolate { node: any(dice), for_ms: dice.log_range(200, 15_000) },
    },
    Class { most: 4, draw: one_way },
    Class {
        most: 3,
        draw: |dice| Event::Ragged { draw: any(dice), for_ms: dice.log_range(200, 15_000) },
    },
    Class { most: 2, draw: flap },
    Class {
        most: 2,
        draw: |dice| Event::Lossy {
            permille: dice.range(50, 400),
            for_ms: dice.log_range(500, 15_000),
        },
    },
    Class { most: 3, draw: |_| Event::Join },
    Class { most: 2, draw: |dice| Event::Leave { node: any(dice), at_once: true } },
    Class { most: 8, draw: power_at },
    Class { most: 3, draw: spoil },
    Class {
        most: 3,
        draw: |dice| Event::RollBack { node: any(dice), down_ms: dice.log_range(50, 5_000) },
    },
    Class {
        most: 6,
        draw: |dice| Event::Stop { node: any(dice), down_ms: dice.log_range(10, 8_000) },
    },
    Class { most: 2, draw: |dice| Event::Leave { node: any(dice), at_once: false } },
    Class { most: 8, draw: flip },
    Class { most: 3, draw: power_answered },
    Class {
        most: 1,
        draw: |dice| Event::PowerAgain {
            times: dice.range(2, 6),
            each_ms: dice.log_range(100, 4_000),
        },
    },
    Class { most: 3, draw: power_meanwhile },
    Class {
        most: 1,
        draw: |dice| Event::AllAtOnce { draw: any(dice), for_ms: dice.log_range(500, 15_000) },
    },
    Class { most: 3, draw: |dice| Event::SyncError { node: any(dice) } },
    Class {
        most: 2,
        draw: |dice| Event::NoSpace { node: any(dice), for_ms: dice.log_range(100, 10_000) },
    },
    Class { most: 2, draw: |dice| Event::Grey { node: any(dice), times: dice.range(1, 8) } },
    Class {
        most: 4,
        draw: |dice| Event::CutLeader { pick: any(dice), for_ms: dice.log_range(200, 15_000) },
    },
];

/// The names of all classes.
pub(crate) fn classes() -> Vec<&'static str> {
    let drawn = |(at, class): (u64, Class<Event>)| (class.draw)(&mut Draw::new(1, at)).class();
    (0..).zip(CLASSES).map(drawn).collect()
}

fn spoil(dice: &mut Draw) -> Event {
    let (node, draw) = (any(dice), dice.range(0, u64::MAX - 1));
    Event::Spoil { node, draw, down_ms: dice.log_range(50, 5_000) }
}

fn flip(dice: &mut Draw) -> Event {
    let (node, pick) = (any(dice), dice.range(0, u64::MAX - 1));
    Event::Flip { node, pick }
}

fn power_answered(dice: &mut Draw) -> Event {
    let draw = if dice.percent(50) { u64::MAX } else { any(dice) };
    Event::PowerAnswered { draw, down_ms: dice.log_range(50, 5_000) }
}

fn power_meanwhile(dice: &mut Draw) -> Event {
    let (draw, node) = (any(dice), any(dice));
    Event::PowerMeanwhile { draw, node, for_ms: dice.log_range(500, 10_000) }
}

fn power_at(dice: &mut Draw) -> Event {
    let (node, passes) = (any(dice), dice.log_range(1, 8) - 1);
    let point = dice.pick(&[Point::Vote, Point::Entry, Point::Cut, Point::Purge, Point::Snapshot]);
    Event::PowerAt { node, point, passes, down_ms: dice.log_range(50, 5_000) }
}

fn jump(dice: &mut Draw) -> Event {
    let far = dice.log_range(10, 3_600_000) as i64;
    Event::ClockJump { node: any(dice), by_ms: if dice.percent(50) { far } else { -far } }
}

fn one_way(dice: &mut Draw) -> Event {
    let (node, deaf) = (any(dice), dice.percent(50));
    Event::OneWay { node, deaf, for_ms: dice.log_range(200, 15_000) }
}

fn flap(dice: &mut Draw) -> Event {
    let (node, times) = (any(dice), dice.range(3, 12));
    Event::Flap { node, times, each_ms: dice.log_range(50, 1_500) }
}

impl ClusterPlan {
    /// The plan of a seed, for so many nodes, or as many as the seed says; `calm` leaves all faults
    /// out.
    pub(crate) fn of_seed(seed: u64, nodes: Option<u32>, calm: bool) -> Self {
        let mut dice = Draw::new(seed, Purpose::Nodes as u64);
        let drawn = dice.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7, 9, 12, 15]);
        let nodes = nodes.unwrap_or(drawn);
        let within = dice.pick(&[1, 500, 5_000]);
        let starts_ms = (0..nodes).map(|_| dice.range(0, within)).collect();
        let zones = dice.pick(&[1, 1, 3]);
        let snapshot_entries = dice.pick(&[8, 16, 64, 4_096]);
        let mut work = Draw::new(seed, Purpose::Work as u64);
        let mut knobs = Draw::new(seed, Purpose::Knobs as u64);
        let mut age = Draw::new(seed, Purpose::Age as u64);
        Self {
            version: VERSION,
            seed,
            starts_ms,
            zones,
            snapshot_entries,
            cache_bytes: knobs.pick(&[1, 1_000, CACHE_BYTES, CACHE_BYTES]),
            checkpoint_entries: knobs.pick(&[1, 10, 4_096, 4_096]),
            newest_first_bytes: knobs.pick(&NEWEST_FIRST_BYTES),
            older_bytes: knobs.pick(&[1, 1, 1_000, OLDER_BYTES]) as u32,
            older_rate: knobs.pick(&[0, 0, 20_000]),
            link: link(&mut Draw::new(seed, Purpose::Net as u64), calm),
            disk: pace(&mut Draw::new(seed, Purpose::Disk as u64)),
            clients: work.range(1, 3) as u32,
            pause_ms: work.log_range(50, 2_000),
            age_ms: if age.percent(AGES_PERCENT) { AGE_MS } else { 0 },
            early: work.pick(&[0, 1, 3, 6]),
            subscribers: subscribers::draw(
                &mut Draw::new(seed, Purpose::Subscribers as u64),
                TOPICS,
            ),
            chaos_ms: CHAOS_MS,
            faults: if calm { Vec::new() } else { faults(seed) },
        }
    }
}

impl ClusterPlan {
    /// What may become smaller.
    pub(crate) const PARTS: Parts = Parts {
        lists: &[("/faults", 0), ("/subscribers", 0), ("/starts_ms", 1)],
        options: &[],
        numbers: &[
            ("/age_ms", 0),
            ("/clients", 0),
            ("/early", 0),
            ("/link/tail_permille", 0),
            ("/link/loss_permille", 0),
            ("/link/duplicate_permille", 0),
        ],
        magnitudes: &["/faults", "/starts_ms"],
        pauses: &["/pause_ms"],
    };

    /// Whether this build runs the plan.
    pub(crate) fn is_run(&self) -> Result<(), String> {
        match self.version {
            VERSION => Ok(()),
            other => Err(format!("plan version {other}; this build runs {VERSION}")),
        }
    }
}

fn link(dice: &mut Draw, calm: bool) -> LinkPlan {
    let most = dice.log_range(500, 20_000);
    let latency_us = (dice.log_range(50, most), most);
    let mut knob = |some: &[u64]| if calm { 0 } else { dice.pick(some) };
    LinkPlan {
        latency_us,
        tail_permille: knob(&[0, 0, 5, 30]),
        tail_us_max: knob(&[100_000, 1_000_000, 5_000_000]),
        loss_permille: knob(&[0, 0, 10, 50]),
        duplicate_permille: knob(&[0, 10, 100]),
    }
}

/// How fast a disk is.
pub(super) fn pace(dice: &mut Draw) -> DiskPace {
    let sync_us_min = dice.log_range(50, 5_000);
    let sync_us_max = dice.log_range(sync_us_min, 40_000);
    DiskPace { sync_us_min, sync_us_max, read_us_max: dice.log_range(50, 5_000) }
}

fn faults(seed: u64) -> Vec<ClusterFault> {
    let times = (0, CHAOS_MS);
    let faults = schedule(seed, Purpose::Faults as u64, &CLASSES, times);
    faults.into_iter().map(|(at_ms, what)| ClusterFault { at_ms, what }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_a_plan_survives_its_text() {
        for seed in 0..200 {
            let plan = ClusterPlan::of_seed(seed, None, false);
            assert_eq!(plan, ClusterPlan::of_seed(seed, None, false));
            let text = serde_json::to_string(&plan).expect("a plan is data");
            assert_eq!(serde_json::from_str::<ClusterPlan>(&text).expect("it was a plan"), plan);
        }
    }

    #[test]
    fn every_class_is_on_in_some_seeds_and_off_in_others() {
        for class in classes() {
            let has = |seed| faults(seed).iter().any(|fault| fault.what.class() == class);
            let on = (0..100).filter(|&seed| has(seed)).count();
            assert!((25..75).contains(&on), "{class} is on in {on} of 100");
        }
    }
}
