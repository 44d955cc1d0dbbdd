//! A queue of ids in which each is found for one or two cache misses, however long it is.
//!
//! A table beside the queue says where in it an id stands. A place of the table is four bytes, the
//! low bits of the entry's number and a few of its hash, in one of two buckets of a cache line
//! each, which the id names. What left the queue is not taken out of the table: its number is out
//! of bounds, and the next id that comes by takes the place. Ids are unkeyed hashes, so a client
//! can choose many that name the same buckets: what finds both full goes into a tree, and so costs
//! what every id would cost in one, and nobody else more. A table that becomes too small is
//! replaced little by little: nothing waits until a million ids have moved.

use std::collections::{BTreeMap, VecDeque, vec_deque};

use crate::ids::IdHash;

/// Places in a bucket: a cache line of them.
const BUCKET_PLACES: usize = 16;
/// How many ids there are to a bucket when the table is doubled.
const BUCKET_IDS: usize = 10;
/// Up to how many ids are found by looking at all of them, without a table.
const SCANNED_MAX: usize = 8;
/// How many ids move into a new table with each that comes or goes.
const MOVED_AT_ONCE: usize = 4;
/// How many bits of an entry's number are in its place. The rest of it are the id's.
const NUMBER_BITS: u32 = 22;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;
/// How many entries can be told apart by that; what is further behind goes into the tree.
const NUMBERED_MAX: usize = 1 << NUMBER_BITS;
/// A queue that is this many times shorter than what it has room for gives the room back.
const SLACK: usize = 8;

/// What no entry's place is: its bits of the id are never none.
const EMPTY: u32 = 0;

// A doubled table has taken in all of the one before long before it is full itself.
const _: () = assert!(MOVED_AT_ONCE >= 2);

/// Ids in the order in which they came, each once, with a value each. It keeps the room of `KEPT`
/// entries when it becomes shorter.
///
/// Invariant, checked by [`IdQueue::check`]: each entry is found under its id.
#[derive(Clone, Debug)]
pub(crate) struct IdQueue<T, const KEPT: usize> {
    entries: VecDeque<Entry<T>>,
    /// The number of the first entry; numbers rise by one.
    first: u64,
    /// Empty as long as there are few entries.
    table: Table,
    /// The table before, and the numbers of the entries that only it knows.
    before: Option<(Table, u64, u64)>,
    /// The numbers of the entries for which no table had a place.
    spilled: BTreeMap<IdHash, u64>,
}

impl<T, const KEPT: usize> IntoIterator for IdQueue<T, KEPT> {
    type Item = (IdHash, T);
    type IntoIter = std::iter::Map<vec_deque::IntoIter<Entry<T>>, fn(Entry<T>) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter().map(|Entry { id, value }| (id_of(id), value))
    }
}

/// An id in two words, so that an entry needs no more alignment than its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<T> {
    id: [u64; 2],
    value: T,
}

/// Buckets, each a cache line.
#[derive(Clone, Debug, Default)]
struct Table(Vec<Bucket>);

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u32; BUCKET_PLACES]);

impl<T, const KEPT: usize> Default for IdQueue<T, KEPT> {
    fn default() -> Self {
        let (entries, spilled) = (VecDeque::new(), BTreeMap::new());
        Self { entries, first: 0, table: Table::default(), before: None, spilled }
    }
}

impl<T, const KEPT: usize> IdQueue<T, KEPT> {
    /// How many ids there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of an id, if it is there.
    pub(crate) fn find(&self, id: IdHash) -> Option<&T> {
        self.position(id).map(|at| &self.entries[at].value)
    }

    /// The value of the first id.
    pub(crate) fn front(&self) -> Option<&T> {
        self.entries.front().map(|entry| &entry.value)
    }

    /// Puts an id behind all others; one that is there stays as it is, and its value is given.
    pub(crate) fn push(&mut self, id: IdHash, value: T) -> Option<&mut T> {
        if let Some(at) = self.position(id) {
            return Some(&mut self.entries[at].value);
        }
        self.entries.push_back(Entry { id: words(id), value });
        if self.entries.len() > self.table.ids_max() {
            self.double();
        }
        self.place(self.first + self.entries.len() as u64 - 1);
        self.move_some(MOVED_AT_ONCE);
        None
    }

