//! CommitNeverRegresses: within a run of a process, a partition's commit index does not fall.

use std::collections::BTreeMap;

use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_core::machine::ShardStatus;

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

    pub(crate) fn stepped(&mut self, status: &ShardStatus) -> Result<(), String> {
        for partition in &status.partitions {
            let before = self.commits.insert(partition.partition, partition.commit);
            if before.is_some_and(|before| before > partition.commit) {
                let (id, now) = (partition.partition, partition.commit);
                return Err(format!("partition {id} went from {before:?} back to {now}"));
            }
        }
        Ok(())
    }
}
