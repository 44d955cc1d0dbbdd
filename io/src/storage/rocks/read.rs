//! Reading messages of a partition from an offset on, every entry checked.
//!
//! Entries lie by index, and a note takes an index but no offset; so the place of an offset is
//! found by bisection over the indexes. An entry met on the way is checked like any other: a
//! damaged one must not lead the search astray.

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions};
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::EntryIndex;
use sprawl_core::machine::Unreadable;

use super::log_key;
use crate::storage::{ReadError, ReadRange};

/// The messages that `range` wants.
pub(super) fn messages(
    db: &DB,
    family: &ColumnFamily,
    range: ReadRange,
) -> Result<Vec<Record>, ReadError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(log_key(range.partition, EntryIndex(0)));
    options.set_iterate_upper_bound(log_key(range.partition, range.below));
    let iterator = db.raw_iterator_cf_opt(family, options);
    let mut search = Search { iterator, range };
    let Some(start) = search.place()? else {
        return Ok(Vec::new());
    };
    search.collect(start)
}

struct Search<'a> {
    iterator: DBRawIterator<'a>,
    range: ReadRange,
}

impl Search<'_> {
    fn failed(&self) -> Result<(), ReadError> {
        let status = self.iterator.status();
        status.map_err(|error| ReadError::Failed(error.into_string()))
    }

    /// The index under the iterator, if it stands anywhere.
    fn index(&self) -> Option<EntryIndex> {
        let key = self.iterator.key()?.last_chunk::<8>()?;
        Some(EntryIndex(u64::from_be_bytes(*key)))
    }

    fn unreadable(&self, index: EntryIndex, reason: impl ToString) -> Unreadable {
        let partition = self.range.partition;
        Unreadable { partition, index, reason: reason.to_string() }
    }

    /// The entry under the iterator, if it is the one that was written there.
    fn entry(&self, index: EntryIndex) -> Result<Record, Unreadable> {
        let value = self.iterator.value().unwrap_or_default();
        let record = Record::open(self.range.partition, Bytes::copy_from_slice(value))
            .map_err(|error| self.unreadable(index, error))?;
        if record.header().index != index {
            let found = record.header().index;
            return Err(self.unreadable(index, format!("entry {found} lies in its place")));
        }
        Ok(record)
    }

    /// An index at or before the first wanted message; `None` when the log is empty.
    fn place(&mut self) -> Result<Option<EntryIndex>, ReadError> {
        self.iterator.seek_to_first();
        let Some(first) = self.index() else {
            return self.failed().map(|()| None);
        };
        self.iterator.seek_to_last();
        let Some(last) = self.index() else {
            return self.failed().map(|()| None);
        };
        // Everything below `low` lies before the wanted offset.
        let (mut low, mut high) = (first.0, last.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            self.iterator.seek(log_key(self.range.partition, EntryIndex(middle)));
            let Some(found) = self.index() else {
                self.failed()?;
                break;
            };
            match self.entry(found) {
                Ok(record) if record.header().offset < self.range.from => low = found.0 + 1,
                Ok(_) => high = middle,
                // A damaged entry says nothing about its neighbours: look at all that is left.
                Err(_) => break,
            }
        }
        Ok(Some(EntryIndex(low)))
    }

    /// Reads on from `start` until a bound is reached.
    fn collect(&mut self, start: EntryIndex) -> Result<Vec<Record>, ReadError> {
        let Self { range, .. } = *self;
        let mut found: Vec<Record> = Vec::new();
        let (mut bytes, mut expected) = (0, start);
        // What is damaged matters only if a wanted message may have stood there.
        let mut damage = None;
        self.iterator.seek(log_key(range.partition, start));
        while expected < range.below && found.len() < range.count_max {
            let entry = match self.index() {
                Some(index) if index == expected => self.entry(index),
                Some(_) | None => Err(self.unreadable(expected, "the entry is missing")),
            };
            match entry {
                Ok(record) => {
                    let offset = record.header().offset;
                    if offset <= range.from {
                        damage = None;
                    }
                    if damage.is_some() {
                        break;
                    }
                    if record.header().is_message && offset >= range.from {
                        bytes += record.len();
                        if bytes > range.bytes_max && !found.is_empty() {
                            break;
                        }
                        found.push(record);
                    }
                    self.iterator.next();
                }
                Err(_) if !found.is_empty() => break,
                Err(unreadable) => {
                    damage.get_or_insert(unreadable);
                    if self.index() == Some(expected) {
                        self.iterator.next();
                    } else if self.index().is_none() {
                        break;
                    }
                }
            }
            expected = expected.next();
        }
        if found.is_empty() {
            self.failed()?;
            if let Some(unreadable) = damage {
                return Err(unreadable.into());
            }
        }
        Ok(found)
    }
}