    /// Takes the first id out.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        if !self.spilled.is_empty() {
            self.spilled.remove(&id_of(entry.id));
        }
        self.move_some(MOVED_AT_ONCE);
        let room = self.entries.capacity();
        if room > KEPT && self.entries.len() < room / SLACK {
            self.shrink();
        }
        Some(entry.value)
    }

    /// Takes the first id out if it is this one.
    pub(crate) fn pop_if(&mut self, id: IdHash) -> Option<T> {
        if self.entries.front()?.id == words(id) { self.pop() } else { None }
    }

    /// Checks that each of the last entries is found.
    pub(crate) fn check(&self) -> Result<(), String> {
        let end = self.entries.len();
        for at in [0, end / 2, end.saturating_sub(1)] {
            if let Some(entry) = self.entries.get(at)
                && self.position(id_of(entry.id)) != Some(at)
            {
                return Err(format!("entry {at} of {end} is not found"));
            }
        }
        Ok(())
    }

    fn position(&self, id: IdHash) -> Option<usize> {
        let id = words(id);
        if self.table.0.is_empty() {
            return self.entries.iter().position(|entry| entry.id == id);
        }
        let tables = [Some(&self.table), self.before.as_ref().map(|(table, ..)| table)];
        let found = tables.into_iter().flatten().find_map(|table| {
            let places = table.buckets(id).into_iter().flat_map(|bucket| table.0[bucket].0);
            let alike = places.filter(|place| place >> NUMBER_BITS == tag(id));
            let mut positions = alike.map(|place| self.position_of(place));
            positions.find(|&at| self.entries.get(at).is_some_and(|entry| entry.id == id))
        });
        found.or_else(|| {
            let spilled = (!self.spilled.is_empty()).then(|| self.spilled.get(&id_of(id)));
            spilled.flatten().map(|number| (number - self.first) as usize)
        })
    }

    /// Where the entry of a place stands, if it is still there; behind the last one, if not.
    fn position_of(&self, place: u32) -> usize {
        (place.wrapping_sub(self.first as u32) & NUMBER_MASK) as usize
    }

    /// Puts an entry into the table, if there is one.
    fn place(&mut self, number: u64) {
        if self.table.0.is_empty() {
            return;
        }
        let at = (number - self.first) as usize;
        let id = self.entries[at].id;
        let place = (number as u32 & NUMBER_MASK) | tag(id) << NUMBER_BITS;
        // Free is also what belonged to an entry that is gone.
        let is_free = |place: u32| place == EMPTY || self.position_of(place) >= self.entries.len();
        let [one, other] = self.table.buckets(id).map(|bucket| {
            let places = self.table.0[bucket].0;
            let free = places.iter().filter(|&&place| is_free(place)).count();
            (free, bucket, places.iter().position(|&place| is_free(place)))
        });
        let (_, bucket, free) = if other.0 > one.0 { other } else { one };
        match free.filter(|_| at < NUMBERED_MAX) {
            Some(free) => self.table.0[bucket].0[free] = place,
            None => {
                self.spilled.insert(id_of(id), number);
            }
        }
    }

    /// Begins a table of twice the size, or the first one.
    fn double(&mut self) {
        self.move_some(usize::MAX);
        // The last one has no place yet.
        let end = self.first + self.entries.len() as u64 - 1;
        let doubled = Table::new(2 * self.table.0.len().max(1));
        let before = std::mem::replace(&mut self.table, doubled);
        self.before = Some((before, self.first, end));
        if self.entries.len() <= 2 * SCANNED_MAX {
            // There was none.
            self.move_some(usize::MAX);
        }
    }

    /// Moves entries from the table before into the new one.
    fn move_some(&mut self, count_max: usize) {
        let Some((_, from, end)) = self.before else { return };
        let from = from.max(self.first);
        let until = from.saturating_add(count_max as u64).min(end);
        for number in from..until {
            let id = id_of(self.entries[(number - self.first) as usize].id);
            if !self.spilled.contains_key(&id) {
                self.place(number);
            }
        }
        if until >= end {
            self.before = None;
        } else if let Some((_, from, _)) = &mut self.before {
            *from = until;
        }
    }

    /// Gives room back.
    fn shrink(&mut self) {
        let len = self.entries.len();
        self.entries.shrink_to((2 * len).max(KEPT));
        self.before = None;
        self.spilled = BTreeMap::new();
        self.table = Table::default();
        if len > SCANNED_MAX {
            self.table = Table::new((2 * len).div_ceil(BUCKET_IDS).next_power_of_two());
            (0..len as u64).for_each(|at| self.place(self.first + at));
        }
    }
}

impl Table {
    fn new(buckets: usize) -> Self {
        Self(vec![Bucket([EMPTY; BUCKET_PLACES]); buckets])
    }

    /// For how many entries it is large enough; for a few, none is.
    fn ids_max(&self) -> usize {
        (self.0.len() * BUCKET_IDS).max(SCANNED_MAX)
    }

    /// The two buckets of an id. The high half of a hash is alike in all ids of a partition, which
    /// is a range of it; the low half is not.
    fn buckets(&self, id: [u64; 2]) -> [usize; 2] {
        let of = |hash: u64| (((hash & u64::from(u32::MAX)) * self.0.len() as u64) >> 32) as usize;
        [of(id[1]), of(id[1] >> 32)]
    }
}

/// The bits of an id that are in its place; never none, so that no place is [`EMPTY`].
fn tag(id: [u64; 2]) -> u32 {
    (id[0] as u32 >> NUMBER_BITS).max(1)
}

