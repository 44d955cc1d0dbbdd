//! A set of offsets, kept as runs: what is acknowledged lies together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Offset;

/// Runs of offsets, each from its first to before its last.
///
/// Invariant, checked by [`Runs::check`]: no run is empty, and no two touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Runs(BTreeMap<Offset, Offset>);

impl Runs {
    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The run that holds an offset.
    pub(crate) fn at(&self, offset: Offset) -> Option<(Offset, Offset)> {
        let (&first, &end) = self.0.range(..=offset).next_back()?;
        (offset < end).then_some((first, end))
    }

    /// Adds `first..end` and joins what touches.
    pub(crate) fn cover(&mut self, mut first: Offset, mut end: Offset) {
        if first >= end {
            return;
        }
        if let Some((&before, &its_end)) = self.0.range(..=first).next_back()
            && its_end >= first
        {
            first = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.0.range(first..=end).next() {
            self.0.remove(&next);
            end = end.max(its_end);
        }
        self.0.insert(first, end);
    }

    /// Takes the lowest run if it begins at or below `offset`; gives its end.
    pub(crate) fn take_from(&mut self, offset: Offset) -> Option<Offset> {
        let first = self.0.first_entry()?;
        (*first.key() <= offset).then(|| first.remove())
    }

    /// The runs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Offset, Offset)> {
        self.0.iter().map(|(&first, &end)| (first, end))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let mut last = None;
        for (first, end) in self.iter() {
            if last.is_some_and(|last| first <= last) || end <= first {
                return Err(format!("run {first}..{end} after {last:?}"));
            }
            last = Some(end);
        }
        Ok(())
    }
}
