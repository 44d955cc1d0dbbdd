//! The newest entries of a partition, kept in memory for readers until the budget needs the room.

use std::collections::VecDeque;

use super::entry::Record;
use crate::ids::{EntryIndex, Offset};

/// Consecutive entries up to the newest one of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    records: VecDeque<Record>,
}

/// What memory can say to a reader.
#[derive(Debug)]
pub(crate) enum Found {
    /// The messages from the wanted offset on.
    Here(Vec<Record>),
    /// The wanted offset lies before what is kept: read the disk.
    Below,
}

/// What became of the oldest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// It is gone; so many bytes are free.
    Entry(usize),
    /// There is none.
    Nothing,
    /// It is not committed and stays.
    UnderWay,
}

impl Memory {
    pub(crate) fn push(&mut self, record: Record) {
        if let Some(last) = self.records.back() {
            assert_eq!(record.header().index, last.header().index.next(), "no holes in memory");
        }
        self.records.push_back(record);
    }

    /// Drops the oldest entry if it is committed.
    pub(crate) fn evict(&mut self, commit: EntryIndex) -> Evicted {
        if self.records.is_empty() {
            return Evicted::Nothing;
        }
        let first = self.records.pop_front_if(|first| first.header().index <= commit);
        first.map_or(Evicted::UnderWay, |record| Evicted::Entry(record.footprint()))
    }

    /// Drops the entries behind this one; gives their footprint.
    pub(crate) fn cut_after(&mut self, last: EntryIndex) -> usize {
        let stay = self.records.partition_point(|record| record.header().index <= last);
        self.records.drain(stay..).map(|record| record.footprint()).sum()
    }

    /// Entries from `from` on, at least one if there is one; `None` where they lie before what is
    /// kept.
    pub(crate) fn entries(&self, from: EntryIndex, bytes_max: usize) -> Option<Vec<Record>> {
        let first = self.records.front()?.header().index;
        let skipped = from.0.checked_sub(first.0)? as usize;
        let mut bytes = 0;
        let wanted = self.records.range(skipped.min(self.records.len())..).take_while(|record| {
            let is_first = bytes == 0;
            bytes += record.len();
            is_first || bytes <= bytes_max
        });
        Some(wanted.cloned().collect())
    }

    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(Record::footprint).sum()
    }

    /// Messages from `from` on, at or below `commit`.
    pub(crate) fn read(
        &self,
        from: Offset,
        commit: EntryIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Found {
        match self.records.front() {
            Some(first) if first.header().offset <= from => {}
            Some(_) | None => return Found::Below,
        }
        let start = self.records.partition_point(|record| record.header().offset < from);
        let mut bytes = 0;
        let mut found = Vec::new();
        for record in self.records.range(start..) {
            if record.header().index > commit || found.len() == count_max {
                break;
            }
            if !record.header().is_message {
                continue;
            }
            bytes += record.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(record.clone());
        }
        Found::Here(found)
    }
}
