//! One partition as this node holds it: a log of entries, and the state that the committed ones
//! have led to.
//!
//! An entry's life: appended (it has an index, an offset, a place in memory) → persisted (this
//! node's disk has it, synced) → committed (every member of the set that counts has it) → applied.
//! Only the last step answers anybody. State changes at commit alone; what is known before that
//! (ids and offsets of entries under way) is the overlay, rebuilt by whoever leads.

mod blocks;
mod cursor;
mod entry;
mod epochs;
mod filling;
mod follower;
pub mod frame;
mod id_queue;
mod install;
mod leader;
mod log;
mod memory;
pub mod message;
mod older;
mod producers;
mod progress;
mod recovery;
mod replication;
mod runs;
mod state;
mod window;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

pub use blocks::BLOCKS_MAX;
pub use cursor::CURSOR_RUNS_MAX;
pub(crate) use cursor::Cursor;
pub use entry::{
    Attempt, BadEntry, Body, Draft, Envelope, HEADER_BYTES, Header, Note, PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX, Record, Submission, Terms, Timing, peek_offset,
};
pub use epochs::EPOCHS_MAX;
use filling::Filling;
use id_queue::IdQueue;
pub use install::{IMAGE_BYTES_MAX, Images};
pub use leader::{APPEND_BYTES_MAX, PROPOSE_AGAIN, SLOW_AFTER};
pub(crate) use memory::{Evicted, Found, Memory};
pub use producers::PRODUCERS_MAX;
use producers::{Newest, Producers};
pub use progress::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};
pub use recovery::Recovery;
pub use replication::{Duty, Replication, Scene, Thresholds};
pub(crate) use runs::Runs;
pub use state::{Checkpoint, DELAYED_MAX, RANKED_MAX};
pub(crate) use state::{State, Step, What};
pub use window::{WINDOW_IDS_MAX, WINDOW_MILLIS_MAX};

use bytes::BytesMut;

use crate::cluster::metadata::Partition;
use crate::ids::{EntryIndex, Epoch, IdHash, Offset, PartitionId, Sequence};
use crate::machine::{Digest, Store, Unreadable, WallTime};
use crate::zoo::{Bug, planted};

/// What this node is to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It does not lead: no view has said that it does, or another node's reign has begun.
    Idle,
    /// Its leader in `epoch`; it serves once the entry `start` is committed.
    Leading { epoch: Epoch, start: EntryIndex },
}

/// What an id is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The window remembers it: committed at this offset.
    Committed(Offset),
    /// It was appended at this offset and waits for its commit.
    UnderWay(Offset),
    /// Never seen, or forgotten.
    New,
}

/// One partition's log, and the state that it has led to.
///
/// Invariants, checked by [`Replica::check`]: (1) `commit` ≤ `persisted` of this node ≤ the last
/// entry; (2) the state is applied at `commit`; (3) `steps` are exactly the entries above `commit`;
/// (4) the overlay holds exactly their ids; (5) what is filled in ends where the state begins that
/// it was given.
#[derive(Debug)]
pub struct Replica {
    pub(crate) id: PartitionId,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) memory: Memory,
    pub(crate) damaged: Option<Unreadable>,
    /// What was found to be damaged while it leads: it goes on, because nobody may be there who
    /// could, and is damaged when it leads no more.
    found_damaged: Option<Unreadable>,
    /// The last entry that this node's disk holds.
    persisted: EntryIndex,
    /// Where the next entry goes: index, offset, and the least time that it may bear.
    next: (EntryIndex, Offset, WallTime),
    last_epoch: Epoch,
    steps: VecDeque<Step>,
    overlay: IdQueue<Offset, OVERLAY_ROOM_KEPT>,
    /// The numbered messages among them.
    numbered: Producers,
    checkpointed: Checkpointed,
    /// Entries below this index were given up.
    cut: EntryIndex,
    /// Where a follower reads that is given what it lacks: the log is not cut beyond it.
    wanted: Option<EntryIndex>,
    /// The state was given to this replica before the entries that it was made from.
    filling: Option<Filling>,
}

/// How long ago, in entries and bytes, the state was last stored.
#[derive(Clone, Copy, Debug, Default)]
struct Checkpointed {
    at: EntryIndex,
    bytes_since: usize,
    /// The state is wanted on the disk with whatever is written next.
    due: bool,
}

