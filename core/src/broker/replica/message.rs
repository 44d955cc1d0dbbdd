//! What the replicas of a partition send one another.
//!
//! Any of these may be lost, doubled, or come late and in another order. Each names the epoch that
//! it belongs to, and whoever receives one of an epoch below the highest that it has accepted does
//! nothing but say so.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{EntryIndex, Epoch};

/// An entry of a log: with its epoch its index names one content, whoever holds it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// The epoch of the leader that made it.
    pub epoch: Epoch,
    /// Where it stands; 0 is before the first one.
    pub index: EntryIndex,
}

/// A message between two replicas of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicaMessage {
    /// From the leader: find the last entry that we both have, cut what follows, and tell me.
    Match {
        /// The leader's epoch.
        epoch: Epoch,
        /// The version of the partition that the leader knows. A replica whose view is older waits:
        /// its copy may have been dropped and placed again.
        version: u64,
        /// Where each reign begins in the leader's log, ascending; the last is its own.
        starts: Vec<(Epoch, EntryIndex)>,
    },
    /// To the leader, when what it asked for is durable.
    MatchAnswer {
        /// The epoch that was asked in.
        epoch: Epoch,
        /// What came of it.
        matched: Matched,
    },
    /// From the leader: entries, and how far the log is committed.
    Append {
        /// The leader's epoch.
        epoch: Epoch,
        /// The entry before the first one.
        previous: Place,
        /// The entries, consecutive, as they are stored; none where only the commit index has
        /// advanced.
        records: Vec<Bytes>,
        /// The last committed entry.
        commit: EntryIndex,
    },
    /// To the leader: what this replica holds.
    AppendAnswer {
        /// The epoch that it was matched in.
        epoch: Epoch,
        /// The last entry that is durable here.
        durable: EntryIndex,
        /// The last entry that has arrived here.
        last: EntryIndex,
        /// Whether what came did not follow it.
        gap: bool,
    },
    /// To the leader: this replica has not been matched in your epoch since it started.
    Unmatched {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// To who leads no more: there is a later epoch than yours.
    Stale {
        /// The epoch that was refused.
        epoch: Epoch,
        /// The highest that this replica has accepted.
        accepted: Epoch,
    },
}

/// What came of a `Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Matched {
    /// This is the last entry of the replica's log now, durably, and the leader has it.
    At(EntryIndex),
    /// The reigns that were named are all too young for the replica's log.
    Forgotten,
    /// The replica would have to cut what it knows to be committed. It has cut nothing, and is not
    /// to be counted on: one of the two logs is damaged.
    Damaged {
        /// The last entry that it knows to be committed.
        commit: EntryIndex,
    },
}
