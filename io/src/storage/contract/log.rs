//! A partition's log as the suite makes it, and what reads of it must give.

use bytes::Bytes;
use sprawl_core::broker::replica::{Body, Draft, Envelope, Header, Note, Record, Timing};
use sprawl_core::ids::{Boot, DiskId, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::{Store, WallTime};

use crate::storage::{Batch, ReadRange};

/// Entries of one partition in order, kept to compare with.
pub(super) struct Log {
    pub(super) partition: PartitionId,
    pub(super) records: Vec<Record>,
    index: EntryIndex,
    offset: Offset,
}

impl Log {
    pub(super) fn new(partition: u64) -> Self {
        Self::starting(partition, EntryIndex(1), Offset(0))
    }

    /// A log of which what lies before is gone.
    pub(super) fn starting(partition: u64, index: EntryIndex, offset: Offset) -> Self {
        Self { partition: PartitionId(partition), records: Vec::new(), index, offset }
    }

    /// A log with a note at each index that `notes` divides, and messages of some bytes.
    pub(super) fn mixed(partition: u64, entries: u64, notes: u64) -> Self {
        let mut log = Self::new(partition);
        for entry in 1..=entries {
            if entry % notes == 0 {
                log.note();
            } else {
                log.message(format!("payload {entry} of {partition}").into_bytes());
            }
        }
        log
    }

    pub(super) fn message(&mut self, payload: impl Into<Bytes>) {
        let id = format!("{}-{}", self.partition, self.offset);
        let id = id.parse().expect("numbers make an id");
        let (key, content_type, headers) = (None, None, Vec::new());
        let envelope = Envelope { id, key, sequence: None, content_type, headers };
        self.push(&Body::Message(Draft { envelope, payload: payload.into() }));
        self.offset = self.offset.next();
    }

    pub(super) fn note(&mut self) {
        self.push(&Body::Note(Note::Start { leader: DiskId(1), boot: Boot(1) }));
    }

    fn push(&mut self, body: &Body) {
        let (index, offset) = (self.index, self.offset);
        // Two entries share each time.
        let (epoch, time) = (Epoch(1), WallTime(index.0 / 2));
        let is_message = matches!(body, Body::Message(_));
        let timing = Timing::default();
        let header = Header { epoch, index, offset, time, is_message, timing };
        self.records.push(Record::seal(self.partition, header, body));
        self.index = index.next();
    }

    /// Forgets the entries behind `last`.
    pub(super) fn cut_after(&mut self, last: EntryIndex) {
        self.records.retain(|record| record.header().index <= last);
        let next = self.records.last().map(|record| record.header()).expect("some stay");
        self.offset = Offset(next.offset.0 + u64::from(next.is_message));
        self.index = last.next();
    }

    /// The index after the last entry.
    pub(super) fn end(&self) -> EntryIndex {
        self.index
    }

    /// All entries as one store, without a state.
    pub(super) fn store(&self) -> Store {
        self.part(0, self.records.len())
    }

    /// Entries by their place in `records`.
    pub(super) fn part(&self, from: usize, to: usize) -> Store {
        let records = self.records[from..to].to_vec();
        Store { records, ..Store::of(self.partition) }
    }

    /// All entries as a batch of its own.
    pub(super) fn batch(&self) -> Batch {
        Batch { stores: vec![self.store()], ..Batch::default() }
    }

    /// A range without bounds, but for the end of the log.
    pub(super) fn from(&self, from: u64) -> ReadRange {
        let (partition, below) = (self.partition, self.end());
        let (count_max, bytes_max) = (usize::MAX, usize::MAX);
        let first = EntryIndex(1);
        ReadRange { partition, from: Offset(from), first, below, count_max, bytes_max }
    }

    /// What a read must give: the plainest way to say it.
    pub(super) fn expected(&self, range: &ReadRange) -> Vec<Record> {
        let mut bytes = 0;
        let wanted = self.records.iter().filter(|record| {
            let header = record.header();
            header.is_message && header.offset >= range.from && header.index < range.below
        });
        let within = wanted.take(range.count_max).enumerate().take_while(|(place, record)| {
            bytes += record.len();
            *place == 0 || bytes <= range.bytes_max
        });
        within.map(|(_, record)| record.clone()).collect()
    }

    /// The entries from `from` on, as scans give them.
    pub(super) fn raw(&self, from: EntryIndex) -> Vec<(EntryIndex, Bytes)> {
        let entries = self.records.iter().map(|record| (record.header().index, record.bytes()));
        let from_on = entries.filter(|(index, _)| *index >= from);
        from_on.map(|(index, bytes)| (index, bytes.clone())).collect()
    }
}
