//! Topics and their partitions: made, configured, deleted.

use std::sync::Arc;

use super::{Member, Partition, View};
use crate::cluster::dht;
use crate::cluster::placement::Candidates;
use crate::cluster::topic::{ConfigPatch, Durability, PARTITIONS_MAX, Range, Topic, TopicConfig};
use crate::ids::{Epoch, PartitionId, SubscriptionId, TopicName};

impl View {
    pub(super) fn create_topic(&mut self, name: &TopicName, config: &TopicConfig) {
        if self.topics.contains_key(name) {
            return;
        }
        let count = u64::from(config.partitions.clamp(1, PARTITIONS_MAX));
        if self.nodes.is_empty() {
            return;
        }
        let mut candidates = Candidates::of(self);
        // They hold all that there is as well as those who live.
        let mut down =
            Candidates::which(self, |node| node.leaving.is_none() && node.down.is_some());
        let shared = Arc::new(config.clone());
        let (wanted, min_in_sync) = (self.replicas_wanted(config), self.min_in_sync_wanted(config));
        let mut ranges = Vec::new();
        for number in 0..count {
            self.last_partition = self.last_partition.next();
            let id = self.last_partition;
            let key = dht::key(name, number as u32).slot();
            let mut replicas = candidates.choose(key, wanted);
            let missing = wanted.saturating_sub(replicas.len());
            replicas.extend(down.choose_beside(key, &replicas, missing));
            let live = replicas.iter().filter(|disk| self.is_up(**disk)).count();
            let leader = *replicas.first().expect("there are candidates");
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
                in_sync: replicas.iter().copied().map(Member::whole).collect(),
                min_in_sync: min_in_sync.min(replicas.len() as u32),
                // Enough who live go on without the others as soon as somebody rules so.
                frozen: live < min_in_sync as usize,
                replicas,
                early: config.durability != Durability::Fsync,
                trusted: 0,
            };
            self.hold(&partition);
            self.partitions.insert(id, Arc::new(partition));
        }
        let topic = Topic { name: name.clone(), config: config.clone(), partitions: ranges };
        self.topics.insert(name.clone(), Arc::new(topic));
        self.match_topic(name);
    }

    /// Notes who holds a partition that has come.
    pub(super) fn hold(&mut self, partition: &Partition) {
        for disk in &partition.replicas {
            self.held.entry(*disk).or_default().insert(partition.id);
        }
    }

    /// Notes that nobody holds a partition any more.
    pub(super) fn let_go(&mut self, partition: &Partition) {
        for disk in &partition.replicas {
            if let Some(held) = self.held.get_mut(disk) {
                held.remove(&partition.id);
                if held.is_empty() {
                    self.held.remove(disk);
                }
            }
        }
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

    pub(super) fn configure_topic(&mut self, name: &TopicName, patch: &ConfigPatch, reset: bool) {
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
                let partition = Arc::make_mut(partition);
                partition.config = shared.clone();
                partition.early |= shared.durability != Durability::Fsync;
            }
        }
        let ids: Vec<PartitionId> = topic.partitions.iter().map(|range| range.partition).collect();
        self.topics.insert(name.clone(), Arc::new(topic));
        self.recount(&ids);
    }

    pub(super) fn delete_topic(&mut self, name: &TopicName) {
        let Some(topic) = self.topics.remove(name) else {
            return;
        };
        for range in &topic.partitions {
            if let Some(partition) = self.partitions.remove(&range.partition) {
                self.let_go(&partition);
            }
        }
        let ids = self.subscribers.remove(name).unwrap_or_default();
        for id in ids.iter() {
            self.amend(id, |subscription| {
                subscription.matched.remove(name);
            });
        }
    }
}
