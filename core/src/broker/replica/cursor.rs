//! What a subscription has acknowledged of a partition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::Attempt;
use super::runs::Runs;
use crate::ids::{ChangeIndex, Offset};
use crate::machine::WallTime;

/// How many runs of acknowledged messages a cursor keeps above its floor.
pub const CURSOR_RUNS_MAX: usize = 100_000;

/// Everything below `floor`, and the runs above it, are acknowledged.
///
/// Invariants, checked by [`Cursor::check`]: (1) the runs lie above the floor and do not touch it;
/// (2) attempts are kept only of messages not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The change that made the subscription.
    created: ChangeIndex,
    floor: Offset,
    above: Runs,
    /// The number of the delivery that is due or was the last, where it is not the first, and
    /// since when it is due.
    attempts: BTreeMap<Offset, (u32, WallTime)>,
}

impl Cursor {
    /// A cursor that has acknowledged all below `floor`.
    pub(crate) fn at(created: ChangeIndex, floor: Offset) -> Self {
        Self { created, floor, ..Self::default() }
    }

    /// The change that made the subscription.
    pub(crate) fn created(&self) -> ChangeIndex {
        self.created
    }

    /// Everything below is acknowledged.
    pub(crate) fn floor(&self) -> Offset {
        self.floor
    }

    /// How many runs there are.
    pub(crate) fn runs_len(&self) -> usize {
        self.above.len()
    }

    /// Whether the message is acknowledged.
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        offset < self.floor || self.above.at(offset).is_some()
    }

    /// The first offset not below `from` that is not acknowledged.
    pub(crate) fn first_open(&self, from: Offset) -> Offset {
        let from = from.max(self.floor);
        self.above.at(from).map_or(from, |(_, end)| end)
    }

    /// How many attempts at the message are committed; 1 where none is.
    pub(crate) fn attempts(&self, offset: Offset) -> u32 {
        self.attempts.get(&offset).map_or(1, |&(number, _)| number)
    }

    /// The messages that were tried before, each with its next delivery.
    pub(crate) fn tried(&self) -> impl Iterator<Item = Attempt> {
        let tried = self.attempts.iter();
        tried.map(|(&offset, &(number, due))| Attempt { offset, number, due })
    }

    /// Acknowledges one message.
    pub(crate) fn acknowledge(&mut self, offset: Offset) {
        self.cover(offset, offset.next());
    }

    /// Notes that a message will be delivered again.
    pub(crate) fn attempt(&mut self, attempt: &Attempt) {
        let &Attempt { offset, number, due } = attempt;
        if !self.contains(offset) && number >= self.attempts(offset) {
            self.attempts.insert(offset, (number, due));
        }
    }

    /// Acknowledges `first..end`.
    pub(crate) fn cover(&mut self, first: Offset, end: Offset) {
        let first = first.max(self.floor);
        if first >= end {
            return;
        }
        self.above.cover(first, end);
        if let Some(end) = self.above.take_from(self.floor) {
            self.floor = end;
        }
        let covered: Vec<Offset> = self.attempts.range(first..end).map(|(&at, _)| at).collect();
        covered.iter().for_each(|at| {
            self.attempts.remove(at);
        });
    }

    /// Breaks the first invariant.
    #[cfg(test)]
    pub(crate) fn contradict(&mut self) {
        self.above.cover(self.floor, self.floor.next());
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.above.check()?;
        if let Some((first, end)) = self.above.iter().next()
            && first <= self.floor
        {
            return Err(format!("run {first}..{end} at the floor {}", self.floor));
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
            let mut cursor = Cursor::at(ChangeIndex(1), Offset(start));
            let mut set: BTreeSet<u64> = (0..start).collect();
            for &offset in &tried {
                cursor.attempt(&Attempt { offset: Offset(offset), number: 2, due: WallTime(0) });
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
        }
    }
}
