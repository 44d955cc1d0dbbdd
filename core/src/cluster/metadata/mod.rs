//! What the cluster has agreed on: the state machine that the metadata log drives.
//!
//! Every node applies the same changes in the same order and so holds the same [`View`]. A view
//! shares what did not change with its predecessors, so that showing one costs what changed.

mod change;
mod check;
mod fingerprint;
mod nodes;
mod partitions;
mod snapshot;
mod subscriptions;
mod topics;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

pub use change::{
    ADJUSTMENTS_MAX, Addition, Adjustment, CAPACITY_NORMAL, Change, FEATURE_LEVEL, Leaving,
    RULINGS_MAX, Registration, Ruling,
};
pub use fingerprint::Fingerprint;
pub use snapshot::BadSnapshot;

pub use nodes::{CAPACITY_MAX, NODES_MAX, Node, RETIRED_MAX, Retired, Unfit};

pub use partitions::{Member, Partition, REPLICAS_MAX, REPLICATION_LEVEL, Standing};

use super::subscription::Subscription;
use super::topic::Topic;
use crate::ids::{ChangeIndex, ClusterId, DiskId, NodeId, PartitionId};
use crate::ids::{SubscriptionId, TopicName};

/// The metadata after the change at `version`: immutable for whoever it is shown to.
///
/// Invariants, checked by [`View::check`]: (1) a partition's leader is in its in-sync set, and that
/// set is part of its replicas; (2) its replicas are different identities, each of a node or
/// retired; (3) its topic has it under its number; (4) no identity is both a node and retired, no
/// two nodes have one name, and every identity has a Raft id of its own; (5) no more nodes and
/// retired identities than there is room for; (6) no node understands less than the feature level;
/// (7) what is derived (`by_id`, `held`, `subscribers`, `plain`, `patterned`) is what the rest
/// leads to; (8) only a member that is marked as lost is no node any more; (9) an in-sync set has
/// as many members as it keeps at least, and that is no more than it is to keep; (10) a set is
/// frozen only for a member that does not answer.
#[derive(Clone, Default)]
pub struct View {
    /// The last change that it contains.
    pub version: ChangeIndex,
    /// The cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// The nodes that belong to the cluster, alive or not.
    pub nodes: OrdMap<DiskId, Arc<Node>>,
    /// The identities that belonged to it and never will again.
    pub retired: OrdMap<DiskId, Arc<Retired>>,
    /// The feature level: what may be used, because every node understands it.
    pub level: u32,
    /// The topics.
    pub topics: OrdMap<TopicName, Arc<Topic>>,
    /// The partitions.
    pub partitions: OrdMap<PartitionId, Arc<Partition>>,
    /// The subscriptions.
    pub subscriptions: OrdMap<SubscriptionId, Arc<Subscription>>,
    /// The subscriptions of each topic, ascending.
    pub subscribers: OrdMap<TopicName, Arc<Vec<SubscriptionId>>>,
    /// Who means a topic by its plain name, whether it exists or not.
    plain: OrdSet<(TopicName, SubscriptionId)>,
    /// Who has a pattern.
    patterned: OrdSet<SubscriptionId>,
    /// The identity behind each Raft id, retired ones included.
    by_id: OrdMap<NodeId, DiskId>,
    /// The partitions of which each node is to hold a copy.
    held: OrdMap<DiskId, OrdSet<PartitionId>>,
    /// The newest partition's name.
    last_partition: PartitionId,
}

impl View {
    /// Applies the change at `index`. The same changes give the same view everywhere.
    ///
    /// # Panics
    ///
    /// When `index` is not above the view's version. Indexes rise, but they are not consecutive:
    /// the log holds entries of its own between the changes.
    pub fn apply(&mut self, index: ChangeIndex, change: &Change) {
        assert!(index > self.version, "change {index} comes after {}", self.version);
        self.version = index;
        match change {
            Change::Found { cluster } => self.cluster = self.cluster.or(Some(*cluster)),
            Change::Register(said) => self.register(said),
            Change::Replace { disk, boot, by } => self.replace((*disk, *boot), by),
            Change::Retire { disk, boot } => self.retire(*disk, *boot),
            Change::Decommission { disk, how } => self.decommission(*disk, *how),
            Change::Fail { nodes, at, rulings } => {
                self.fail(nodes, *at);
                self.rule(rulings);
            }
            Change::Revive { nodes } => self.revive(nodes),
            Change::Raise { level } => self.raise(*level),
            Change::CreateTopic { name, config } => self.create_topic(name, config),
            Change::Subscribe { id, topics, from, delivery, at } => {
                self.subscribe(id, topics, *from, delivery, *at);
            }
            Change::ConfigureTopic { name, patch, reset } => {
                self.configure_topic(name, patch, *reset);
            }
            Change::DeleteTopic { name } => self.delete_topic(name),
            Change::Unsubscribe { id, unused_since } => self.unsubscribe(id, *unused_since),
            Change::Used { subscriptions, at } => self.used(subscriptions, *at),
            Change::Rule { rulings } => self.rule(rulings),
            Change::Adjust { by, adjustments } => self.adjust(*by, adjustments),
        }
    }

    /// The partition of `topic` into whose range `slot` falls. The slot, which is the price of a
    /// hash, is asked for only when there is more than one.
    #[must_use]
    pub fn partition_at(
        &self,
        topic: &TopicName,
        slot: impl FnOnce() -> u64,
    ) -> Option<PartitionId> {
        match self.topics.get(topic)?.partitions.as_slice() {
            [only] => Some(only.partition),
            ranges => {
                let slot = slot();
                let after = ranges.partition_point(|range| range.slot <= slot);
                Some(ranges[after - 1].partition)
            }
        }
    }

    /// The partition of `topic` with this number.
    #[must_use]
    pub fn partition_number(&self, topic: &TopicName, number: u32) -> Option<&Arc<Partition>> {
        let range = self.topics.get(topic)?.partitions.get(number as usize)?;
        self.partitions.get(&range.partition)
    }

    /// The partitions that a subscription receives from.
    pub fn partitions_of<'a>(
        &'a self,
        subscription: &'a Subscription,
    ) -> impl Iterator<Item = &'a Arc<Partition>> {
        let topics = subscription.matched.iter().filter_map(|name| self.topics.get(name));
        let ranges = topics.flat_map(|topic| &topic.partitions);
        ranges.filter_map(|range| self.partitions.get(&range.partition))
    }

    /// Whether there was ever a partition of this name.
    #[must_use]
    pub fn has_known(&self, id: PartitionId) -> bool {
        id <= self.last_partition
    }
}

impl Hash for View {
    /// A version names one view, so the version stands for it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version.hash(state);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({})", self.version)
    }
}

/// A founded cluster with the one node 1, for the tests beside the code.
#[cfg(test)]
pub(crate) fn founded() -> View {
    let mut view = View::default();
    view.apply(ChangeIndex(1), &Change::Found { cluster: ClusterId(7) });
    view.apply(ChangeIndex(3), &restarted(1));
    view
}

/// The registration of a run of node 1.
#[cfg(test)]
pub(crate) fn restarted(boot: u64) -> Change {
    let address = core::net::SocketAddr::from(([127, 0, 0, 1], 7946));
    Change::Register(Registration {
        disk: DiskId(1),
        boot: crate::ids::Boot(boot),
        run: boot,
        name: "a".to_owned(),
        address,
        http: address,
        zone: String::new(),
        capacity: CAPACITY_NORMAL,
        level: FEATURE_LEVEL,
        clean: true,
    })
}
