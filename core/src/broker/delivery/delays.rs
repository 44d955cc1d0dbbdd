//! Messages that are not due yet: the leader's timer queue over the committed ones.

use std::collections::BTreeSet;

use crate::ids::Offset;
use crate::machine::WallTime;

/// What waits for its time.
///
/// Invariant: both sets name the same messages.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    by_time: BTreeSet<(WallTime, Offset)>,
    offsets: BTreeSet<Offset>,
}

impl Delays {
    pub(crate) fn insert(&mut self, due: WallTime, offset: Offset) {
        if self.offsets.insert(offset) {
            self.by_time.insert((due, offset));
        }
    }

    /// The messages that wait, by offset.
    pub(crate) fn offsets(&self) -> &BTreeSet<Offset> {
        &self.offsets
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<WallTime> {
        self.by_time.first().map(|&(due, _)| due)
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: WallTime) -> Option<Offset> {
        let &(due, offset) = self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.pop_first();
        self.offsets.remove(&offset);
        Some(offset)
    }

    /// Messages below `below` are gone.
    pub(crate) fn trim(&mut self, below: Offset) {
        if self.offsets.first().is_some_and(|&first| first < below) {
            self.offsets = self.offsets.split_off(&below);
            self.by_time.retain(|&(_, offset)| offset >= below);
        }
    }
}
