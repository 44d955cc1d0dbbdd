//! What must hold of all replicas of a partition together, after every step.

use std::collections::BTreeMap;

use bytes::Bytes;
use sprawl_core::cluster::metadata::Standing;
use sprawl_core::cluster::topic::Durability;
use sprawl_core::ids::*;
use sprawl_core::machine::Store;

use super::cluster::Cluster;

/// What was ever true of the partition.
#[derive(Default)]
pub(crate) struct Laws {
    /// What each epoch wrote at each index.
    named: BTreeMap<(Epoch, EntryIndex), Bytes>,
    /// What was ever committed at each index.
    committed: BTreeMap<u64, Bytes>,
    /// What everybody who counted had received, and somebody may have been told, at each index.
    received: BTreeMap<u64, Bytes>,
    /// How far each run has known the log to be committed.
    commits: BTreeMap<(DiskId, Boot), EntryIndex>,
    /// From which entry on each member holds everything that came to the set as a tail, as long as
    /// it is one.
    tails: BTreeMap<DiskId, u64>,
    /// What the state was at each commit.
    states: BTreeMap<EntryIndex, u64>,
    broken: Vec<String>,
}

impl Laws {
    /// A replica writes.
    pub(crate) fn written(&mut self, store: &Store) {
        for record in &store.records {
            let (epoch, index) = (record.header().epoch, record.header().index);
            let named = self.named.entry((epoch, index)).or_insert_with(|| record.bytes().clone());
            if named != record.bytes() {
                self.broken.push(format!("EpochIndexNamesOneEntry: ({epoch}, {index})"));
            }
        }
    }

    /// A run has given up its copy.
    pub(crate) fn erased(&mut self, run: (DiskId, Boot)) {
        self.commits.remove(&run);
    }

    /// How far the log was ever committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }
}

impl Cluster {
    /// Checks all laws; says which is broken.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.note_received();
        self.note_commits();
        self.check_in_sync();
        if let Some(disk) = self.damaged.first() {
            self.laws.broken.push(format!("{disk} was taken for damaged, and no disk is"));
        }
        match self.laws.broken.first() {
            Some(first) => Err(first.clone()),
            None => Ok(()),
        }
    }

    /// AcknowledgedIsKept: where that is acknowledged, what everybody had received is what is
    /// committed, until a copy is taken on trust.
    fn note_received(&mut self) {
        let partition = self.partition();
        if partition.config.durability == Durability::Fsync || partition.trusted > 0 {
            return self.laws.received.clear();
        }
        let Cluster { nodes, laws, .. } = self;
        for run in nodes.iter().filter_map(|node| node.run.as_ref()) {
            let last = run.replication.received_by_all();
            for index in run.replica.commit().0 + 1..=last.0 {
                let epoch = run.replica.epoch_at(EntryIndex(index)).expect("it is in the log");
                let bytes = laws.named[&(epoch, EntryIndex(index))].clone();
                laws.received.entry(index).or_insert(bytes);
            }
        }
    }

    /// CommitNeverRegresses and LogsAgreeBelowCommit. NoCutBelowCommit is what a replica asserts of
    /// itself; of all of them together it follows from these and InSyncHoldsCommitted.
    fn note_commits(&mut self) {
        let Cluster { nodes, laws, .. } = self;
        for node in nodes {
            let Some(run) = &node.run else { continue };
            let commit = run.replica.commit();
            let known = laws.commits.entry((node.disk, node.boot)).or_default();
            if commit < *known {
                laws.broken.push(format!("CommitNeverRegresses: {known} to {commit}"));
            }
            if run.replica.is_filling() {
                continue;
            }
            let state = run.replica.state_digest();
            if *laws.states.entry(commit).or_insert(state) != state {
                laws.broken.push(format!("StatesAgree: {} at {commit}", node.disk));
            }
            // What was applied by this run before was compared then.
            let first = if *known == EntryIndex(0) { 1 } else { known.0 + 1 };
            *known = commit.max(*known);
            for index in first.max(run.replica.begins().0)..=commit.0 {
                let Some(bytes) = node.hard.log.get(&index) else {
                    let disk = node.disk;
                    laws.broken.push(format!("InSyncHoldsCommitted: {disk} applied {index}"));
                    continue;
                };
                let committed = laws.committed.entry(index).or_insert_with(|| bytes.clone());
                if laws.received.get(&index).is_some_and(|received| received != committed) {
                    laws.broken.push(format!("AcknowledgedIsKept: entry {index}"));
                }
                if committed != bytes {
                    let disk = node.disk;
                    laws.broken.push(format!("LogsAgreeBelowCommit: entry {index} on {disk}"));
                }
            }
        }
    }

    /// InSyncHoldsCommitted: every member of the agreed set that may lead or answer has on its disk
    /// what was ever committed; one that is a tail, what follows the state that it came with.
    fn check_in_sync(&mut self) {
        let partition = self.partition();
        let is_tail = |disk: DiskId| {
            partition.member(disk).is_some_and(|member| member.standing == Standing::Tail)
        };
        self.laws.tails.retain(|disk, _| is_tail(*disk));
        for member in partition.in_sync.iter().filter(|one| one.standing != Standing::Lost) {
            let hard = &self.nodes[self.position(member.disk)].hard;
            let replica = hard.recover();
            let tail = is_tail(member.disk)
                .then(|| *self.laws.tails.entry(member.disk).or_insert(replica.commit().next().0));
            // What was removed is not missed.
            let begins = hard.begins.max(tail.unwrap_or_default());
            let differs = |(index, bytes): &(&u64, &Bytes)| {
                **index >= begins && hard.log.get(*index) != Some(*bytes)
            };
            // The youngest first: it is what is lost first.
            if let Some((index, _)) = self.laws.committed.iter().rev().find(differs) {
                let disk = member.disk;
                let what = format!("InSyncHoldsCommitted: {disk} does not have entry {index}");
                self.laws.broken.push(what);
            }
            if tail.is_none() && (replica.begins().0 < hard.begins || replica.is_filling()) {
                let what = format!("InSyncHoldsCommitted: {} lacks what is retained", member.disk);
                self.laws.broken.push(what);
            }
        }
    }
}
