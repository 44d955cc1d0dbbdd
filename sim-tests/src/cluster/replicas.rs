//! CommittedPrefixAgrees: wherever two replicas of a partition have applied as much, they have
//! applied the same. InSyncHoldsCommitted: whoever counts has on its disk what was ever committed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::Replica;
use sprawl_core::cluster::metadata::Standing;
use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_core::machine::PartitionStatus;
use sprawl_io::handle::NodeHandle;

use super::crowd::Crowd;
use super::machine::Machine;
use super::watch::Watch;
use crate::invariants::Findings;

/// How often all replicas are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A node that does not answer at once is looked at the next time.
const WAIT: Duration = Duration::from_millis(50);

/// The hash chain over the entries up to each that somebody was seen at, and who.
type Chains = BTreeMap<(PartitionId, EntryIndex), (u64, usize)>;

/// What the replicas of a run have applied. A clone is the same.
#[derive(Clone)]
pub(super) struct Replicas {
    findings: Findings,
    watch: Watch,
    inner: Arc<Mutex<Applied>>,
}

#[derive(Default)]
struct Applied {
    chains: Chains,
    /// The last entry of each partition that somebody has applied.
    committed: BTreeMap<PartitionId, EntryIndex>,
    /// What stands there on the disk of the one who was first seen to have applied it.
    entries: BTreeMap<(PartitionId, EntryIndex), Bytes>,
}

impl Replicas {
    pub(super) fn new(findings: Findings, watch: Watch) -> Self {
        Self { findings, watch, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all machines again and again.
    pub(super) async fn watch(self, crowd: Crowd) {
        loop {
            tokio::time::sleep(LOOK).await;
            let machines = crowd.all();
            for machine in &machines {
                if let Some(node) = machine.handle() {
                    self.look(machine.number, &node).await;
                    self.note_entries(machine);
                }
            }
            self.check_disks(&machines);
        }
    }

    /// Compares all disks with what was committed, as far as that is known.
    pub(super) fn check_disks(&self, machines: &[Machine]) {
        machines.iter().for_each(|machine| self.check_disk(machine));
    }

    /// Looks at one.
    pub(super) async fn look(&self, machine: usize, node: &NodeHandle) {
        let Ok(Some(shards)) = tokio::time::timeout(WAIT, node.describe()).await else { return };
        let mut applied = self.lock();
        let Applied { chains, committed, .. } = &mut *applied;
        for held in shards.iter().flat_map(|shard| &shard.partitions) {
            let PartitionStatus { partition, commit, chain, .. } = held;
            let known = committed.entry(*partition).or_default();
            *known = (*known).max(*commit);
            let seen = *chains.entry((*partition, *commit)).or_insert((*chain, machine));
            if seen.0 != *chain {
                let detail = format!(
                    "partition {partition} up to {commit}: machine {machine} applied {chain:x}, \
                     machine {} {:x}",
                    seen.1, seen.0
                );
                self.findings.violated("CommittedPrefixAgrees", detail);
            }
        }
    }

    /// Takes the last committed entries from the disk of a machine that has applied them, if it was
    /// the first that was seen to.
    fn note_entries(&self, machine: &Machine) {
        let mut applied = self.lock();
        let Applied { chains, committed, entries } = &mut *applied;
        if machine.handle().is_none() || machine.condemned().is_some() {
            return;
        }
        for (&partition, &at) in &*committed {
            let is_first =
                chains.get(&(partition, at)).is_some_and(|seen| seen.1 == machine.number);
            let is_as_written = !self.watch.has_flipped(machine.number, partition);
            if is_first && is_as_written && !entries.contains_key(&(partition, at)) {
                let entry = machine.disk().entry(partition, at);
                entry.into_iter().for_each(|entry| drop(entries.insert((partition, at), entry)));
            }
        }
    }

    /// Compares a machine's disk, whether something runs on it or not, with what was committed. The
    /// metadata are as new as any that a leader has counted by: whoever is in a set of theirs, and
    /// has not lost what it had, was in every set before or held all when it came.
    fn check_disk(&self, machine: &Machine) {
        let view = self.watch.newest();
        let member = self.watch.member(machine.number);
        let Some(disk) = member.and_then(|member| view.disk_of(member)) else { return };
        let applied = self.lock();
        for (&partition, &committed) in &applied.committed {
            let known = view.partitions.get(&partition);
            let member = known.and_then(|partition| partition.member(disk));
            // Who is unsure holds it as well.
            let counts = member.is_some_and(|member| member.standing != Standing::Lost);
            let is_tail = member.is_some_and(|member| member.standing == Standing::Tail);
            let is_as_written = !self.watch.has_flipped(machine.number, partition);
            let is_read = is_tail || counts && is_as_written;
            let held = if is_read { machine.cut_partition(partition) } else { None };
            // A tail holds what its state was made from, and what follows that.
            let given = held.as_ref().filter(|_| is_tail).map(Replica::commit);
            let end = machine.log_end(partition).max(given).unwrap_or_default();
            // Of a state that is not as it was written nobody can say up to where it goes.
            let is_known = !is_tail || is_as_written;
            if counts && is_known && end < committed {
                let number = machine.number;
                let detail = format!(
                    "partition {partition}: machine {number} counts, and its log ends at {end}; \
                     {committed} is committed"
                );
                self.findings.violated("InSyncHoldsCommitted", detail);
            }
            let known = applied.entries.get(&(partition, committed)).filter(|_| is_as_written);
            let found = machine.disk().entry(partition, committed);
            if counts && is_another(known, found.as_ref()) {
                let number = machine.number;
                let detail = format!(
                    "partition {partition}: machine {number} counts, and has another entry at \
                     {committed} than was committed"
                );
                self.findings.violated("InSyncHoldsCommitted", detail);
            }
            let lacks = |held: &Replica| held.is_filling() && !is_tail || held.damaged().is_some();
            if counts && is_as_written && held.is_some_and(|held| lacks(&held)) {
                let number = machine.number;
                let detail = format!(
                    "partition {partition}: machine {number} counts, and lacks some of what is \
                     retained"
                );
                self.findings.violated("InSyncHoldsCommitted", detail);
            }
        }
    }
}

/// Whether something else is found where something is known to stand.
fn is_another(known: Option<&Bytes>, found: Option<&Bytes>) -> bool {
    known.zip(found).is_some_and(|(known, found)| known != found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_entry_is_noticed_and_none_is_not_judged_here() {
        let (one, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"other"));
        assert!(is_another(Some(&one), Some(&other)));
        assert!(!is_another(Some(&one), Some(&one)));
        assert!(!is_another(Some(&one), None), "it may have been removed");
        assert!(!is_another(None, Some(&other)), "nobody knows what was there");
    }
}