/// For how many ids under way a partition keeps room that it does not need.
const OVERLAY_ROOM_KEPT: usize = 2_048;
/// After how many bytes of entries a state is stored again, at the latest.
const CHECKPOINT_BYTES: usize = 16 << 20;

impl Replica {
    /// A partition without history.
    pub(crate) fn empty(id: PartitionId) -> Self {
        Self::recovered(id, State::default(), Vec::new(), None, None)
    }

    /// A partition as the disk held it.
    fn recovered(
        id: PartitionId,
        state: State,
        steps: Vec<Step>,
        damaged: Option<Unreadable>,
        filling: Option<Filling>,
    ) -> Self {
        let mut next = (state.applied.next(), state.end, state.time);
        let mut last_epoch = state.epoch;
        let (mut overlay, mut numbered) = (IdQueue::default(), Producers::default());
        for step in &steps {
            next = (step.index.next(), step.offset, step.time);
            last_epoch = step.epoch;
            if let What::Message(id, _, sequence) = &step.what {
                if let Some(known) = overlay.push(*id, step.offset) {
                    *known = step.offset;
                }
                sequence.iter().for_each(|sequence| numbered.insert(sequence, step.offset));
                next.1 = step.offset.next();
            }
        }
        let last = EntryIndex(next.0.0 - 1);
        let checkpointed = Checkpointed { at: state.applied, ..Checkpointed::default() };
        let (role, memory, steps) = (Role::Idle, Memory::default(), steps.into());
        Self {
            id,
            role,
            state,
            memory,
            damaged,
            found_damaged: None,
            persisted: last,
            next,
            last_epoch,
            steps,
            overlay,
            numbered,
            checkpointed,
            cut: EntryIndex(0),
            wanted: None,
            filling,
        }
    }

    /// The partition that this is.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// What is wrong with its log, if anything; then it leads nothing and serves nothing.
    #[must_use]
    pub fn damaged(&self) -> Option<&Unreadable> {
        self.damaged.as_ref()
    }

    /// An entry of its log that is known not to be readable, whether it leads on or not.
    #[must_use]
    pub(crate) fn damage(&self) -> Option<&Unreadable> {
        self.damaged.as_ref().or(self.found_damaged.as_ref())
    }

    /// An entry of the log that it leads by cannot be read.
    pub(crate) fn finds_damage(&mut self, damage: Unreadable) {
        self.found_damaged.get_or_insert(damage);
    }

    /// The last entry of the log, committed or not.
    #[must_use]
    pub fn last(&self) -> EntryIndex {
        EntryIndex(self.next.0.0 - 1)
    }

    /// The time of the last entry.
    #[must_use]
    pub fn time(&self) -> WallTime {
        self.next.2
    }

    /// The last entry that is known here to be committed.
    #[must_use]
    pub fn commit(&self) -> EntryIndex {
        self.state.applied
    }

    /// The offset that the next message to be appended gets.
    pub(crate) fn log_end(&self) -> Offset {
        self.next.1
    }

    /// Whether requests may be answered: it leads, and its Start entry is committed.
    pub(crate) fn serving(&self) -> bool {
        matches!(self.role, Role::Leading { start, .. } if start <= self.commit())
    }

    /// Whether entries may be appended.
    pub(crate) fn leading(&self) -> bool {
        matches!(self.role, Role::Leading { .. })
    }

    /// The epoch in which it acts.
    pub(crate) fn epoch(&self) -> Epoch {
        match self.role {
            Role::Idle => self.state.epoch,
            Role::Leading { epoch, .. } => epoch,
        }
    }

    /// Takes up the leadership that the view gives to this node: appends the Start entry.
    pub(crate) fn lead(&mut self, partition: &Partition, note: Note, now: WallTime) -> Record {
        assert!(self.damaged.is_none(), "a damaged log leads nothing: {:?}", self.damaged);
        assert!(
            partition.epoch > self.last_epoch || planted(Bug::EpochResumed),
            "epoch {} of partition {} is not above {} of its last entry",
            partition.epoch,
            self.id,
            self.last_epoch,
        );
        self.role = Role::Leading { epoch: partition.epoch, start: self.next.0 };
        self.append_note(note, now)
    }

