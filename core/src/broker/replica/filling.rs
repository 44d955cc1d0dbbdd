//! A replica that was given its state before the entries that the state was made from: until it has
//! those that are retained, or that the dedup window is read back from, its log ends before its
//! state. It leads nothing, and nobody counts on it.

use super::entry::{BadEntry, Record};
use super::state::{State, Step};
use super::{Checkpoint, Replica};
use crate::ids::{EntryIndex, Epoch, Offset, PartitionId};
use crate::machine::WallTime;
use crate::zoo::{Bug, planted};

/// How far such a log is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    /// The entry that comes next.
    next: EntryIndex,
    /// What it must not be before: the last one's epoch, end and time.
    follows: Option<(Epoch, Offset, WallTime)>,
}

impl Filling {
    /// A log that has everything from where it begins to before `next`.
    pub(super) fn new(next: EntryIndex, follows: Option<(Epoch, Offset, WallTime)>) -> Self {
        Self { next, follows }
    }

    /// The last entry that is there, or is on its way to the disk; the one before the first where
    /// there is none.
    pub(super) fn last(&self) -> EntryIndex {
        EntryIndex(self.next.0 - 1)
    }
}

impl Replica {
    /// A replica that was given its state and nothing else: its log is to begin at `begins`.
    pub(super) fn installed(id: PartitionId, mut state: State, begins: EntryIndex) -> Self {
        let lacks_some = begins <= state.applied && !planted(Bug::RetainedNotCopied);
        state.is_hollow = lacks_some;
        let filling = lacks_some.then(|| Filling::new(begins, None));
        Self::recovered(id, state, Vec::new(), None, filling)
    }

    /// The state to give to a replica that lacks what was removed.
    pub(super) fn image(&self) -> Checkpoint {
        Checkpoint { from: self.begins(), ..self.state.hollow(self.id) }
    }

    /// How far the log is, where it ends before the state.
    pub(super) fn lacking(&self) -> Option<&Filling> {
        self.filling.as_ref().filter(|filling| filling.next <= self.commit())
    }

    /// Whether the log, as far as it is durable, ends before the state.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// The first entry that a replica has that lacks nothing: what is retained, and what the dedup
    /// window is read back from.
    #[must_use]
    pub fn begins(&self) -> EntryIndex {
        self.state.begins()
    }

    /// Takes the next entry that the state was made from.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when it does not follow the last one, or is not what the state was made from;
    /// then nothing was taken.
    pub(super) fn fill(&mut self, filling: Filling, record: &Record) -> Result<(), BadEntry> {
        let (header, state) = (record.header(), &mut self.state);
        let step = Step::read(record)?;
        let reached = (step.epoch, step.end(), step.time);
        let follows = filling.follows.is_none_or(|(epoch, end, time)| {
            header.epoch >= epoch && header.offset == end && header.time >= time
        });
        let is_last = header.index == state.applied;
        let ends_there = reached == (state.epoch, state.end, state.time);
        if header.index != filling.next || !follows || is_last && !ends_there {
            return Err(BadEntry::Malformed(format!("{header:?} while filling at {filling:?}")));
        }
        state.remember(&step);
        self.memory.push(record.clone());
        self.filling = Some(Filling::new(header.index.next(), Some(reached)));
        Ok(())
    }

    /// So much is durable: whole is what has all of it.
    pub(super) fn filled_to(&mut self, index: EntryIndex) {
        if self.is_filling() && index >= self.commit() {
            self.filling = None;
            self.state.is_hollow = false;
            self.state.window.advance(self.state.time);
            // The next start is not to look for what is missing.
            self.checkpointed.due = true;
        }
    }
}
