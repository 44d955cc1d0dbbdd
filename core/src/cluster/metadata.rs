//! What the cluster has agreed on: the state machine that the metadata log drives.
//!
//! Every node applies the same changes in the same order and so holds the same [`View`]. A view
//! shares what did not change with its predecessors, so that showing one costs what changed.

mod snapshot;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use snapshot::BadSnapshot;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::pattern::TopicPattern;
use super::subscription::{Delivery, StartFrom, Subscription};
use super::topic::{ConfigPatch, PARTITIONS_MAX, Range, Topic, TopicConfig};
use crate::ids::{Boot, ChangeIndex, ClusterId, DiskId, Epoch, NodeId, PartitionId};
use crate::ids::{SubscriptionId, TopicName};
use crate::machine::{Digest, WallTime};

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
    /// A durable subscription, and the topics that it names plainly and that do not exist; nothing
    /// happens when the subscription exists.
    Subscribe {
        /// Its id.
        id: SubscriptionId,
        /// What it means.
        topics: Vec<TopicPattern>,
        /// Where it begins.
        from: StartFrom,
        /// How its messages are delivered.
        delivery: Delivery,
        /// Cluster time when it was asked for.
        at: WallTime,
    },
    /// A topic is made, or kept in another way from now on. The number of partitions of a topic
    /// that exists does not change.
    ConfigureTopic {
        /// Its name.
        name: TopicName,
        /// What changes.
        patch: ConfigPatch,
        /// Whether what the patch does not name goes back to its default.
        reset: bool,
    },
    /// A topic and all that it holds is gone.
    DeleteTopic {
        /// Its name.
        name: TopicName,
    },
    /// A subscription is gone.
    Unsubscribe {
        /// Its id.
        id: SubscriptionId,
        /// Only if nobody used it after this.
        unused_since: Option<WallTime>,
    },
    /// Subscriptions that were used.
    Used {
        /// Which ones.
        subscriptions: Vec<SubscriptionId>,
        /// Until when, in cluster time.
        at: WallTime,
    },
}

/// A node that has registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its Raft id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its newest run.
    pub boot: Boot,
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
    /// How the topic is kept.
    pub config: Arc<TopicConfig>,
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
    /// Who means a topic by its plain name, whether it exists or not.
    plain: OrdSet<(TopicName, SubscriptionId)>,
    /// Who has a pattern.
    patterned: OrdSet<SubscriptionId>,
    next_partition: PartitionId,
}