    /// What the partition knows of an id.
    pub(crate) fn find(&self, id: IdHash) -> Known {
        if let Some(offset) = self.state.window.find(id) {
            return Known::Committed(offset);
        }
        self.overlay.find(id).map_or(Known::New, |&offset| Known::UnderWay(offset))
    }

    /// Whether a message with this id would be a repeat.
    #[must_use]
    pub fn remembers(&self, id: IdHash) -> bool {
        self.find(id) != Known::New
    }

    /// What the partition knows of a numbered message: a repeat of its producer's newest is known,
    /// and what is above is new.
    ///
    /// # Errors
    ///
    /// The newest number, when this one is below it: the message may be stored or was left out,
    /// and nobody remembers which.
    pub(crate) fn find_numbered(&self, sequence: &Sequence) -> Result<Known, u64> {
        let Sequence { producer, number } = sequence;
        let known = |newest: Newest, known: fn(Offset) -> Known| match newest.number.cmp(number) {
            Ordering::Less => Ok(Known::New),
            Ordering::Equal => Ok(known(newest.offset)),
            Ordering::Greater => Err(newest.number),
        };
        if let Some(newest) = self.numbered.find(producer) {
            return known(newest, Known::UnderWay);
        }
        let newest = self.state.producers.find(producer);
        newest.map_or(Ok(Known::New), |newest| known(newest, Known::Committed))
    }

    /// Gives a message its place in the log; it is nowhere durable yet. `id` is its id's hash, and
    /// `room` the memory of the entries that are made with it.
    ///
    /// # Panics
    ///
    /// When this replica does not lead.
    pub fn append_message(
        &mut self,
        draft: Draft,
        id: IdHash,
        terms: &Terms,
        topic_ttl: Option<Duration>,
        now: WallTime,
        room: &mut BytesMut,
    ) -> Record {
        let offset = self.log_end();
        let timing = Timing::of(terms, topic_ttl, self.next.2.max(now));
        let sequence = draft.envelope.sequence.clone();
        sequence.iter().for_each(|sequence| self.numbered.insert(sequence, offset));
        let what = What::Message(id, timing, sequence);
        let record = self.append(&Body::Message(draft), what, now, room);
        self.next.1 = offset.next();
        self.overlay.push(id, offset);
        record
    }

    /// Gives a note its place in the log; it is nowhere durable yet.
    ///
    /// # Panics
    ///
    /// When this replica does not lead.
    pub fn append_note(&mut self, note: Note, now: WallTime) -> Record {
        let what = What::Note(note.clone());
        self.append(&Body::Note(note), what, now, &mut BytesMut::new())
    }

    fn append(&mut self, body: &Body, what: What, now: WallTime, room: &mut BytesMut) -> Record {
        let Role::Leading { epoch, .. } = self.role else {
            panic!("only a leader appends: partition {}", self.id);
        };
        let (index, offset, least) = self.next;
        let time = least.max(now);
        let (is_message, timing) = match what {
            What::Message(_, timing, _) => (true, timing),
            What::Note(_) => (false, Timing::default()),
        };
        let header = Header { epoch, index, offset, time, is_message, timing };
        let record = Record::seal_in(room, self.id, header, body);
        self.next = (index.next(), offset, time);
        self.last_epoch = epoch;
        self.checkpointed.bytes_since += record.len();
        self.steps.push_back(Step::of(&record, what));
        self.memory.push(record.clone());
        record
    }

    /// This node's disk holds the log up to `index`.
    pub(crate) fn persist(&mut self, index: EntryIndex) {
        assert!(index <= self.last(), "persisted {index} beyond the last entry {}", self.last());
        assert!(index >= self.persisted, "persisted {index} after {}", self.persisted);
        self.persisted = index;
    }

    /// Commits and applies the next entry that is not behind `commit`.
    pub(crate) fn advance_to(&mut self, commit: EntryIndex) -> Option<Step> {
        let step = self.steps.pop_front_if(|step| step.index <= commit)?;
        self.state.apply(&step);
        match &step.what {
            What::Message(id, _, sequence) => {
                self.overlay.pop_if(*id);
                sequence.iter().for_each(|one| self.numbered.remove(one, step.offset));
            }
            // What was removed gives its room back soon.
            What::Note(Note::Trim { .. }) => self.checkpointed.due = true,
            What::Note(_) => {}
        }
        Some(step)
    }

