//! What a subscription has acknowledged of a partition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Offset;

/// How many runs of acknowledged messages a cursor keeps above its floor.
pub const CURSOR_RUNS_MAX: usize = 4_096;

/// Everything below `floor`, and the runs above it, are acknowledged.
///
/// Invariants, checked by [`Cursor::check`]: (1) runs are not empty, lie above the floor and do
/// not touch it or one another; (2) attempts are kept only of messages not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Cursor {
    floor: Offset,
    /// From the first of a run to before its last.
    above: BTreeMap<Offset, Offset>,
    /// The number of the delivery that is due or was the last, where it is not the first.
    attempts: BTreeMap<Offset, u32>,
}

impl Cursor {
    /// A cursor that has acknowledged all below `floor`.
    pub(crate) fn at(floor: Offset) -> Self {
        Self { floor, ..Self::default() }
    }

    /// Everything below is acknowledged.
    pub(crate) fn floor(&self) -> Offset {
        self.floor
    }

    /// The runs above the floor, ascending.
    pub(crate) fn runs(&self) -> Vec<(Offset, Offset)> {
        self.above.iter().map(|(&first, &end)| (first, end)).collect()
    }

    /// How many runs there are.
    pub(crate) fn runs_len(&self) -> usize {
        self.above.len()
    }

    /// Whether the message is acknowledged.
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        offset < self.floor || self.run_at(offset).is_some()
    }

    /// The first offset not below `from` that is not acknowledged.
    pub(crate) fn first_open(&self, from: Offset) -> Offset {
        let from = from.max(self.floor);
        self.run_at(from).map_or(from, |(_, end)| end)
    }

    /// How many attempts at the message are committed; 1 where none is.
    pub(crate) fn attempts(&self, offset: Offset) -> u32 {
        self.attempts.get(&offset).copied().unwrap_or(1)
    }

    /// Acknowledges one message.
    pub(crate) fn acknowledge(&mut self, offset: Offset) {
        self.cover(offset, offset.next());
    }

    /// Takes over what a committed entry says; progress is never taken back.
    pub(crate) fn progress(&mut self, floor: Offset, above: &[(Offset, Offset)]) {
        if floor > self.floor {
            self.cover(self.floor, floor);
        }
        above.iter().for_each(|&(first, end)| self.cover(first, end));
    }

    /// Notes that an attempt is about to be delivered.
    pub(crate) fn attempt(&mut self, offset: Offset, number: u32) {
        if !self.contains(offset) {
            let attempts = self.attempts.entry(offset).or_insert(number);
            *attempts = number.max(*attempts);
        }
    }

    fn run_at(&self, offset: Offset) -> Option<(Offset, Offset)> {
        let (&first, &end) = self.above.range(..=offset).next_back()?;
        (offset < end).then_some((first, end))
    }

    /// Marks `first..end` as acknowledged and joins what touches.
    fn cover(&mut self, first: Offset, end: Offset) {
        let (mut first, mut end) = (first.max(self.floor), end);
        if first >= end {
            return;
        }
        if let Some((&before, &its_end)) = self.above.range(..=first).next_back()
            && its_end >= first
        {
            first = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.above.range(first..=end).next() {
            self.above.remove(&next);
            end = end.max(its_end);
        }
        if first == self.floor {
            self.floor = end;
        } else {
            self.above.insert(first, end);
        }
        let covered: Vec<Offset> = self.attempts.range(first..end).map(|(&at, _)| at).collect();
        covered.iter().for_each(|at| {
            self.attempts.remove(at);
        });
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let mut last = self.floor;
        for (&first, &end) in &self.above {
            if first <= last || end <= first {
                return Err(format!("run {first}..{end} after {last}"));
            }
            last = end;
        }
        match self.attempts.keys().find(|&&offset| self.contains(offset)) {
            Some(offset) => Err(format!("an attempt at {offset}, which is acknowledged")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, FileFailurePersistence};
    use std::collections::BTreeSet;

    const REGRESSIONS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/cursor.txt");

    proptest! {
        #![proptest_config(Config {
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
            ..Config::default()
        })]

        /// A cursor is a set of offsets, whatever the order of the acknowledgements.
        #[test]
        fn a_cursor_is_a_set(
            start in 0u64..5,
            acks in prop::collection::vec(0u64..40, 0..60),
            tried in prop::collection::vec(0u64..40, 0..9),
        ) {
            let mut cursor = Cursor::at(Offset(start));
            let mut set: BTreeSet<u64> = (0..start).collect();
            for &offset in &tried {
                cursor.attempt(Offset(offset), 2);
            }
            for &offset in &acks {
                cursor.acknowledge(Offset(offset));
                set.insert(offset);
                prop_assert_eq!(cursor.check(), Ok(()));
            }
            for offset in 0..41 {
                prop_assert_eq!(cursor.contains(Offset(offset)), set.contains(&offset));
                let open = (offset..).find(|at| !set.contains(at));
                prop_assert_eq!(Some(cursor.first_open(Offset(offset)).0), open);
                let again = tried.contains(&offset) && !set.contains(&offset);
                let attempts = if again { 2 } else { 1 };
                prop_assert_eq!(cursor.attempts(Offset(offset)), attempts);
            }
            let mut copy = Cursor::at(Offset(start));
            copy.progress(cursor.floor(), &cursor.runs());
            prop_assert_eq!((copy.floor(), copy.runs()), (cursor.floor(), cursor.runs()));
        }
    }
}