fn words(id: IdHash) -> [u64; 2] {
    [(id.0 >> 64) as u64, id.0 as u64]
}

fn id_of([high, low]: [u64; 2]) -> IdHash {
    IdHash(u128::from(high) << 64 | u128::from(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, FileFailurePersistence};

    use super::*;

    const REGRESSIONS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/id_queue.txt");

    /// What an [`IdQueue`] is, at the price of a tree.
    #[derive(Default)]
    struct Model {
        order: VecDeque<IdHash>,
        values: BTreeMap<IdHash, u64>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many ids from this number on.
        Push(u64, u64),
        Pop(usize),
        PopIf(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = 0..3_000_u64;
        let step = prop_oneof![
            4 => (number.clone(), 1..400_u64).prop_map(|(from, count)| Step::Push(from, count)),
            3 => (1..300_usize).prop_map(Step::Pop),
            1 => (2_000..4_000_usize).prop_map(Step::Pop),
            1 => number.prop_map(Step::PopIf),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// How numbers become ids: as hashes, or so that all of them want the same few buckets.
    fn id(number: u64, apart: bool) -> IdHash {
        let hash = IdHash::of(&number.to_le_bytes());
        if apart { hash } else { IdHash(hash.0 & !u128::from(u64::MAX) | u128::from(number % 3)) }
    }

    proptest! {
        #![proptest_config(Config {
            cases: 200,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
            ..Config::default()
        })]

        #[test]
        fn it_is_a_queue_and_a_map(steps in steps(), apart in any::<bool>()) {
            let (mut queue, mut model) = (IdQueue::<u64, 16>::default(), Model::default());
            for (value, step) in (0..).zip(steps) {
                match step {
                    Step::Push(from, count) => for number in from..from + count {
                        let id = id(number, apart);
                        let known = queue.push(id, value).copied();
                        prop_assert_eq!(known, model.values.get(&id).copied());
                        if known.is_none() {
                            model.values.insert(id, value);
                            model.order.push_back(id);
                        }
                    },
                    Step::Pop(count) => for _ in 0..count {
                        let first = model.order.pop_front();
                        let wanted = first.and_then(|id| model.values.remove(&id));
                        prop_assert_eq!(queue.pop(), wanted);
                    },
                    Step::PopIf(number) => {
                        let id = id(number, apart);
                        let first = model.order.pop_front_if(|first| *first == id);
                        let wanted = first.and_then(|id| model.values.remove(&id));
                        prop_assert_eq!(queue.pop_if(id), wanted);
                    }
                }
                prop_assert_eq!(queue.len(), model.order.len());
                let first = model.order.front().map(|id| &model.values[id]);
                prop_assert_eq!(queue.front(), first);
                for number in 0..3_400 {
                    let id = id(number, apart);
                    prop_assert_eq!(queue.find(id), model.values.get(&id), "{}", number);
                }
                prop_assert_eq!(queue.check(), Ok(()));
            }
        }
    }

    #[test]
    fn numbers_go_round_and_every_id_is_found() {
        let mut queue = IdQueue::<u64, 16>::default();
        let id = |number: u64| IdHash(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 3);
        for number in 0..3 * NUMBERED_MAX as u64 {
            assert_eq!(queue.push(id(number), number), None);
            if number >= 1_000 {
                assert_eq!(queue.pop(), Some(number - 1_000));
            }
            if number % 4_099 == 0 {
                let oldest = number.saturating_sub(999);
                (oldest..=number).for_each(|old| assert_eq!(queue.find(id(old)), Some(&old)));
                assert_eq!(queue.find(id(number + 1)), None);
            }
        }
        assert!(queue.table.0.len() <= 256, "{} buckets", queue.table.0.len());
    }

    #[test]
    fn ids_that_collide_cost_a_tree_and_random_ones_none() {
        let mut queue = IdQueue::<u64, 16>::default();
        (0..100_000).for_each(|number| assert!(queue.push(id(number, true), number).is_none()));
        assert!(queue.spilled.len() < 10, "{} spilled", queue.spilled.len());
        let mut queue = IdQueue::<u64, 16>::default();
        (0..100_000).for_each(|number| assert!(queue.push(id(number, false), number).is_none()));
        assert!(queue.spilled.len() > 99_000, "{} spilled", queue.spilled.len());
    }

    #[test]
    fn what_was_long_gives_its_room_back() {
        let mut queue = IdQueue::<u64, 16>::default();
        (0..100_000).for_each(|number| assert!(queue.push(id(number, true), number).is_none()));
        (0..99_990).for_each(|number| assert_eq!(queue.pop(), Some(number)));
        assert!(queue.entries.capacity() <= 256, "{}", queue.entries.capacity());
        assert!(queue.table.0.len() <= 64, "{}", queue.table.0.len());
        (99_990..100_000).for_each(|old| assert_eq!(queue.find(id(old, true)), Some(&old)));
    }
}
