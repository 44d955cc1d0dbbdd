//! What a run does, as data: a seed is expanded to a plan, and the plan is what is replayed.

mod classes;
mod draw;
mod expand;
mod features;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shrink::Parts;

pub(crate) use classes::{Class, schedule};
pub(crate) use draw::Draw;
pub(crate) use expand::classes;

/// The format of plans; a plan of another one is refused.
const VERSION: u32 = 4;

/// How late or early something may be that has its time.
const TOLERANCE_MS: u64 = 50;
/// The same where clocks go wrong.
const TOLERANCE_JUMPS_MS: u64 = 1_000;

/// A run, whole: the cluster, its knobs, the work, the faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) version: u32,
    /// Drives what is not written here: latencies, the network, the clients' own dice.
    pub(crate) seed: u64,
    pub(crate) knobs: Knobs,
    pub(crate) topics: u32,
    /// How each topic is kept, by its number.
    pub(crate) keeping: Vec<Keeping>,
    pub(crate) publishers: Vec<Publisher>,
    /// Who sends more than the node takes, if anybody does.
    pub(crate) greedy: Option<Greedy>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) readers: u32,
    /// Who removes things, if anybody does.
    pub(crate) administrator: Option<Administrator>,
    pub(crate) disk: DiskPace,
    /// How long faults and work last, before all heals.
    pub(crate) chaos_ms: u64,
    /// By time.
    pub(crate) faults: Vec<Fault>,
}

/// What a node is configured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Knobs {
    pub(crate) shards: u16,
    pub(crate) cache_bytes: usize,
    pub(crate) in_flight_bytes: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) checkpoint_entries: u64,
}

/// A client that publishes one message after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publisher {
    pub(crate) topic: u32,
    /// When it begins.
    pub(crate) at_ms: u64,
    /// The mean pause between messages.
    pub(crate) pause_ms: u64,
    pub(crate) payload_bytes_min: usize,
    pub(crate) payload_bytes_max: usize,
    /// How many of its messages bear a key, in percent.
    pub(crate) keyed_percent: u64,
    /// How many it sends twice at once, on two connections, in percent.
    pub(crate) twice_percent: u64,
    /// How long it waits for an answer before it tries again under the same id.
    pub(crate) patience_ms: u64,
    /// How many of its requests it breaks off in the middle, to try again, in percent.
    pub(crate) breaks_percent: u64,
    /// How many messages it sends at once at most.
    pub(crate) batch_max: u64,
    /// How many of its batches are lines, not an array, in percent.
    pub(crate) lines_percent: u64,
    /// Whether it is to be served, whatever others send: it asks for so little at a time.
    pub(crate) light: bool,
    /// Whether it numbers its messages.
    pub(crate) numbered: bool,
    /// How many of its tries after the first are under a new id, in percent.
    pub(crate) renames_percent: u64,
    /// How many of its messages it sends again some time after, under a new id, in percent.
    pub(crate) again_percent: u64,
    pub(crate) mix: Mix,
}

/// A client that now and then sends much at once, on many connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Greedy {
    /// What it sends on each connection.
    pub(crate) publisher: Publisher,
    /// How many connections it has.
    pub(crate) connections: u64,
    /// How often it sends.
    pub(crate) every_ms: u64,
    /// How many messages each time, on each connection, one after the other.
    pub(crate) messages: u64,
}

/// How many of a publisher's messages have something that not all have, in percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mix {
    pub(crate) ttl: u64,
    pub(crate) delay: u64,
    pub(crate) priority: u64,
    /// A header that filters look at.
    pub(crate) kind: u64,
    /// A header by which subscribers know that they cannot take it.
    pub(crate) poison: u64,
    /// The only offset at which it may stand.
    pub(crate) expected: u64,
    /// Sent as a body with headers, not as JSON.
    pub(crate) raw: u64,
}

/// How a topic is kept, where that is not the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keeping {
    pub(crate) retention_ms: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
}

/// A client that removes messages, topics and subscriptions, and makes them anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Administrator {
    /// The mean pause between its deeds.
    pub(crate) pause_ms: u64,
    /// Whether it removes the oldest messages of the topics that are judged.
    pub(crate) purges: bool,
    /// Whether it sends dead letters back.
    pub(crate) redrives: bool,
    /// Whether it deletes a topic and a subscription of its own.
    pub(crate) deletes: bool,
}

