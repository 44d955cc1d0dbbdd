//! What a replica does with its log when it does not lead: it takes what the leader sends, cuts
//! what the leader does not have, and applies what the leader has committed.

use super::entry::{BadEntry, Record};
use super::id_queue::IdQueue;
use super::producers::Producers;
use super::state::{Step, What};
use super::{Replica, Role};
use crate::ids::{EntryIndex, Epoch};

impl Replica {
    /// The last entry that this node's disk holds.
    #[must_use]
    pub fn persisted(&self) -> EntryIndex {
        self.persisted
    }

    /// The epoch of the last entry; 0 where there is none.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// The reign is over.
    pub(super) fn step_down(&mut self) {
        self.role = Role::Idle;
        self.wanted = None;
        self.damaged = self.damaged.take().or(self.found_damaged.take());
    }

    /// Takes the next entry, as a leader sealed it; it is nowhere durable here yet.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when it does not follow the last one; then nothing was taken.
    pub(super) fn take(&mut self, record: &Record) -> Result<(), BadEntry> {
        let (index, offset, time) = self.next;
        let header = record.header();
        if header.index != index
            || header.offset != offset
            || header.time < time
            || header.epoch < self.last_epoch
        {
            let found = format!("{header:?} after epoch {} and {:?}", self.last_epoch, self.next);
            return Err(BadEntry::Malformed(found));
        }
        let step = Step::read(record)?;
        self.note_way(&step);
        self.next = (index.next(), step.end(), header.time);
        self.last_epoch = header.epoch;
        self.checkpointed.bytes_since += record.len();
        self.steps.push_back(step);
        self.memory.push(record.clone());
        Ok(())
    }

    /// What is known of an entry that waits for its commit.
    fn note_way(&mut self, step: &Step) {
        if let What::Message(id, _, sequence) = &step.what {
            if let Some(known) = self.overlay.push(*id, step.offset) {
                *known = step.offset;
            }
            sequence.iter().for_each(|one| self.numbered.insert(one, step.offset));
        }
    }

    /// Forgets the entries behind `last`, which no leader has; gives what they took of the memory.
    ///
    /// # Panics
    ///
    /// When one of them is known to be committed.
    pub(super) fn cut_after(&mut self, last: EntryIndex) -> usize {
        assert!(last >= self.commit(), "entry {last} is below commit {}", self.commit());
        let stay = self.steps.partition_point(|step| step.index <= last);
        self.steps.truncate(stay);
        self.next = (self.state.applied.next(), self.state.end, self.state.time);
        self.last_epoch = self.state.epoch;
        if let Some(step) = self.steps.back() {
            self.next = (step.index.next(), step.end(), step.time);
            self.last_epoch = step.epoch;
        }
        self.persisted = self.persisted.min(last);
        (self.overlay, self.numbered) = (IdQueue::default(), Producers::default());
        let steps = std::mem::take(&mut self.steps);
        steps.iter().for_each(|step| self.note_way(step));
        self.steps = steps;
        self.memory.cut_after(last)
    }

    /// Applies what is committed up to `commit`, as far as this node's disk has it. Whoever leads
    /// answers clients entry by entry instead.
    pub fn apply_to(&mut self, commit: EntryIndex) {
        let commit = commit.min(self.persisted);
        while self.advance_to(commit).is_some() {}
    }

    /// The epoch of an entry, where the log or what is remembered of it says so.
    #[must_use]
    pub fn epoch_at(&self, index: EntryIndex) -> Option<Epoch> {
        match index.0.checked_sub(self.commit().0 + 1) {
            Some(above) => self.steps.get(above as usize).map(|step| step.epoch),
            None => self.state.epochs.at(index),
        }
    }

    /// Where each reign begins in the log, ascending.
    #[must_use]
    pub fn epochs(&self) -> Vec<(Epoch, EntryIndex)> {
        let mut starts = self.state.epochs.to_vec();
        let mut last = self.state.epoch;
        let mut at = self.steps.partition_point(|step| step.epoch <= last);
        while let Some(step) = self.steps.get(at) {
            starts.push((step.epoch, step.index));
            last = step.epoch;
            at = self.steps.partition_point(|step| step.epoch <= last);
        }
        let surplus = starts.len().saturating_sub(super::EPOCHS_MAX);
        starts.split_off(surplus)
    }
}
