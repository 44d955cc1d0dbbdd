//! Where in a log each reign begins: by this two logs find the last entry that both have, without
//! comparing entries.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::ids::{EntryIndex, Epoch};

/// How many reigns a log remembers the beginnings of.
pub const EPOCHS_MAX: usize = 1_024;

/// The first entry of each reign, ascending.
///
/// Invariants, checked by [`Epochs::check`]: (1) epochs and indexes rise; (2) there are at most
/// [`EPOCHS_MAX`], and the oldest give way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Epochs {
    starts: VecDeque<(Epoch, EntryIndex)>,
}

/// Where two logs part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    /// This is the last entry that both have; 0 where they have none.
    At(EntryIndex),
    /// It is too long ago for what is remembered.
    Forgotten,
}

impl Epochs {
    /// An entry is appended that may be the first of its reign.
    pub(crate) fn push(&mut self, epoch: Epoch, index: EntryIndex) {
        if self.starts.back().is_some_and(|&(last, _)| last >= epoch) {
            return;
        }
        self.starts.push_back((epoch, index));
        if self.starts.len() > EPOCHS_MAX {
            self.starts.pop_front();
        }
    }

    /// The epoch of an entry, where it is remembered.
    pub(crate) fn at(&self, index: EntryIndex) -> Option<Epoch> {
        let after = self.starts.partition_point(|&(_, start)| start <= index);
        after.checked_sub(1).map(|at| self.starts[at].0)
    }

    /// The first entry whose epoch is remembered.
    pub(crate) fn first(&self) -> Option<EntryIndex> {
        self.starts.front().map(|&(_, start)| start)
    }

    pub(crate) fn to_vec(&self) -> Vec<(Epoch, EntryIndex)> {
        self.starts.iter().copied().collect()
    }

    /// Checks the invariants.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rises = |(a, b): (&(Epoch, EntryIndex), &(Epoch, EntryIndex))| a.0 < b.0 && a.1 < b.1;
        if !self.starts.iter().zip(self.starts.iter().skip(1)).all(rises) {
            return Err(format!("epochs that do not rise: {:?}", self.starts));
        }
        match self.starts.len() {
            len if len > EPOCHS_MAX => Err(format!("{len} epochs, the bound is {EPOCHS_MAX}")),
            _ => Ok(()),
        }
    }
}

/// The last entry that a log, with these `starts` and this `last` entry, shares with a leader's,
/// with those. The leader's end with the start of its own reign, so that the end of every earlier
/// one is known, and stays so however often and late this is asked.
pub(crate) fn common(
    starts: &[(Epoch, EntryIndex)],
    last: EntryIndex,
    leaders: &[(Epoch, EntryIndex)],
) -> Common {
    let Some(&(reign, _)) = leaders.last() else { return Common::Forgotten };
    if last == EntryIndex(0) {
        return Common::At(last);
    }
    let mut end = last;
    for &(epoch, start) in starts.iter().rev() {
        // What this log has of the leader's own reign, the leader has sent.
        if epoch == reign {
            return Common::At(last);
        }
        if let Ok(at) = leaders.binary_search_by_key(&epoch, |&(epoch, _)| epoch) {
            let leaders_end = EntryIndex(leaders[at + 1].1.0 - 1);
            return Common::At(end.min(leaders_end));
        }
        end = EntryIndex(start.0 - 1);
    }
    let begins = |starts: &[(Epoch, EntryIndex)]| starts[0].1 == EntryIndex(1);
    let from_the_beginning = !starts.is_empty() && begins(starts) && begins(leaders);
    if from_the_beginning { Common::At(EntryIndex(0)) } else { Common::Forgotten }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starts(of: &[u64]) -> Vec<(Epoch, EntryIndex)> {
        let mut epochs = Epochs::default();
        for (index, epoch) in (1..).zip(of) {
            epochs.push(Epoch(*epoch), EntryIndex(index));
        }
        epochs.to_vec()
    }

    /// The last common entry of two logs, given as the epochs of their entries.
    fn parts(mine: &[u64], leaders: &[u64]) -> Common {
        common(&starts(mine), EntryIndex(mine.len() as u64), &starts(leaders))
    }

    #[test]
    fn logs_part_where_their_epochs_do() {
        let at = |index| Common::At(EntryIndex(index));
        assert_eq!(parts(&[], &[1, 2]), at(0));
        assert_eq!(parts(&[1, 1], &[1, 1, 1, 2]), at(2));
        assert_eq!(parts(&[1, 1, 1, 1], &[1, 1, 3]), at(2));
        assert_eq!(parts(&[1, 2, 2], &[1, 1, 3]), at(1));
        assert_eq!(parts(&[1, 1, 3, 3], &[1, 1, 3]), at(4), "an old question cuts nothing");
        assert_eq!(parts(&[2, 2], &[1, 3]), at(0));
        assert_eq!(parts(&[1], &[]), Common::Forgotten);
    }

    #[test]
    fn what_is_forgotten_is_not_guessed() {
        let late = [(Epoch(7), EntryIndex(50)), (Epoch(9), EntryIndex(60))];
        let mine = starts(&[1, 1, 2]);
        assert_eq!(common(&mine, EntryIndex(3), &late), Common::Forgotten);
        let mut epochs = Epochs::default();
        for number in 1..=EPOCHS_MAX as u64 + 3 {
            epochs.push(Epoch(number), EntryIndex(2 * number));
            epochs.push(Epoch(number), EntryIndex(2 * number + 1));
            assert_eq!(epochs.check(), Ok(()));
        }
        assert_eq!(epochs.at(EntryIndex(7)), None);
        assert_eq!(epochs.at(EntryIndex(9)), Some(Epoch(4)));
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..Default::default()
        })]

        /// Any two logs that grew out of common ones part where comparing entries says so.
        #[test]
        fn epochs_find_what_comparing_entries_finds(
            shared in prop::collection::vec(0_u64..2, 0..8),
            mine in prop::collection::vec(0_u64..2, 0..8),
            others in prop::collection::vec(0_u64..2, 0..8),
        ) {
            // Steps become epochs; from where the logs part, they have different ones.
            let grow = |from: &[u64], steps: &[u64], odd: u64| {
                let mut epochs = from.to_vec();
                let mut last = epochs.last().copied().unwrap_or(0);
                for step in steps {
                    let next = last + 2 * step;
                    last = if next % 2 == odd && next > 0 { next } else { next + 1 };
                    epochs.push(last);
                }
                epochs
            };
            let shared = grow(&[], &shared, 0);
            let before = shared.last().copied().unwrap_or(0);
            let mine = grow(&shared, &mine, 0);
            let mut leaders = grow(&shared, &others, 1);
            let last = |epochs: &[u64]| epochs.last().copied().unwrap_or(0);
            leaders.push(last(&leaders).max(last(&mine)) + 1);
            // A reign that both went on with is of one leader only: one of the logs is its own.
            let one_leader = mine.len() == shared.len()
                || mine[shared.len()] != before
                || leaders[shared.len()] != before;
            prop_assume!(one_leader);
            let same = mine.iter().zip(&leaders).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(parts(&mine, &leaders), Common::At(EntryIndex(same as u64)));
        }
    }
}