/// A client that pulls and acknowledges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscriber {
    pub(crate) topics: Vec<u32>,
    /// `latest`, or else `earliest`.
    pub(crate) latest: bool,
    /// When it subscribes.
    pub(crate) at_ms: u64,
    pub(crate) ack_wait_ms: u64,
    /// How many of its pulls it forgets to acknowledge, in percent.
    pub(crate) forgets_percent: u64,
    /// How long it works on what it pulled.
    pub(crate) work_ms: u64,
    pub(crate) max: u64,
    /// How long it does nothing after it has subscribed.
    pub(crate) idle_ms: u64,
    /// A pattern that it names instead of its topics.
    pub(crate) pattern: Option<String>,
    pub(crate) filter: Option<Filter>,
    pub(crate) max_deliver: Option<u64>,
    /// The pauses before repeats.
    pub(crate) backoff_ms: Vec<u64>,
    /// How many of its messages it gives back, in percent, and for how long at most.
    pub(crate) nacks_percent: u64,
    pub(crate) nack_delay_ms: u64,
    /// How many of its messages it rejects for good, in percent.
    pub(crate) rejects_percent: u64,
    /// For how many of its pulls it asks for more time, in percent.
    pub(crate) extends_percent: u64,
    /// How many of its pulls it breaks off in the middle, in percent.
    pub(crate) breaks_percent: u64,
}

/// Which messages a subscriber asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Filter {
    /// Whose header `kind` is one of these.
    Kinds(Vec<String>),
    /// Who have no header `kind`.
    NoKind,
    /// Whose key begins so.
    KeyPrefix(String),
    /// Whose key is one of these.
    Keys(Vec<String>),
}

/// How fast the disk is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskPace {
    pub(crate) sync_us_min: u64,
    pub(crate) sync_us_max: u64,
    pub(crate) read_us_max: u64,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) at_ms: u64,
    pub(crate) what: What,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum What {
    /// The process is killed; what it wrote stays with the operating system.
    Crash { down_ms: u64 },
    /// The machine loses power: of what was not synced some first batches stay.
    PowerFailure { down_ms: u64 },
    /// The machine loses power when a message has just been acknowledged; or, while its disk does
    /// nothing, a repeat of one.
    PowerAnswered { repeat: bool, down_ms: u64 },
    /// The process stands still.
    Pause { for_ms: u64 },
    /// The wall clock jumps.
    ClockJump { by_ms: i64 },
    /// The next sync fails.
    SyncError,
    /// The disk is full for a while.
    NoSpace { for_ms: u64 },
    /// The disk does nothing for a while.
    Stall { for_ms: u64 },
    /// A bit of a stored entry or state turns over, if the atlas allows it.
    BitFlip { pick: u64 },
    /// An entry lies where another one is to stand, if the atlas allows it.
    Misdirect { pick: u64 },
    /// Nothing passes between the node and its clients for a while.
    Cut { for_ms: u64 },
}

impl What {
    /// The class that the swarm turns on and off, and that the summary counts.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            What::Crash { .. } => "crash",
            What::PowerFailure { .. } => "power failure",
            What::PowerAnswered { .. } => "power failure at an answer",
            What::Pause { .. } => "pause",
            What::ClockJump { .. } => "clock jump",
            What::SyncError => "sync error",
            What::NoSpace { .. } => "no space",
            What::Stall { .. } => "stall",
            What::BitFlip { .. } => "bit flip",
            What::Misdirect { .. } => "misdirected write",
            What::Cut { .. } => "cut",
        }
    }
}

/// How often a subscription that says nothing delivers a message at most.
const MAX_DELIVER_DEFAULT: u64 = 5;

impl Subscriber {
    /// How often a message comes at most.
    pub(crate) fn max_deliver(&self) -> u64 {
        self.max_deliver.unwrap_or(MAX_DELIVER_DEFAULT)
    }
}

impl Plan {
    /// The plan of a seed; `calm` leaves all faults out.
    pub(crate) fn of_seed(seed: u64, calm: bool) -> Self {
        expand::plan(seed, calm)
    }

    /// What may become smaller.
    pub(crate) const PARTS: Parts = Parts {
        lists: &[("/faults", 0), ("/subscribers", 0), ("/publishers", 1)],
        options: &["/greedy", "/administrator"],
        numbers: &[("/readers", 0)],
        magnitudes: &["/faults"],
        pauses: &["/publishers/*/pause_ms", "/administrator/pause_ms"],
    };

    /// Whether this build runs the plan.
    pub(crate) fn is_run(&self) -> Result<(), String> {
        match self.version {
            VERSION => Ok(()),
            other => Err(format!("plan version {other}; this build runs {VERSION}")),
        }
    }

    /// By how much a time that clients saw may differ from the one that was meant.
    pub(crate) fn tolerance_ms(&self) -> u64 {
        let jumps = self.faults.iter().any(|fault| matches!(fault.what, What::ClockJump { .. }));
        if jumps { TOLERANCE_JUMPS_MS } else { TOLERANCE_MS }
    }

    /// How long faults and work last.
    pub(crate) fn chaos(&self) -> Duration {
        Duration::from_millis(self.chaos_ms)
    }
}
