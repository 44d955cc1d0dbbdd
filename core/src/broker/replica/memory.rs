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

impl Memory {
    pub(crate) fn push(&mut self, record: Record) {
        if let Some(last) = self.records.back() {
            assert_eq!(record.header().index, last.header().index.next(), "no holes in memory");
        }
        self.records.push_back(record);
    }

    /// Drops the oldest entry if it is committed; gives its footprint, or `None` if it must stay.
    pub(crate) fn evict(&mut self, commit: EntryIndex) -> Option<usize> {
        let first = self.records.front()?;
        if first.header().index > commit {
            return None;
        }
        self.records.pop_front().map(|record| record.footprint())
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
