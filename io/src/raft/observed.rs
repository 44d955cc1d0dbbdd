//! What the member does, in the words of core's model of Raft, for whoever observes it.
//!
//! The model counts entries from 1, openraft from 0. Nothing here is computed where nobody
//! observes.

use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::EntryPayload;
use sprawl_core::cluster::metadata::{Change, Fingerprint, View};
use sprawl_core::cluster::raft::{self, RaftEvent, Recovered, Voters};
use sprawl_core::ids::{DiskId, NodeId, PartitionId};
use sprawl_core::machine::Digest;
use sprawl_core::wire;

use super::kinds::{Agreed, Entry, LogId, SnapshotMeta, Vote};
use super::stored::{self, Stored, StoredSnapshot};
use crate::storage::{Cell, MetadataWrite};
use crate::trace::Observer;

/// An observer, and whom it observes. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    member: Arc<AtomicU64>,
    observer: Observer,
    shown: Arc<Mutex<Fingerprint>>,
}

impl Observed {
    pub(crate) fn new(observer: Observer) -> Self {
        Self { member: Arc::default(), observer, shown: Arc::default() }
    }

    /// The member is known by this id from now on.
    pub(super) fn is_member(&self, id: u64) {
        self.member.store(id, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> RaftEvent) {
        self.observer.tell(NodeId(self.member.load(Ordering::Relaxed)), event);
    }

    /// The member is about to store a vote: when it is for itself, and granted, it leads.
    pub(super) fn leads(&self, vote: &Vote) {
        let leader = &vote.leader_id;
        if vote.committed && leader.voted_for == self.member.load(Ordering::Relaxed) {
            self.tell(|| RaftEvent::Elected { term: leader.term });
        }
    }

    /// A vote was granted to another member.
    pub(super) fn granted(&self, vote: &Vote) {
        let (term, candidate) = of_vote(vote);
        self.tell(|| RaftEvent::VoteAnswered { term, candidate });
    }

    /// What the disk holds when the process starts, if anybody wants to know.
    pub(super) fn recovered(&self, stored: &Stored) -> Recovered {
        if self.observer.is_somebody() { found(stored) } else { Recovered::default() }
    }

    /// Entries were taken from a leader, and it is told so.
    pub(super) fn vouched(&self, leader: &Vote, last: Option<LogId>) {
        if let Some(last) = last {
            let (term, last) = (leader.leader_id.term, of_log(last));
            self.tell(|| RaftEvent::AppendAnswered { term, last });
        }
    }

    pub(super) fn appended(&self, entries: &[Entry]) {
        self.tell(|| RaftEvent::Appended(entries.iter().map(of_entry).collect()));
    }

    /// An entry is applied, and this is what it led to.
    pub(super) fn applied(&self, at: LogId, view: &View) {
        self.tell(|| {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            RaftEvent::Applied { index: of_log(at).index, digest: shown.of(view) }
        });
    }

    pub(super) fn keeps(&self, snapshot: &StoredSnapshot, is_installed: bool) {
        let (last, voters) = of_snapshot(&snapshot.meta);
        self.tell(|| RaftEvent::SnapshotStored { last, voters, is_installed });
    }
}

/// What a step of the metadata log means to the model once the disk has synced it. Only the disk
/// can say when that is; what else the model wants to know of it, the member tells.
#[must_use]
pub fn synced(step: &MetadataWrite) -> Option<RaftEvent> {
    match step {
        MetadataWrite::Entry(index, bytes) => {
            let entry = stored::read_entry(*index, bytes).ok()?;
            Some(RaftEvent::Flushed(of_log(entry.log_id)))
        }
        MetadataWrite::Cell(Cell::Vote, bytes) => {
            let vote: Vote = stored::read_cell(Cell::Vote, bytes).ok()?;
            let (term, candidate) = of_vote(&vote);
            Some(match vote.committed {
                true => RaftEvent::LeaderStored { term, leader: candidate },
                false => RaftEvent::VoteStored { term, candidate },
            })
        }
        MetadataWrite::Cell(..) | MetadataWrite::Truncate(_) | MetadataWrite::Purge(_) => None,
    }
}

/// What an entry of the metadata log does to copies of partitions, once it is agreed on.
#[derive(Debug, Default)]
pub struct Pending {
    /// Whom it takes out of which sets, or marks as lost.
    pub excluded: Vec<(PartitionId, DiskId)>,
    /// Whether it may make partitions, of which whoever is up then holds the only copies.
    pub creates: bool,
}

/// What a step of the metadata log will do to copies, if it is an entry.
#[must_use]
pub fn pending(step: &MetadataWrite) -> Option<(raft::LogId, Pending)> {
    let MetadataWrite::Entry(index, bytes) = step else { return None };
    let entry = stored::read_entry(*index, bytes).ok()?;
    let EntryPayload::Normal(Agreed(change)) = &entry.payload else { return None };
    let mut excluded = Vec::new();
    let mut exclude = |id, disks: &[DiskId]| excluded.extend(disks.iter().map(|disk| (id, *disk)));
    if let Change::Fail { rulings, .. } | Change::Rule { rulings } = change {
        for ruling in rulings {
            exclude(ruling.partition, &ruling.removed);
            exclude(ruling.partition, &ruling.lost);
        }
    }
    if let Change::Adjust { adjustments, .. } = change {
        adjustments.iter().for_each(|one| exclude(one.partition, &one.removed));
    }
    let creates = matches!(
        change,
        Change::CreateTopic { .. } | Change::ConfigureTopic { .. } | Change::Subscribe { .. }
    );
    Some((of_log(entry.log_id), Pending { excluded, creates }))
}

/// What the disk holds when the process starts.
fn found(stored: &Stored) -> Recovered {
    let snapshot = stored.snapshot.as_ref().map(|snapshot| of_snapshot(&snapshot.meta));
    let (snapshot, voters) = snapshot.unwrap_or_default();
    Recovered {
        vote: stored.vote.as_ref().map(of_vote),
        log: stored.log.values().map(of_entry).collect(),
        purged: stored.purged.map_or(0, |purged| of_log(purged).index),
        snapshot,
        voters,
    }
}

pub(super) fn of_log(id: LogId) -> raft::LogId {
    raft::LogId { term: id.committed_leader_id().term, index: id.index + 1 }
}

fn of_vote(vote: &Vote) -> (u64, NodeId) {
    (vote.leader_id.term, NodeId(vote.leader_id.voted_for))
}

fn of_entry(entry: &Entry) -> raft::Entry {
    let voters = match &entry.payload {
        EntryPayload::Membership(members) => Some(of_sets(members.get_joint_config())),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    };
    let mut content = Digest::default();
    wire::encode(&entry.payload).hash(&mut content);
    raft::Entry { id: of_log(entry.log_id), content: content.finish(), voters }
}

fn of_snapshot(meta: &SnapshotMeta) -> (raft::LogId, Voters) {
    let last = meta.last_log_id.map(of_log).unwrap_or_default();
    (last, of_sets(meta.last_membership.membership().get_joint_config()))
}

fn of_sets(sets: &[std::collections::BTreeSet<u64>]) -> Voters {
    sets.iter().map(|set| set.iter().copied().map(NodeId).collect()).collect()
}
