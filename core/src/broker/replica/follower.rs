//! A follower's part in replication: it finds where its log parts from the leader's, cuts what
//! follows, takes what it is sent, and says what is durable.

use crate::ids::{DiskId, EntryIndex, Epoch};

/// How far a follower is with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What its log had beyond the leader's is being cut: durable with the store of this number.
    Cutting(u64),
    /// Its log is the beginning of the leader's.
    Matched,
    /// It would have had to cut what it knows to be committed.
    Damaged,
}

/// A follower of one leader in one epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follower {
    pub(super) epoch: Epoch,
    pub(super) leader: DiskId,
    pub(super) stage: Stage,
    /// How far the leader's log is committed, as far as it has said.
    pub(super) commit: EntryIndex,
}

impl Follower {
    /// Whether this leader's entries go behind the log as it is.
    pub(super) fn takes(&self, from: DiskId, epoch: Epoch) -> bool {
        self.leader == from && self.epoch == epoch && self.stage == Stage::Matched
    }
}
