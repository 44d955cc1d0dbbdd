//! CommitNeverRegresses: within a run of a process, a partition's commit index does not fall.

use std::collections::BTreeMap;

use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_core::machine::ShardStatus;

use super::Findings;

/// Remembers the commit index of each partition.
#[derive(Debug, Default)]
pub(crate) struct CommitNeverRegresses {
    commits: BTreeMap<PartitionId, EntryIndex>,
}

impl CommitNeverRegresses {
    /// A new process begins where its disk left off.
    pub(crate) fn restarted(&mut self) {
        self.commits.clear();
    }

    pub(crate) fn stepped(&mut self, status: &ShardStatus, findings: &Findings) {
        for partition in &status.partitions {
            let before = self.commits.insert(partition.partition, partition.commit);
            if let Some(before) = before.filter(|before| *before > partition.commit) {
                let (id, now) = (partition.partition, partition.commit);
                let detail = format!("partition {id} went from {before} back to {now}");
                findings.violated("CommitNeverRegresses", detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sprawl_core::ids::{Epoch, Offset};
    use sprawl_core::machine::PartitionStatus;

    fn status(commit: u64) -> ShardStatus {
        let partition = PartitionStatus {
            partition: PartitionId(1),
            topic: "t".parse().expect("a name"),
            number: 0,
            epoch: Epoch(1),
            serving: true,
            persisted: EntryIndex(commit),
            commit: EntryIndex(commit),
            start: Offset(0),
            end: Offset(0),
            messages: 0,
            bytes: 0,
            delayed: 0,
            window_ids: 0,
            chain: 0,
            damaged: None,
            followers: Vec::new(),
        };
        ShardStatus { partitions: vec![partition], ..ShardStatus::default() }
    }

    #[test]
    fn a_commit_index_rises_until_the_process_ends() {
        let (findings, mut commits) = (Findings::default(), CommitNeverRegresses::default());
        for commit in [1, 4, 4] {
            commits.stepped(&status(commit), &findings);
        }
        commits.restarted();
        commits.stepped(&status(2), &findings);
        assert!(findings.violations().is_empty());
        commits.stepped(&status(1), &findings);
        assert!(findings.violations().contains_key("CommitNeverRegresses"));
    }
}
