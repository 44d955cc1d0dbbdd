//! The fault atlas: what may be destroyed, and what was.
//!
//! On a lone node a bit may turn over in the only copy of an entry. Its partition is then marked:
//! the expected result is a clear error, never wrong bytes and never "absent", and the partition
//! need not take writes again.

use std::collections::BTreeSet;

use sprawl_core::ids::PartitionId;

/// What faults have destroyed.
#[derive(Debug, Default)]
pub(crate) struct Atlas {
    damaged: BTreeSet<PartitionId>,
}

impl Atlas {
    /// Something of this partition's only copy is about to be destroyed.
    pub(crate) fn damage(&mut self, partition: PartitionId) {
        self.damaged.insert(partition);
    }

    /// Whether something of it was destroyed.
    pub(crate) fn is_damaged(&self, partition: PartitionId) -> bool {
        self.damaged.contains(&partition)
    }
}
