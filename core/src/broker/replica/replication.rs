//! The replication of one partition on one node: which part the node has in it, and what it does
//! with what comes in.
//!
//! It stands beside the [`Replica`], whose log it reads and, on a follower, writes. A partition
//! with one replica has it too: its leader waits for nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

use super::follower::{Follower, Stage, holds, match_answer};
use super::install::Images;
use super::leader::Leader;
use super::message::{Matched, ReplicaMessage};
use super::older::Older;
use super::{Note, Record, Replica};
use crate::cluster::message::{Complaint, LogEnd};
use crate::cluster::metadata::{Adjustment, Partition, View};
use crate::ids::{Boot, DiskId, EntryIndex, Epoch, PartitionId};
use crate::machine::{FollowerStatus, Store, Time, Unreadable, WallTime};
use crate::zoo::{Bug, planted};

/// How many stores of one partition are on their way to the disk at most: more than the entries
/// that a shard gives it before it waits.
const STORES_MAX: usize = 1 << 20;

/// What a replica wants done.
#[derive(Clone, Debug, Hash)]
pub enum Duty {
    /// Carry a message to the same partition's replica on another node. It may be lost.
    Send {
        /// The partition.
        partition: PartitionId,
        /// To whom.
        to: DiskId,
        /// What.
        message: ReplicaMessage,
    },
    /// Write this to the disk and sync it; [`Replication::stored`] answers.
    Store(Store),
    /// Read entries for a follower; [`Replication::read_done`] answers.
    Read {
        /// The partition.
        partition: PartitionId,
        /// For whom.
        to: DiskId,
        /// The first entry.
        from: EntryIndex,
        /// How many bytes at most, but always one entry.
        bytes_max: usize,
        /// Whether it is older than the state that the follower was given. Of one follower there is
        /// one such read at a time, and one other.
        is_older: bool,
    },
    /// Propose this change of the set that counts.
    Propose(Adjustment),
    /// Tell the controller that something is wrong.
    Complain(Complaint),
}

/// What a replica is shown of the world while it handles something.
pub struct Scene<'a> {
    /// The time.
    pub now: Time,
    /// The newest view.
    pub view: &'a View,
    /// The partition's log and state.
    pub replica: &'a mut Replica,
    /// What is to be done.
    pub duties: &'a mut Vec<Duty>,
    /// What is under way to other copies and this one.
    pub images: &'a mut Images,
}

/// From when on a replica does what costs more the more there is of its log.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// After how many committed entries the state is stored again.
    pub checkpoint_entries: u64,
    /// From how many retained bytes on a new copy is given the state and what follows it, and what
    /// is older behind that.
    pub newest_first_bytes: u64,
    /// How many bytes of what is older it asks for at a time.
    pub older_bytes: u32,
    /// How many of these bytes the shard's partitions take a second; none for as many as come.
    pub older_rate: Option<NonZeroU64>,
}

/// A store that is on its way to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    number: u64,
    /// The last entry of the log that is durable with it.
    pub(super) last: EntryIndex,
    /// The last of what is older than the state that was given, where some of that was missing.
    pub(super) filled: Option<EntryIndex>,
}

#[derive(Debug)]
pub(super) enum Part {
    /// No view has said, or no leader has.
    None,
    Leader(Leader),
    Follower(Follower),
}

