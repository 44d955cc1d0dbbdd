//! Messages that are delivered out of the log's order: those tried before, those that were
//! delayed, those of another priority than the normal one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

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

    /// The most urgent of those that are more urgent than normal.
    pub(crate) fn first_urgent(&self) -> Option<Offset> {
        let normal = (Reverse(Priority::NORMAL), Offset(0));
        self.order.range(..normal).next().map(|&(_, offset)| offset)
    }

    /// The first of normal priority.
    pub(crate) fn first_normal(&self) -> Option<Offset> {
        let of = |offset| (Reverse(Priority::NORMAL), offset);
        let range = of(Offset(0))..=of(Offset(u64::MAX));
        self.order.range(range).next().map(|&(_, offset)| offset)
    }

    /// The most urgent of those that are less urgent than normal.
    pub(crate) fn first_idle(&self) -> Option<Offset> {
        let normal = (Reverse(Priority::NORMAL), Offset(u64::MAX));
        let after = (Bound::Excluded(normal), Bound::Unbounded);
        self.order.range(after).next().map(|&(_, offset)| offset)
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
