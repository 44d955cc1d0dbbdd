//! Reading a partition's log: messages from an offset on, every entry checked, and raw entries.
//!
//! Entries lie by index, and a note takes an index but no offset; so the place of an offset is
//! searched for. From one entry to the next the offset grows by one at most, which bounds the
//! search from below: without notes it ends at its second look. An entry met on the way is
//! checked like any other, because a damaged one must not lead the search astray.

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions};
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::{EntryIndex, Offset, PartitionId};
use sprawl_core::machine::{Unreadable, WallTime};

use super::{log_key, one_line};
use crate::storage::{ReadError, ReadRange};

/// How many damaged entries in a row a search steps over before it gives up.
const DAMAGED_STEPS_MAX: usize = 4_096;

/// The messages that `range` wants.
pub(super) fn messages(
    db: &DB,
    log: &ColumnFamily,
    range: ReadRange,
) -> Result<Vec<Record>, ReadError> {
    let mut reader = Reader::new(db, log, range.partition, range.first, range.below);
    let start = reader.place(range.from, range.below)?;
    Ok(reader.collect(start, range)?)
}

/// Raw entries from `from` on, about `bytes_max` of them, unchecked, at least one if there is one.
pub(super) fn scan(
    db: &DB,
    log: &ColumnFamily,
    (partition, from): (PartitionId, EntryIndex),
    bytes_max: usize,
) -> Result<Vec<(EntryIndex, Bytes)>, ReadError> {
    let mut reader = Reader::new(db, log, partition, from, EntryIndex(u64::MAX));
    let (mut found, mut bytes, mut expected) = (Vec::new(), 0, from);
    reader.iterator.seek(log_key(partition, from));
    while let Some(index) = reader.index() {
        let value = reader.iterator.value().unwrap_or_default();
        if bytes + value.len() > bytes_max && !found.is_empty() {
            return Ok(found);
        }
        bytes += value.len();
        found.push((index, Bytes::copy_from_slice(value)));
        expected = index.next();
        reader.iterator.next();
    }
    match reader.broken(expected) {
        Some(unreadable) if found.is_empty() => Err(unreadable.into()),
        Some(_) | None => Ok(found),
    }
}

/// The offset at the first entry that is not older than `at`: times do not fall.
pub(super) fn seek(
    db: &DB,
    log: &ColumnFamily,
    partition: PartitionId,
    at: WallTime,
    (first, below): (EntryIndex, EntryIndex),
) -> Result<Option<Offset>, ReadError> {
    let mut reader = Reader::new(db, log, partition, first, below);
    let (mut low, mut high, mut found) = (first.0, below.0, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match reader.seek(EntryIndex(middle)) {
            Found::Entry(record) if record.header().time < at => low = record.header().index.0 + 1,
            Found::Entry(record) => {
                high = middle;
                found = Some(record.header().offset);
            }
            Found::End => high = middle,
            Found::Damaged(unreadable) => return Err(unreadable.into()),
        }
    }
    Ok(found)
}

/// What stands at a place of the log.
enum Found {
    /// An entry that is as it was written.
    Entry(Record),
    /// Something else.
    Damaged(Unreadable),
    /// Nothing, and nothing after it.
    End,
}

/// What a look at a place says about the place of an offset.
enum Look {
    /// It lies at or behind this index.
    Behind(EntryIndex),
    /// It lies before, or here.
    Before,
    /// Nothing: too much is damaged.
    Unknown(Unreadable),
}

struct Reader<'a> {
    iterator: DBRawIterator<'a>,
    partition: PartitionId,
}

impl<'a> Reader<'a> {
    /// A reader that sees nothing below `first`: where much was cut, seeking over it is dear.
    fn new(
        db: &'a DB,
        log: &ColumnFamily,
        partition: PartitionId,
        first: EntryIndex,
        below: EntryIndex,
    ) -> Self {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(log_key(partition, first));
        options.set_iterate_upper_bound(log_key(partition, below));
        Self { iterator: db.raw_iterator_cf_opt(log, options), partition }
    }

    /// The index under the iterator, if it stands anywhere.
    fn index(&self) -> Option<EntryIndex> {
        let key = self.iterator.key()?.last_chunk::<8>()?;
        Some(EntryIndex(u64::from_be_bytes(*key)))
    }

    fn unreadable(&self, index: EntryIndex, reason: impl ToString) -> Unreadable {
        Unreadable { partition: self.partition, index, reason: reason.to_string() }
    }

    /// Why the iterator stands nowhere, if it should stand at `index` but the disk does not read.
    fn broken(&self, index: EntryIndex) -> Option<Unreadable> {
        self.iterator.status().err().map(|error| self.unreadable(index, one_line(error)))
    }

