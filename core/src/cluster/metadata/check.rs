//! What always holds of the metadata.

use std::collections::BTreeSet;

use imbl::{OrdMap, OrdSet};

use super::{NODES_MAX, RETIRED_MAX, View};
use crate::ids::{DiskId, PartitionId, SubscriptionId, TopicName};

impl View {
    /// Checks the invariants that [`View`] lists.
    ///
    /// # Errors
    ///
    /// Says what breaks which.
    pub fn check(&self) -> Result<(), String> {
        self.check_nodes()?;
        let mut held: OrdMap<DiskId, OrdSet<PartitionId>> = OrdMap::new();
        for partition in self.partitions.values() {
            self.check_partition(partition)?;
            for disk in &partition.replicas {
                held.entry(*disk).or_default().insert(partition.id);
            }
        }
        if held != self.held {
            return Err("(7) who holds which partitions is not what the partitions say".to_owned());
        }
        self.check_subscriptions()
    }

    fn check_nodes(&self) -> Result<(), String> {
        let names: BTreeSet<&str> = self.nodes.values().map(|node| &*node.name).collect();
        if names.len() != self.nodes.len() {
            return Err("(4) two nodes have one name".to_owned());
        }
        let both = self.nodes.keys().find(|disk| self.retired.contains_key(*disk));
        if let Some(disk) = both {
            return Err(format!("(4) {disk} is a node and retired"));
        }
        let nodes = self.nodes.iter().map(|(disk, node)| (node.id, *disk));
        let retired = self.retired.iter().map(|(disk, retired)| (retired.id, *disk));
        let by_id: OrdMap<_, _> = nodes.chain(retired).collect();
        if by_id != self.by_id || by_id.len() != self.nodes.len() + self.retired.len() {
            return Err("(4, 7) the Raft ids are not those of the identities".to_owned());
        }
        if self.nodes.len() > NODES_MAX || self.retired.len() > RETIRED_MAX {
            let (nodes, retired) = (self.nodes.len(), self.retired.len());
            return Err(format!("(5) {nodes} nodes and {retired} retired identities"));
        }
        match self.nodes.values().find(|node| node.level < self.level) {
            Some(node) => {
                let (name, level) = (&node.name, self.level);
                Err(format!("(6) node {name} does not understand feature level {level}"))
            }
            None => Ok(()),
        }
    }

    fn check_subscriptions(&self) -> Result<(), String> {
        let mut subscribers: OrdMap<&TopicName, Vec<&SubscriptionId>> = OrdMap::new();
        let (mut plain, mut patterned) = (OrdSet::new(), OrdSet::new());
        for (id, subscription) in &self.subscriptions {
            for topic in &subscription.matched {
                subscribers.entry(topic).or_default().push(id);
            }
            for pattern in &subscription.topics {
                match pattern.plain() {
                    Some(name) => drop(plain.insert((name, id.clone()))),
                    None => drop(patterned.insert(id.clone())),
                }
            }
        }
        let same = subscribers.len() == self.subscribers.len()
            && subscribers.iter().zip(&self.subscribers).all(|((topic, ids), (held, stored))| {
                *topic == held && ids.iter().copied().eq(stored.iter())
            });
        if same && plain == self.plain && patterned == self.patterned {
            Ok(())
        } else {
            Err("(7) who subscribes to what is not what the subscriptions say".to_owned())
        }
    }
}