    /// The state to store with the next entries, when enough has happened since the last time.
    fn checkpoint(&mut self, entries_max: u64) -> Option<Checkpoint> {
        let Checkpointed { at, bytes_since, due } = self.checkpointed;
        let entries = self.commit().0 - at.0;
        let enough = entries >= entries_max || bytes_since >= CHECKPOINT_BYTES;
        if self.is_filling() || !due && (entries == 0 || !enough) {
            return None;
        }
        self.checkpointed = Checkpointed { at: self.commit(), ..Checkpointed::default() };
        Some(self.state.checkpoint(self.id))
    }

    /// Wraps entries, and the state when it is due, for the disk.
    pub(crate) fn write(&mut self, records: Vec<Record>, checkpoint_entries: u64) -> Store {
        let checkpoint = self.checkpoint(checkpoint_entries);
        let cut = checkpoint.as_ref().and_then(|checkpoint| self.cut_at(checkpoint));
        Store { records, checkpoint, cut, ..Store::of(self.id) }
    }

    /// Below which index the log may go beside this state, if that is more than before.
    fn cut_at(&mut self, checkpoint: &Checkpoint) -> Option<EntryIndex> {
        let cut = self.first().min(checkpoint.from);
        let cut = self.wanted.map_or(cut, |wanted| cut.min(wanted));
        if self.state.start == Offset(0) || cut <= self.cut {
            return None;
        }
        self.cut = cut;
        Some(cut)
    }

    /// From where on a follower needs the log, if one does that is given what it lacks.
    pub(crate) fn want(&mut self, wanted: Option<EntryIndex>) {
        self.wanted = wanted;
    }

    /// Whether something that was removed still takes room on the disk.
    pub(crate) fn owes_cut(&self) -> bool {
        self.state.start > Offset(0) && self.first() > self.cut
    }

    /// The state is stored with whatever is written next.
    pub(crate) fn store_soon(&mut self) -> bool {
        std::mem::replace(&mut self.checkpointed.due, true)
    }

    /// Whether the state is to be stored.
    pub(crate) fn store_due(&self) -> bool {
        self.checkpointed.due && !self.is_filling()
    }

    /// The first entry that reads may want.
    pub(crate) fn first(&self) -> EntryIndex {
        self.state.blocks.first().unwrap_or(EntryIndex(1))
    }

    /// How many bytes of entries are retained.
    pub(super) fn retained_bytes(&self) -> u64 {
        self.state.blocks.bytes()
    }

    /// Whether nothing that is retained is older.
    pub(crate) fn begins_at_or_after(&self, at: WallTime) -> bool {
        self.state.blocks.begins().is_none_or(|begins| at <= begins)
    }

    /// Committed messages from `from` on, if memory holds them.
    pub(crate) fn read(&self, from: Offset, count_max: usize, bytes_max: usize) -> Found {
        if from >= self.state.end {
            return Found::Here(Vec::new());
        }
        self.memory.read(from, self.commit(), count_max, bytes_max)
    }

    /// What the committed entries have led to, in one number: equal on all replicas that know the
    /// same to be committed.
    #[must_use]
    pub fn state_digest(&self) -> u64 {
        use std::hash::Hasher;
        let mut hash = Digest::default();
        self.state.digest(&mut hash);
        hash.finish()
    }

    pub(crate) fn digest(&self, hash: &mut Digest) {
        use std::hash::Hash;
        (self.id, self.persisted, self.next, self.last_epoch, self.steps.len()).hash(hash);
        self.state.digest(hash);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(filling) = &self.filling {
            filling.check().map_err(|what| format!("(5) {what}"))?;
        }
        if self.commit() > self.persisted {
            return Err(format!("commit {} above persisted {}", self.commit(), self.persisted));
        }
        let above = self.last().0 - self.commit().0;
        if self.steps.len() as u64 != above {
            return Err(format!("{} steps for {above} entries", self.steps.len()));
        }
        if self.steps.front().is_some_and(|step| step.index != self.commit().next()) {
            return Err(format!("steps do not follow commit {}", self.commit()));
        }
        self.overlay.check()?;
        self.state.window.check()?;
        self.state.producers.check()?;
        self.state.blocks.check()?;
        self.state.cursors.values().try_for_each(Cursor::check)
    }
}