    /// What the iterator stands on; `at` is where it should stand.
    fn here(&self, at: EntryIndex) -> Found {
        let Some(index) = self.index() else {
            return self.broken(at).map_or(Found::End, Found::Damaged);
        };
        let value = self.iterator.value().unwrap_or_default();
        match Record::open(self.partition, Bytes::copy_from_slice(value)) {
            Ok(record) if record.header().index == index => Found::Entry(record),
            Ok(record) => {
                let reason = format!("entry {} lies in its place", record.header().index);
                Found::Damaged(self.unreadable(index, reason))
            }
            Err(error) => Found::Damaged(self.unreadable(index, error)),
        }
    }

    fn seek(&mut self, at: EntryIndex) -> Found {
        self.iterator.seek(log_key(self.partition, at));
        self.here(at)
    }

    /// The index from which messages from `from` on are to be read: no readable entry before it
    /// is wanted. 0 when nothing lies before it.
    fn place(&mut self, from: Offset, below: EntryIndex) -> Result<EntryIndex, Unreadable> {
        let (mut low, mut high) = (0, below.0);
        let mut at_low = true;
        while low < high {
            let at = if at_low { low } else { low + (high - low) / 2 };
            match self.look(EntryIndex(at), high, from) {
                Look::Behind(index) => low = index.0.min(high),
                Look::Before => high = at,
                Look::Unknown(_) if at_low => {}
                Look::Unknown(unreadable) => return Err(unreadable),
            }
            at_low = !at_low;
        }
        Ok(EntryIndex(low))
    }

    /// Looks at the first readable entry at or after `at`.
    fn look(&mut self, at: EntryIndex, high: u64, from: Offset) -> Look {
        let mut next = at;
        for _ in 0..DAMAGED_STEPS_MAX {
            if next.0 >= high {
                return Look::Before;
            }
            match self.seek(next) {
                Found::End => return Look::Before,
                Found::Damaged(unreadable) => next = unreadable.index.next(),
                Found::Entry(record) => {
                    let (index, offset) = (record.header().index, record.header().offset);
                    return match from.0.checked_sub(offset.0) {
                        Some(0) | None => Look::Before,
                        Some(missing) => Look::Behind(EntryIndex(index.0.saturating_add(missing))),
                    };
                }
            }
        }
        let reason = format!("{DAMAGED_STEPS_MAX} entries in a row are unreadable");
        Look::Unknown(self.unreadable(at, reason))
    }

    /// Reads on from `start` until a bound is reached.
    fn collect(&mut self, start: EntryIndex, range: ReadRange) -> Result<Vec<Record>, Unreadable> {
        let mut found: Vec<Record> = Vec::new();
        let Some((mut here, mut expected)) = self.first(start, range)? else {
            return Ok(found);
        };
        let mut bytes = 0;
        let ending = loop {
            if expected >= range.below || found.len() == range.count_max {
                return Ok(found);
            }
            let record = match here {
                Found::Entry(record) if record.header().index == expected => record,
                Found::Entry(_) | Found::End => break self.unreadable(expected, MISSING),
                Found::Damaged(unreadable) => break unreadable,
            };
            if record.header().is_message && record.header().offset >= range.from {
                bytes += record.len();
                if bytes > range.bytes_max && !found.is_empty() {
                    return Ok(found);
                }
                found.push(record);
            }
            expected = expected.next();
            self.iterator.next();
            here = self.here(expected);
        };
        if found.is_empty() { Err(ending) } else { Ok(found) }
    }

    /// The first entry to read, with its index; `None` when there is none.
    ///
    /// What is damaged before it matters only if a wanted message may have stood there.
    fn first(
        &mut self,
        start: EntryIndex,
        range: ReadRange,
    ) -> Result<Option<(Found, EntryIndex)>, Unreadable> {
        let (mut next, mut damage) = (start.max(EntryIndex(1)), None);
        for _ in 0..DAMAGED_STEPS_MAX {
            if next >= range.below {
                break;
            }
            match self.seek(next) {
                Found::End => break,
                Found::Damaged(unreadable) => {
                    next = unreadable.index.next();
                    damage.get_or_insert(unreadable);
                }
                Found::Entry(record) => {
                    let header = *record.header();
                    let beyond = header.offset.0.saturating_sub(range.from.0);
                    // The log may begin late, but it has no gap.
                    if damage.is_none() && header.index > start && start.0 > 0 {
                        damage = Some(self.unreadable(start, MISSING));
                    }
                    return match damage {
                        Some(mut unreadable) if beyond > 0 => {
                            // The wanted message stood so many entries before, or earlier.
                            let latest = EntryIndex(header.index.0.saturating_sub(beyond));
                            unreadable.index = unreadable.index.max(latest);
                            Err(unreadable)
                        }
                        Some(_) | None => Ok(Some((Found::Entry(record), header.index))),
                    };
                }
            }
        }
        if damage.is_none() && start < range.below && start.0 > 0 {
            damage = Some(self.unreadable(start, MISSING));
        }
        damage.map_or(Ok(None), Err)
    }
}

const MISSING: &str = "the entry is missing";