/// One partition's replication on one node.
///
/// Invariants, checked by [`Replication::check`]: (1) the part that it has is of the highest epoch
/// that it has accepted; (2) stores on their way have rising numbers and no more entries than the
/// log, and there are at most [`STORES_MAX`]; (3) a leader keeps its own invariants; (4) nothing is
/// applied that is not durable here, and nothing that a leader has not committed.
#[derive(Debug)]
pub struct Replication {
    pub(super) id: PartitionId,
    pub(super) me: (DiskId, Boot),
    pub(super) part: Part,
    pub(super) accepted: Epoch,
    pub(super) stores: VecDeque<Pending>,
    next_store: u64,
    pub(super) thresholds: Thresholds,
    /// Messages that made no sense.
    pub(super) ignored: u64,
    /// By which version of the partition this copy was begun, if this run has begun it. Who knows
    /// an earlier one only speaks of a copy that there was before.
    begun_by: Option<u64>,
    /// What a leader asked that knows a later version of the partition.
    early: Option<((DiskId, Boot), ReplicaMessage)>,
    /// What entries that were cut took of the memory.
    pub(super) freed: usize,
    /// The question for what is older than the state that was given.
    pub(super) older: Older,
    /// What is being read for others who lack it: one piece for each.
    pub(super) older_reads: BTreeMap<DiskId, EntryIndex>,
}

/// Whether no entry of a reign stands in the log. It is one of an earlier run of this node
/// otherwise, whose end was not agreed on.
fn is_new(epoch: Epoch, replica: &Replica) -> bool {
    epoch > replica.last_epoch() || planted(Bug::EpochResumed)
}

impl Replication {
    /// A replica as its disk held it, on this run of a node; `accepted` is the highest epoch that
    /// it had stored. Its stores are numbered from `first_store` on, above those of a replica of
    /// the same partition that this run had and erased.
    #[must_use]
    pub fn new(
        me: (DiskId, Boot),
        replica: &Replica,
        accepted: Epoch,
        thresholds: Thresholds,
        first_store: u64,
    ) -> Self {
        Self {
            id: replica.id(),
            me,
            part: Part::None,
            accepted: accepted.max(replica.last_epoch()),
            stores: VecDeque::new(),
            next_store: first_store,
            thresholds,
            ignored: 0,
            begun_by: None,
            early: None,
            freed: 0,
            older: Older::default(),
            older_reads: BTreeMap::new(),
        }
    }

    /// The run of the node that it is of.
    #[must_use]
    pub fn me(&self) -> (DiskId, Boot) {
        self.me
    }

