//! What the replicas of a partition send one another.
//!
//! Any of these may be lost, doubled, or come late and in another order. Each but two names the
//! epoch that it belongs to, and whoever receives one of an epoch below the highest that it has
//! accepted does nothing but say so.
//!
//! Within an epoch the leader numbers what it begins with a follower: a *round* begins with a
//! `Match` or an `Install`, its entries follow it, and every answer repeats its number. What an
//! earlier round was answered says nothing: the log that it was said of may have been cut,
//! replaced, or dropped and begun anew since.

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

/// The state of a partition in its stored form, as a leader gives it to a replica that lacks what
/// was removed, or too much to have it all before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Image {
    /// The last entry whose consequences it contains.
    pub applied: EntryIndex,
    /// How many bytes it has.
    pub bytes: u64,
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
        /// The round that begins.
        round: u64,
        /// Where each reign begins in the leader's log, ascending; the last is its own.
        starts: Vec<(Epoch, EntryIndex)>,
    },
    /// To the leader, when what it asked for is durable.
    MatchAnswer {
        /// The epoch that was asked in.
        epoch: Epoch,
        /// The round that was asked in.
        round: u64,
        /// What came of it.
        matched: Matched,
        /// The first entry that the replica lacks below the state that it was given.
        lacks: Option<EntryIndex>,
    },
    /// From the leader: entries, and how far the log is committed.
    Append {
        /// The leader's epoch.
        epoch: Epoch,
        /// The round.
        round: u64,
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
        /// The round that it was matched in.
        round: u64,
        /// The last entry that is durable here.
        durable: EntryIndex,
        /// The last entry that has arrived here.
        last: EntryIndex,
        /// How far the leader's log is committed, as far as it has said.
        commit: EntryIndex,
        /// Whether what came did not follow it.
        gap: bool,
        /// The first entry that is not durable here below the state that was given.
        lacks: Option<EntryIndex>,
    },
    /// To any replica: of what is older than the state that this one was given, it lacks what is
    /// from there on. It and its answer are of no epoch: what they are about is committed.
    Lacks {
        /// The first entry that it lacks.
        from: EntryIndex,
        /// How many bytes it takes at a time, but always one entry.
        bytes_max: u32,
    },
    /// The answer: entries from there on; none where there are none to be had.
    Older {
        /// The first entry that was asked for.
        from: EntryIndex,
        /// The entries, consecutive, as they are stored.
        records: Vec<Bytes>,
    },
    /// From the leader: a piece of the state, which is to take the place of all that you have of
    /// the partition.
    Install {
        /// The leader's epoch.
        epoch: Epoch,
        /// The round that begins.
        round: u64,
        /// What the piece is of.
        image: Image,
        /// Where in it the piece begins, in bytes.
        at: u64,
        /// The piece.
        piece: Bytes,
    },
    /// To the leader: so much of the state is here. When it is in the place of the log, durably, a
    /// `MatchAnswer` says so.
    InstallAnswer {
        /// The leader's epoch.
        epoch: Epoch,
        /// The round.
        round: u64,
        /// How many bytes.
        have: u64,
    },
    /// To the leader: this replica does not know your round, or has not been matched in your epoch
    /// since it started.
    Unmatched {
        /// The leader's epoch.
        epoch: Epoch,
        /// The round.
        round: u64,
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
