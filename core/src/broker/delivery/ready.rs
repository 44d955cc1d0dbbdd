//! Messages that are delivered out of the log's order: those tried before, those that were
//! delayed, those of another priority than the normal one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Offset, Priority};

/// Messages that may be delivered now, the most urgent first, then by offset.
///
/// Invariant: `order` and `held` name the same messages.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    order: BTreeSet<(Reverse<Priority>, Offset)>,
    /// Priority and number of the delivery that is next.
    held: BTreeMap<Offset, (Priority, u32)>,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn insert(&mut self, offset: Offset, priority: Priority, attempt: u32) {
        self.remove(offset);
        self.held.insert(offset, (priority, attempt));
        self.order.insert((Reverse(priority), offset));
    }

    /// Takes a message out; gives its priority and the number of its next delivery.
    pub(crate) fn remove(&mut self, offset: Offset) -> Option<(Priority, u32)> {
        let (priority, attempt) = self.held.remove(&offset)?;
        self.order.remove(&(Reverse(priority), offset));
        Some((priority, attempt))
    }

    pub(crate) fn contains(&self, offset: Offset) -> bool {
        self.held.contains_key(&offset)
    }

    /// The one that is next.
    pub(crate) fn first(&self) -> Option<(Priority, Offset)> {
        self.order.first().map(|&(Reverse(priority), offset)| (priority, offset))
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.held.keys().copied()
    }

    /// Forgets what lies below an offset.
    pub(crate) fn trim(&mut self, below: Offset) {
        let gone: Vec<Offset> = self.held.range(..below).map(|(&offset, _)| offset).collect();
        gone.into_iter().for_each(|offset| {
            self.remove(offset);
        });
    }
}