    /// Whether this node leads the partition.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.part, Part::Leader(_))
    }

    /// The last entry that is committed, as far as is known here; a leader is to apply up to it.
    #[must_use]
    pub fn commit(&self) -> EntryIndex {
        match &self.part {
            Part::None => EntryIndex(0),
            Part::Leader(leader) => leader.commit(),
            Part::Follower(follower) => follower.commit,
        }
    }

    /// The last entry that everybody has received who may count, where this node leads and serves.
    #[must_use]
    pub fn received_by_all(&self) -> EntryIndex {
        match &self.part {
            Part::Leader(leader) => leader.received(),
            Part::None | Part::Follower(_) => EntryIndex(0),
        }
    }

    /// The highest epoch that this replica has accepted.
    #[must_use]
    pub fn accepted(&self) -> Epoch {
        self.accepted
    }

    /// What the log ends with, for the controller.
    #[must_use]
    pub fn log_end(&self, replica: &Replica) -> LogEnd {
        let (last, commit) = (replica.persisted(), replica.commit());
        let epoch = replica.epoch_at(last).unwrap_or_default();
        if replica.is_filling() && !planted(Bug::TailMayLead) {
            // It holds not all that its log ends with.
            return LogEnd { commit, damaged: true, ..LogEnd::default() };
        }
        let is_apart = match &self.part {
            Part::None | Part::Leader(_) => false,
            Part::Follower(follower) => matches!(follower.stage, Stage::Damaged),
        };
        LogEnd { epoch, last, commit, damaged: is_apart || replica.damage().is_some() }
    }

    /// The other replicas, where this one leads.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerStatus> {
        match &self.part {
            Part::Leader(leader) => leader.followers(),
            Part::None | Part::Follower(_) => Vec::new(),
        }
    }

    /// How many messages made no sense.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// A newer view is shown. `time` is cluster time.
    pub fn adopt(&mut self, time: WallTime, scene: &mut Scene<'_>) {
        let view = scene.view;
        let Some(partition) = view.partitions.get(&self.id) else { return };
        let epoch = partition.epoch;
        if scene.replica.last() == EntryIndex(0) {
            self.begun_by.get_or_insert(partition.version);
        }
        if self.leads() && self.leader_in(epoch).is_none() {
            // What was found in the reign that is over counts in the next.
            self.step_down(self.accepted, scene);
        }
        let leads = self.may_lead(partition, view, scene.replica);
        if let Part::Leader(leader) = &mut self.part
            && leader.epoch() == epoch
            && leads
        {
            leader.adopt(partition, scene);
        } else if leads && epoch >= self.accepted && is_new(epoch, scene.replica) {
            self.lead(partition, time, scene);
        } else if epoch > self.accepted || epoch == self.accepted && self.leads() && !leads {
            self.step_down(epoch, scene);
        }
        if let Part::Follower(follower) = &self.part
            && matches!(follower.stage, Stage::Installing(_))
            && view.nodes.get(&follower.leader).is_none_or(|node| node.down.is_some())
        {
            // Others' states may come meanwhile; this leader begins anew when it is back.
            self.part = Part::None;
        }
        let is_replica = |disk: &DiskId| partition.replicas.contains(disk);
        self.older_reads.retain(|disk, _| is_replica(disk));
        self.ask_older(scene);
        if let Some((from, message)) = self.early.take() {
            self.received(from, message, scene);
        }
    }

    fn may_lead(&self, partition: &Partition, view: &View, replica: &Replica) -> bool {
        partition.led_by() == Some(self.me.0)
            && view.has_registered(self.me.0, self.me.1)
            && replica.damaged().is_none()
            && (!replica.is_filling() || planted(Bug::TailMayLead))
    }

    fn lead(&mut self, partition: &Partition, time: WallTime, scene: &mut Scene<'_>) {
        self.accepted = partition.epoch;
        let cut_after = planted(Bug::LeaderCutsItsTail).then_some(scene.replica.commit());
        cut_after.into_iter().for_each(|last| self.cut_after(last, scene));
        let (leader, boot) = self.me;
        let record = scene.replica.lead(partition, Note::Start { leader, boot }, time);
        let start = record.header().index;
        self.store(Store { cut_after, ..Store::of(self.id) }, vec![record], scene);
        let newest_first = self.thresholds.newest_first_bytes;
        let leader = Leader::begin(self.me, partition, (start, newest_first), scene);
        self.part = Part::Leader(leader);
    }

    /// A reign has begun that is not this node's: what it said as a leader is over.
    pub(super) fn step_down(&mut self, epoch: Epoch, scene: &mut Scene<'_>) {
        self.accepted = self.accepted.max(epoch);
        self.part = Part::None;
        scene.replica.step_down();
    }

    /// What entries took of the memory that were cut since this was asked.
    pub fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed)
    }

    /// Has the state stored that is due.
    pub fn store_state(&mut self, scene: &mut Scene<'_>) {
        self.store(Store::of(self.id), Vec::new(), scene);
    }

    /// The leader's own entries, just appended to the log of its replica.
    pub fn appended(&mut self, records: Vec<Record>, scene: &mut Scene<'_>) {
        let Some(first) = records.first().map(|record| record.header().index) else { return };
        self.store(Store::of(self.id), records, scene);
        match &mut self.part {
            Part::Leader(leader) => leader.appended(EntryIndex(first.0 - 1), scene),
            Part::None | Part::Follower(_) => {
                panic!("only a leader appends: partition {}", self.id)
            }
        }
    }

    /// Has something written: what the store names, and these entries, and the state if it is due.
    pub(super) fn store(
        &mut self,
        store: Store,
        records: Vec<Record>,
        scene: &mut Scene<'_>,
    ) -> u64 {
        let (number, last) = (self.next_store, scene.replica.last());
        let filled = scene.replica.filled();
        self.next_store += 1;
        self.stores.push_back(Pending { number, last, filled });
        let due = scene.replica.write(records, self.thresholds.checkpoint_entries);
        let checkpoint = store.checkpoint.or(due.checkpoint);
        let (records, cut) = (due.records, store.cut.or(due.cut));
        let store = Store { number, records, checkpoint, cut, ..store };
        scene.duties.push(Duty::Store(store));
        number
    }

    /// This node's disk holds all stores up to this number.
    pub fn stored(&mut self, number: u64, scene: &mut Scene<'_>) {
        while let Some(pending) = self.stores.pop_front_if(|pending| pending.number <= number) {
            scene.replica.persist(pending.last);
            pending.filled.into_iter().for_each(|index| scene.replica.filled_to(index));
        }
        self.ask_older(scene);
        let (partition, durable) = (self.id, scene.replica.persisted());
        match &mut self.part {
            Part::None => {}
            Part::Leader(leader) => leader.work(scene),
            Part::Follower(follower) => {
                let (to, epoch, round) = (follower.leader, follower.epoch, follower.round);
                let message = match follower.stage {
                    Stage::Cutting(cut) if cut <= number => {
                        follower.stage = Stage::Matched;
                        match_answer((epoch, round), Matched::At(durable), scene.replica)
                    }
                    Stage::Matched => holds(follower, false, scene.replica),
                    Stage::Cutting(_) | Stage::Damaged | Stage::Apart | Stage::Installing(_) => {
                        return;
                    }
                };
                scene.duties.push(Duty::Send { partition, to, message });
                self.apply(scene);
            }
        }
    }

    /// A follower applies what its leader has committed.
    pub(super) fn apply(&mut self, scene: &mut Scene<'_>) {
        if let Part::Follower(follower) = &self.part
            && follower.is_matched()
        {
            scene.replica.apply_to(follower.commit);
        }
    }

    /// A message of another node's replica, from this run of it.
    pub fn received(
        &mut self,
        from: (DiskId, Boot),
        message: ReplicaMessage,
        scene: &mut Scene<'_>,
    ) {
        match message {
            ReplicaMessage::Match { epoch, version, round, ref starts } => {
                let known = scene.view.partitions.get(&self.id).map_or(0, |one| one.version);
                if known < version {
                    self.early = Some((from, message));
                } else if self.begun_by.is_none_or(|begun| begun <= version)
                    && !self.is_stale(from.0, epoch, scene)
                {
                    self.matching(from.0, (epoch, round), starts, scene);
                }
            }
            ReplicaMessage::Append { epoch, round, previous, records, commit } => {
                if !self.is_stale(from.0, epoch, scene) {
                    self.take(from.0, (epoch, round), (previous, commit), records, scene);
                }
            }
            ReplicaMessage::Install { epoch, round, image, at, piece } => {
                if !self.is_stale(from.0, epoch, scene) {
                    self.install(from.0, (epoch, round), image, (at, &piece), scene);
                }
            }
            ReplicaMessage::Lacks { from: first, bytes_max } => {
                self.lacked(from.0, (first, bytes_max), scene);
            }
            ReplicaMessage::Older { from: first, records } => {
                self.take_older(from.0, (first, records), scene);
            }
            ReplicaMessage::MatchAnswer { epoch, round, matched, lacks } => {
                if let Some(leader) = self.leader_in(epoch) {
                    leader.match_answered(from, round, (matched, lacks), scene);
                }
            }
            ReplicaMessage::AppendAnswer { epoch, round, durable, last, commit, gap, lacks } => {
                if let Some(leader) = self.leader_in(epoch) {
                    let holds = (durable, last, gap);
                    leader.append_answered(from, round, holds, (commit, lacks), scene);
                }
            }
            ReplicaMessage::InstallAnswer { epoch, round, have } => {
                if let Some(leader) = self.leader_in(epoch) {
                    leader.install_answered(from, (round, have), scene);
                }
            }
            ReplicaMessage::Unmatched { epoch, round } => {
                if let Some(leader) = self.leader_in(epoch) {
                    leader.unmatched(from, round, scene);
                }
            }
            ReplicaMessage::Stale { epoch, accepted } => {
                if self.leader_in(epoch).is_some() && accepted > epoch {
                    self.step_down(accepted, scene);
                }
            }
        }
    }

    /// The leader of this epoch, if it is this node: an answer of another epoch says nothing.
    pub(super) fn leader_in(&mut self, epoch: Epoch) -> Option<&mut Leader> {
        match &mut self.part {
            Part::Leader(leader) if leader.epoch() == epoch => Some(leader),
            Part::Leader(_) | Part::None | Part::Follower(_) => None,
        }
    }

    /// Whether whoever speaks leads no more, and then tells it.
    fn is_stale(&mut self, to: DiskId, epoch: Epoch, scene: &mut Scene<'_>) -> bool {
        let (partition, accepted) = (self.id, self.accepted);
        if epoch < accepted {
            let message = ReplicaMessage::Stale { epoch, accepted };
            scene.duties.push(Duty::Send { partition, to, message });
        }
        epoch < accepted
    }

    /// Entries that were read for this follower, from there on.
    pub fn read_done(
        &mut self,
        place: (DiskId, EntryIndex),
        result: Result<Vec<Record>, Unreadable>,
        scene: &mut Scene<'_>,
    ) {
        if self.older_read(place, &result, scene) {
            return;
        }
        match &mut self.part {
            Part::Leader(leader) => leader.read_done(place, result, scene),
            Part::None | Part::Follower(_) => {}
        }
    }

    /// An entry cannot be read that a client asked for: another replica is to lead.
    pub fn finds_damage(&mut self, damage: Unreadable, scene: &mut Scene<'_>) {
        if let Part::Leader(leader) = &mut self.part {
            leader.finds_damage(damage, scene);
        }
    }

    /// The time that `wakeup` named has come.
    pub fn woke(&mut self, scene: &mut Scene<'_>) {
        match &mut self.part {
            Part::Leader(leader) => leader.work(scene),
            Part::None | Part::Follower(_) => self.ask_older(scene),
        }
    }

    /// When to wake it, if nothing else happens before.
    #[must_use]
    pub fn wakeup(&self, now: Time, replica: &Replica) -> Option<Time> {
        match &self.part {
            Part::Leader(leader) => leader.wakeup(now, replica.last()),
            Part::None | Part::Follower(_) => self.asks_at(replica),
        }
    }

    /// Checks the invariants.
    ///
    /// # Errors
    ///
    /// Says what breaks which.
    pub fn check(&self, replica: &Replica) -> Result<(), String> {
        let epoch = match &self.part {
            Part::None => self.accepted,
            Part::Leader(leader) => leader.epoch(),
            Part::Follower(follower) => follower.epoch,
        };
        if epoch != self.accepted || replica.last_epoch() > self.accepted {
            let (accepted, last) = (self.accepted, replica.last_epoch());
            return Err(format!("(1) epoch {epoch}, accepted {accepted}, last entry {last}"));
        }
        let numbers = self.stores.iter().map(|pending| pending.number);
        let rise = numbers.clone().zip(numbers.skip(1)).all(|(a, b)| a < b);
        let within = self.stores.iter().all(|pending| pending.last <= replica.last());
        if !rise || !within || self.stores.len() > STORES_MAX {
            return Err(format!("(2) stores {:?} of a log to {}", self.stores, replica.last()));
        }
        if let Part::Leader(leader) = &self.part {
            leader.check(replica.last())?;
        }
        if replica.commit() > replica.persisted() {
            let (commit, persisted) = (replica.commit(), replica.persisted());
            return Err(format!("(4) applied {commit}, durable {persisted}"));
        }
        replica.check()
    }
}
