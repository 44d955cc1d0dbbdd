//! What the cluster has agreed on: the state machine that the metadata log drives.
//!
//! Every node applies the same changes in the same order and so holds the same [`View`]. A view
//! shares what did not change with its predecessors, so that showing one costs what changed.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::ids::{Boot, ChangeIndex, ClusterId, DiskId, Epoch, NodeId, Offset, PartitionId};
use crate::ids::{SubscriptionId, TopicName};
use crate::machine::Digest;

/// The most topics that one subscription names.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 1_000;

/// One agreed step of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The first change of a cluster's life.
    Found {
        /// The cluster's identity.
        cluster: ClusterId,
    },
    /// A node has started: a new node, or a known one under a new boot, which ends the reign of
    /// its former run over every partition that it led.
    Register {
        /// The node's identity.
        disk: DiskId,
        /// Its run.
        boot: Boot,
        /// Its name, for people.
        name: String,
    },
    /// A topic, with its partitions; nothing happens when it exists.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// Its configuration.
        config: TopicConfig,
    },
    /// A durable subscription, and the topics of it that do not exist; nothing happens when the
    /// subscription exists.
    Subscribe {
        /// Its id.
        id: SubscriptionId,
        /// What it receives.
        topics: Vec<TopicName>,
        /// Where it begins.
        from: StartFrom,
        /// How long a delivered message may stay unacknowledged.
        ack_wait: Duration,
    },
}

/// How a topic is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Into how many ranges of the key-hash space it is divided, 1 or more.
    pub partitions: u32,
    /// How many nodes are to hold each partition; in effect the lesser of it and their number.
    pub replication: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self { partitions: 1, replication: 3 }
    }
}

/// Where a subscription begins in a partition that exists when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartFrom {
    /// With the next message.
    Latest,
    /// With the first message that is retained.
    Earliest,
    /// With this offset, in each partition.
    Offset(Offset),
}

/// A node that has registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its Raft id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its newest run.
    pub boot: Boot,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its configuration.
    pub config: TopicConfig,
    /// Its partitions by number; each begins its range of the key-hash space at `slot`.
    pub partitions: Vec<Range>,
}

/// A partition's share of the key-hash space: from `slot` to before the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first slot of the range.
    pub slot: u64,
    /// The partition.
    pub partition: PartitionId,
}

/// A partition: who leads it, who holds it, who counts.
///
/// Invariants, checked by [`View::check`]: the leader is in the in-sync set, the in-sync set is
/// part of the replicas, and neither is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    /// The partition's own name.
    pub id: PartitionId,
    /// The topic that it is part of.
    pub topic: TopicName,
    /// Its number within the topic.
    pub number: u32,
    /// The change that made it.
    pub created: ChangeIndex,
    /// The current reign.
    pub epoch: Epoch,
    /// Raised by each accepted change to this partition.
    pub version: u64,
    /// Who leads.
    pub leader: DiskId,
    /// Who is to hold a copy.
    pub replicas: Vec<DiskId>,
    /// Whose copies count for commits.
    pub in_sync: Vec<DiskId>,
}

/// A durable subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The change that made it.
    pub created: ChangeIndex,
    /// What it receives, ascending.
    pub topics: Vec<TopicName>,
    /// Where it began in partitions that were there before it.
    pub from: StartFrom,
    /// How long a delivered message may stay unacknowledged.
    pub ack_wait: Duration,
}

/// The metadata after the change at `version`: immutable for whoever it is shown to.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The last change that it contains.
    pub version: ChangeIndex,
    /// The cluster, once founded.
    pub cluster: Option<ClusterId>,
    /// The nodes.
    pub nodes: OrdMap<DiskId, Arc<Node>>,
    /// The topics.
    pub topics: OrdMap<TopicName, Arc<Topic>>,
    /// The partitions.
    pub partitions: OrdMap<PartitionId, Arc<Partition>>,
    /// The subscriptions.
    pub subscriptions: OrdMap<SubscriptionId, Arc<Subscription>>,
    /// The subscriptions of each topic, ascending.
    pub subscribers: OrdMap<TopicName, Arc<Vec<SubscriptionId>>>,
    next_partition: PartitionId,
}

impl View {
    /// Applies the change at `index`. The same changes give the same view everywhere.
    ///
    /// # Panics
    ///
    /// When `index` does not follow the view's version: the log has no holes.
    pub fn apply(&mut self, index: ChangeIndex, change: &Change) {
        assert_eq!(index, self.version.next(), "changes come in the log's order");
        self.version = index;
        match change {
            Change::Found { cluster } => self.cluster = self.cluster.or(Some(*cluster)),
            Change::Register { disk, boot, name } => self.register(*disk, *boot, name),
            Change::CreateTopic { name, config } => self.create_topic(name, config),
            Change::Subscribe { id, topics, from, ack_wait } => {
                self.subscribe(id, topics, *from, *ack_wait);
            }
        }
    }

