//! The newest number of each producer, decided by the partition's entries alone.
//!
//! The window of ids ends after two minutes or a million messages. A producer that numbers its
//! messages needs none: one number each tells a repeat from what is new, at any rate, for as long
//! as the producer is among the newest ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, ProducerId, Sequence};

/// How many producers a partition remembers; beyond, the one is forgotten that stored the least
/// lately.
pub const PRODUCERS_MAX: usize = 10_000;

/// A producer's newest message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) number: u64,
    pub(crate) offset: Offset,
}

/// The newest message of each producer.
///
/// Invariant, checked by [`Producers::check`]: `order` and `newest` name the same producers, each
/// once. A state holds at most [`PRODUCERS_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    newest: BTreeMap<ProducerId, Newest>,
    order: BTreeMap<Offset, ProducerId>,
}

impl Producers {
    /// As they were stored.
    pub(crate) fn from_stored(newest: BTreeMap<ProducerId, Newest>) -> Self {
        let of = |(producer, newest): (&ProducerId, &Newest)| (newest.offset, producer.clone());
        let order = newest.iter().map(of).collect();
        Self { newest, order }
    }

    /// What is stored of them.
    pub(crate) fn to_stored(&self) -> BTreeMap<ProducerId, Newest> {
        self.newest.clone()
    }

    /// A producer's newest message.
    pub(crate) fn find(&self, producer: &ProducerId) -> Option<Newest> {
        self.newest.get(producer).copied()
    }

    /// A numbered message is stored at this offset. A number that is not above the newest one
    /// changes nothing.
    pub(crate) fn insert(&mut self, sequence: &Sequence, offset: Offset) {
        let Sequence { producer, number } = sequence;
        let before = self.newest.get(producer);
        if before.is_some_and(|before| before.number >= *number) {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&before.offset);
        }
        self.newest.insert(producer.clone(), Newest { number: *number, offset });
        self.order.insert(offset, producer.clone());
    }

    /// Forgets those that are too many.
    pub(crate) fn forget(&mut self) {
        while self.newest.len() > PRODUCERS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.newest.remove(&oldest);
        }
    }

    /// Forgets a message, if it is its producer's newest.
    pub(crate) fn remove(&mut self, sequence: &Sequence, offset: Offset) {
        if self.order.remove(&offset).is_some() {
            self.newest.remove(&sequence.producer);
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.newest.len()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.newest.len() != self.order.len() {
            return Err(format!("{} producers, {} in order", self.newest.len(), self.order.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(producer: usize, number: u64) -> Sequence {
        Sequence { producer: format!("p{producer}").parse().expect("a name"), number }
    }

    #[test]
    fn the_newest_number_counts_and_only_that() {
        let mut producers = Producers::default();
        producers.insert(&sequence(1, 5), Offset(0));
        producers.insert(&sequence(1, 9), Offset(1));
        producers.insert(&sequence(1, 7), Offset(2));
        let found = producers.find(&sequence(1, 0).producer);
        assert_eq!(found, Some(Newest { number: 9, offset: Offset(1) }));
        producers.remove(&sequence(1, 7), Offset(2));
        assert_eq!(producers.len(), 1);
        assert_eq!(producers.check(), Ok(()));
    }

    #[test]
    fn the_one_that_stored_least_lately_is_forgotten() {
        let mut producers = Producers::default();
        for number in 0..PRODUCERS_MAX {
            producers.insert(&sequence(number, 1), Offset(number as u64));
            producers.forget();
        }
        producers.insert(&sequence(0, 2), Offset(PRODUCERS_MAX as u64));
        producers.insert(&sequence(PRODUCERS_MAX, 1), Offset(PRODUCERS_MAX as u64 + 1));
        producers.forget();
        assert_eq!(producers.find(&sequence(1, 0).producer), None);
        assert!(producers.find(&sequence(0, 0).producer).is_some());
        assert_eq!(producers.check(), Ok(()));
        let again = Producers::from_stored(producers.to_stored());
        assert_eq!((again.len(), again.check()), (PRODUCERS_MAX, Ok(())));
    }
}