impl View {
    /// Applies the change at `index`. The same changes give the same view everywhere.
    ///
    /// # Panics
    ///
    /// When `index` is not above the view's version: changes come in the log's order. Between two
    /// of them may lie entries that are Raft's own.
    pub fn apply(&mut self, index: ChangeIndex, change: &Change) {
        assert!(index > self.version, "change {index} after {}", self.version);
        self.version = index;
        match change {
            Change::Found { cluster } => self.cluster = self.cluster.or(Some(*cluster)),
            Change::Register { disk, boot, name } => self.register(*disk, *boot, name),
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
        id <= self.next_partition
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
        (self.cluster, self.next_partition).hash(hash);
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
        let count = u64::from(config.partitions.clamp(1, PARTITIONS_MAX));
        let replicas: Vec<DiskId> = self.nodes.keys().copied().take(1).collect();
        let Some(&leader) = replicas.first() else {
            return;
        };
        let shared = Arc::new(config.clone());
        let mut ranges = Vec::new();
        for number in 0..count {
            self.next_partition = self.next_partition.next();
            let id = self.next_partition;
            let slot = ((u128::from(number) << 64) / u128::from(count)) as u64;
            ranges.push(Range { slot, partition: id });
            let partition = Partition {
                id,
                topic: name.clone(),
                config: shared.clone(),
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
        self.match_topic(name);
    }

    /// Finds who means a topic that has just come.
    fn match_topic(&mut self, name: &TopicName) {
        let first: SubscriptionId = "-".parse().expect("the least name of all");
        let plain = self.plain.range((name.clone(), first)..);
        let plain = plain.take_while(|(meant, _)| meant == name).map(|(_, id)| id);
        let patterned = self.patterned.iter().filter(|id| {
            let held = self.subscriptions.get(*id);
            held.is_some_and(|held| held.topics.iter().any(|pattern| pattern.matches(name)))
        });
        let mut ids: Vec<SubscriptionId> = plain.chain(patterned).cloned().collect();
        ids.sort();
        ids.dedup();
        for id in &ids {
            self.amend(id, |subscription| {
                subscription.matched.insert(name.clone());
            });
        }
        if !ids.is_empty() {
            self.subscribers.insert(name.clone(), Arc::new(ids));
        }
    }

    fn amend(&mut self, id: &SubscriptionId, how: impl FnOnce(&mut Subscription)) {
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            how(Arc::make_mut(subscription));
        }
    }

    fn subscribe(
        &mut self,
        id: &SubscriptionId,
        topics: &[TopicPattern],
        from: StartFrom,
        delivery: &Delivery,
        used: WallTime,
    ) {
        if self.subscriptions.contains_key(id) {
            return;
        }
        let mut topics = topics.to_vec();
        topics.sort();
        topics.dedup();
        for name in topics.iter().filter_map(TopicPattern::plain) {
            self.create_topic(&name, &TopicConfig::default());
            self.plain.insert((name, id.clone()));
        }
        if topics.iter().any(|pattern| pattern.plain().is_none()) {
            self.patterned.insert(id.clone());
        }
        let matched = self.topics_meant(id, &topics);
        for name in &matched {
            self.add_subscriber(name, id);
        }
        let (id, created, delivery) = (id.clone(), self.version, delivery.clone());
        let subscription =
            Subscription { id: id.clone(), created, topics, matched, from, delivery, used };
        self.subscriptions.insert(id, Arc::new(subscription));
    }

    /// The topics that there are of those that a subscription names.
    fn topics_meant(&self, id: &SubscriptionId, topics: &[TopicPattern]) -> OrdSet<TopicName> {
        let means = |name: &&TopicName| topics.iter().any(|pattern| pattern.matches(name));
        if self.patterned.contains(id) {
            return self.topics.keys().filter(means).cloned().collect();
        }
        let plain = topics.iter().filter_map(TopicPattern::plain);
        plain.filter(|name| self.topics.contains_key(name)).collect()
    }

    fn add_subscriber(&mut self, name: &TopicName, id: &SubscriptionId) {
        let mut ids = self.subscribers.get(name).map_or_else(Vec::new, |ids| ids.to_vec());
        if let Err(at) = ids.binary_search(id) {
            ids.insert(at, id.clone());
        }
        self.subscribers.insert(name.clone(), Arc::new(ids));
    }

    fn configure_topic(&mut self, name: &TopicName, patch: &ConfigPatch, reset: bool) {
        let Some(topic) = self.topics.get(name) else {
            return self.create_topic(name, &patch.apply(&TopicConfig::default()));
        };
        let base = if reset { TopicConfig::default() } else { topic.config.clone() };
        let mut config = patch.apply(&base);
        config.partitions = topic.partitions.len() as u32;
        if config == topic.config {
            return;
        }
        let mut topic = Topic::clone(topic);
        topic.config = config.clone();
        let shared = Arc::new(config);
        for range in &topic.partitions {
            if let Some(partition) = self.partitions.get_mut(&range.partition) {
                Arc::make_mut(partition).config = shared.clone();
            }
        }
        self.topics.insert(name.clone(), Arc::new(topic));
    }

    fn delete_topic(&mut self, name: &TopicName) {
        let Some(topic) = self.topics.remove(name) else {
            return;
        };
        for range in &topic.partitions {
            self.partitions.remove(&range.partition);
        }
        let ids = self.subscribers.remove(name).unwrap_or_default();
        for id in ids.iter() {
            self.amend(id, |subscription| {
                subscription.matched.remove(name);
            });
        }
    }

    fn unsubscribe(&mut self, id: &SubscriptionId, unused_since: Option<WallTime>) {
        let used = self.subscriptions.get(id).map(|subscription| subscription.used);
        if used.is_none() || unused_since.is_some_and(|since| used > Some(since)) {
            return;
        }
        let subscription = self.subscriptions.remove(id).expect("it was there");
        self.patterned.remove(id);
        for name in subscription.topics.iter().filter_map(TopicPattern::plain) {
            self.plain.remove(&(name, id.clone()));
        }
        for name in &subscription.matched {
            let ids = self.subscribers.get(name).map_or_else(Vec::new, |ids| ids.to_vec());
            let left: Vec<_> = ids.into_iter().filter(|other| other != id).collect();
            if left.is_empty() {
                self.subscribers.remove(name);
            } else {
                self.subscribers.insert(name.clone(), Arc::new(left));
            }
        }
    }

    fn used(&mut self, subscriptions: &[SubscriptionId], at: WallTime) {
        for id in subscriptions {
            self.amend(id, |subscription| subscription.used = subscription.used.max(at));
        }
    }
}

impl Hash for View {
    /// A version names one view, so the version stands for it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version.hash(state);
    }
}