    /// The partition of `topic` into whose range `slot` falls.
    #[must_use]
    pub fn partition_at(&self, topic: &TopicName, slot: u64) -> Option<&Arc<Partition>> {
        let ranges = &self.topics.get(topic)?.partitions;
        let after = ranges.partition_point(|range| range.slot <= slot);
        self.partitions.get(&ranges[after - 1].partition)
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
        let topics = subscription.topics.iter().filter_map(|name| self.topics.get(name));
        let ranges = topics.flat_map(|topic| &topic.partitions);
        ranges.filter_map(|range| self.partitions.get(&range.partition))
    }

    /// Checks the invariants that [`Partition`] lists.
    ///
    /// # Errors
    ///
    /// Says which partition breaks which.
    pub fn check(&self) -> Result<(), String> {
        for partition in self.partitions.values() {
            let Partition { id, leader, replicas, in_sync, .. } = &**partition;
            if !in_sync.contains(leader) {
                return Err(format!("the leader of partition {id} is not in its in-sync set"));
            }
            if !in_sync.iter().all(|member| replicas.contains(member)) {
                return Err(format!("partition {id} has an in-sync member that is no replica"));
            }
        }
        Ok(())
    }

    /// Folds the view into a hash that nodes compare.
    pub fn digest(&self, hash: &mut Digest) {
        self.version.hash(hash);
        self.cluster.hash(hash);
        self.nodes.iter().for_each(|node| node.hash(hash));
        self.topics.iter().for_each(|topic| topic.hash(hash));
        self.partitions.iter().for_each(|partition| partition.hash(hash));
        self.subscriptions.iter().for_each(|subscription| subscription.hash(hash));
    }

    fn register(&mut self, disk: DiskId, boot: Boot, name: &str) {
        let known = self.nodes.get(&disk);
        if known.is_some_and(|node| node.boot >= boot) {
            return;
        }
        let id = match known {
            Some(node) => node.id,
            None if self.nodes.is_empty() => NodeId(0),
            None => NodeId(self.version.0),
        };
        self.nodes.insert(disk, Arc::new(Node { id, name: name.to_owned(), boot }));
        if crate::zoo::planted(crate::zoo::Bug::EpochResumed) {
            return;
        }
        let led = self.partitions.values().filter(|partition| partition.leader == disk);
        let raised: BTreeMap<PartitionId, Arc<Partition>> = led
            .map(|partition| {
                let mut next = Partition::clone(partition);
                next.epoch = next.epoch.next();
                next.version += 1;
                (next.id, Arc::new(next))
            })
            .collect();
        self.partitions.extend(raised);
    }

    fn create_topic(&mut self, name: &TopicName, config: &TopicConfig) {
        if self.topics.contains_key(name) {
            return;
        }
        let count = u64::from(config.partitions.max(1));
        let replicas: Vec<DiskId> = self.nodes.keys().copied().take(1).collect();
        let Some(&leader) = replicas.first() else {
            return;
        };
        let mut ranges = Vec::new();
        for number in 0..count {
            self.next_partition = self.next_partition.next();
            let id = self.next_partition;
            let slot = ((u128::from(number) << 64) / u128::from(count)) as u64;
            ranges.push(Range { slot, partition: id });
            let partition = Partition {
                id,
                topic: name.clone(),
                number: number as u32,
                created: self.version,
                epoch: Epoch(1),
                version: 1,
                leader,
                replicas: replicas.clone(),
                in_sync: replicas.clone(),
            };
            self.partitions.insert(id, Arc::new(partition));
        }
        let topic = Topic { name: name.clone(), config: config.clone(), partitions: ranges };
        self.topics.insert(name.clone(), Arc::new(topic));
    }

    fn subscribe(
        &mut self,
        id: &SubscriptionId,
        topics: &[TopicName],
        from: StartFrom,
        ack_wait: Duration,
    ) {
        if self.subscriptions.contains_key(id) {
            return;
        }
        for name in topics {
            self.create_topic(name, &TopicConfig::default());
            let mut ids = self.subscribers.get(name).map_or_else(Vec::new, |ids| ids.to_vec());
            if let Err(at) = ids.binary_search(id) {
                ids.insert(at, id.clone());
            }
            self.subscribers.insert(name.clone(), Arc::new(ids));
        }
        let mut topics = topics.to_vec();
        topics.sort();
        topics.dedup();
        let (id, created) = (id.clone(), self.version);
        let subscription = Subscription { id: id.clone(), created, topics, from, ack_wait };
        self.subscriptions.insert(id, Arc::new(subscription));
    }
}

impl Hash for View {
    /// A version names one view, so the version stands for it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version.hash(state);
    }
}
