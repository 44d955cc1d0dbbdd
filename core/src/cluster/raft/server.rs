//! One node of the model: its vote, its log and its snapshot, in memory and on the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, LogId, Recovered, Voters};
use crate::ids::NodeId;

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) vote: Option<(u64, NodeId)>,
    /// Up to where the log is purged.
    pub(super) purged: u64,
    /// The last entry of the newest snapshot.
    pub(super) snapshot: LogId,
    /// Who votes after the snapshot.
    base: Voters,
    /// The terms of the log's entries, by index.
    log: BTreeMap<u64, u64>,
    /// Who votes, from which index on.
    voters: BTreeMap<u64, Voters>,
    /// Up to where the log is synced.
    durable: u64,
    /// Synced entries that this process has removed again.
    cut: BTreeSet<LogId>,
}

impl Server {
    pub(super) fn start(&mut self) {
        self.truncate(self.durable.max(self.purged) + 1);
        self.cut.clear();
    }

    /// What it found on its disk takes the place of what was known; gives an entry that had been
    /// synced and is missing.
    pub(super) fn recover(&mut self, found: &Recovered) -> Option<LogId> {
        let (vote, base) = (found.vote, found.voters.clone());
        let (purged, snapshot) = (found.purged, found.snapshot);
        let after = Self { vote, purged, snapshot, base, ..Self::default() };
        let before = std::mem::replace(self, after);
        found.log.iter().for_each(|entry| self.append(entry));
        self.durable = self.last().index;
        let durable = before.log.range(..=before.durable);
        let mut synced = durable.map(|(&index, &term)| LogId { term, index });
        synced.find(|id| !self.has(*id))
    }

    pub(super) fn last(&self) -> LogId {
        let last = self.log.last_key_value().map(|(&index, &term)| LogId { term, index });
        last.unwrap_or(self.snapshot).max_index(self.snapshot)
    }

    pub(super) fn append(&mut self, entry: &Entry) {
        self.truncate(entry.id.index);
        self.log.insert(entry.id.index, entry.id.term);
        if let Some(voters) = &entry.voters {
            self.voters.insert(entry.id.index, voters.clone());
        }
    }

    pub(super) fn flush(&mut self, last: LogId) {
        if self.has(last) {
            self.durable = self.durable.max(last.index);
        }
    }

    pub(super) fn truncate(&mut self, from: u64) {
        let removed = self.log.split_off(&from);
        let synced = removed.into_iter().take_while(|(index, _)| *index <= self.durable);
        self.cut.extend(synced.map(|(index, term)| LogId { term, index }));
        self.voters.split_off(&from);
        self.durable = self.durable.min(from.saturating_sub(1));
    }

    /// A snapshot from elsewhere takes the place of a log that does not lead to it.
    pub(super) fn take_snapshot(&mut self, last: LogId, voters: Voters, is_installed: bool) {
        if is_installed && !self.has(last) {
            self.log.clear();
            self.voters.clear();
        }
        self.snapshot = last;
        self.base = voters;
        self.durable = self.durable.max(last.index);
    }

    pub(super) fn purge(&mut self, upto: u64) {
        self.purged = self.purged.max(upto);
        self.log = self.log.split_off(&(upto + 1));
    }

    /// Whether its log has this entry, or its snapshot goes as far.
    pub(super) fn has(&self, id: LogId) -> bool {
        self.log.get(&id.index) == Some(&id.term) || self.snapshot.index >= id.index
    }

    pub(super) fn has_durably(&self, id: LogId) -> bool {
        self.has(id) && (self.durable >= id.index || self.snapshot.index >= id.index)
    }

    /// Whether it had an entry synced that it has removed since.
    pub(super) fn had_durably(&self, id: LogId) -> bool {
        self.cut.contains(&id)
    }

    /// Who votes by the newest entry that says so.
    pub(super) fn voters(&self) -> &Voters {
        let newest = self.voters.last_key_value();
        let newest = newest.filter(|(index, _)| **index > self.snapshot.index);
        newest.map_or(&self.base, |(_, voters)| voters)
    }

    pub(super) fn says_voters(&self, index: u64) -> bool {
        self.voters.contains_key(&index)
    }

    /// The entries of the log between two places.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = LogId> {
        self.log.range(from..=to).map(|(&index, &term)| LogId { term, index })
    }
}

impl LogId {
    fn max_index(self, other: Self) -> Self {
        if other.index > self.index { other } else { self }
    }
}
