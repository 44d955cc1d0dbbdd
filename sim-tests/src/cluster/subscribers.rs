//! Who subscribes in a run of a cluster: to what, from where, and how reliably it acknowledges.

use serde::{Deserialize, Serialize};

use crate::plan::Draw;

/// How long a message may stay unacknowledged, in ms.
const ACK_WAIT_MS: (u64, u64) = (200, 8_000);
/// How late a subscriber comes at most.
const LATE_MS_MAX: u64 = 30_000;
/// How many topics it names at most.
const TOPICS_MAX: u64 = 3;

/// A durable subscription, and the client that it has, which goes to any node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSubscriber {
    pub(crate) at_ms: u64,
    /// The numbers of the topics that it names.
    pub(crate) topics: Vec<u64>,
    /// Whether it begins with the next message, and not with the first one.
    pub(crate) latest: bool,
    pub(crate) ack_wait_ms: u64,
    /// How often a message is delivered at most; none for the broker's default.
    pub(crate) max_deliver: Option<u32>,
    /// How many messages it takes at once, and how long it works on them at most.
    pub(crate) max: u64,
    pub(crate) work_ms: u64,
    /// How many of a hundred messages it gives back, and with what pause at most.
    pub(crate) nacks_percent: u64,
    pub(crate) nack_delay_ms: u64,
    /// How many of a hundred pulls it forgets: their leases end.
    pub(crate) forgets_percent: u64,
}

/// The subscribers of a run, one to three, of so many topics.
pub(super) fn draw(dice: &mut Draw, topics: u64) -> Vec<ClusterSubscriber> {
    (0..dice.range(1, 3)).map(|_| one(dice, topics)).collect()
}

fn one(dice: &mut Draw, topics: u64) -> ClusterSubscriber {
    let late = dice.percent(50);
    let first = dice.range(0, topics - 1);
    let named = dice.range(1, TOPICS_MAX);
    ClusterSubscriber {
        at_ms: if late { dice.range(0, LATE_MS_MAX) } else { 0 },
        topics: (first..first + named).map(|topic| topic % topics).collect(),
        latest: dice.percent(50),
        ack_wait_ms: dice.log_range(ACK_WAIT_MS.0, ACK_WAIT_MS.1),
        max_deliver: dice.pick(&[None, None, Some(2), Some(20)]),
        max: dice.log_range(1, 50),
        work_ms: dice.pick(&[0, 0, 100, 1_000]),
        nacks_percent: dice.pick(&[0, 0, 5, 30]),
        nack_delay_ms: dice.pick(&[0, 1_000]),
        forgets_percent: dice.pick(&[0, 0, 5, 30]),
    }
}
