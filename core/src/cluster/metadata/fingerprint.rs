//! The hash by which nodes compare their metadata: that of a version is found from the one before,
//! in time that grows with what differs.

use std::hash::{Hash, Hasher as _};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::View;
use crate::machine::Digest;

/// A view and its hash: all of it but what is derived.
///
/// Each entry of a map is hashed by itself and a map is the sum of its entries, so that what comes
/// and goes is added and taken away. It resists accidents, not adversaries.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    view: View,
    /// Nodes, retired identities, topics, partitions, subscriptions.
    sums: [u64; 5],
}

impl Fingerprint {
    /// The hash of this view, which is now the one that the next is compared with: any other, but
    /// the less they share, the longer it takes.
    pub fn of(&mut self, view: &View) -> u64 {
        let [nodes, retired, topics, partitions, subscriptions] = &mut self.sums;
        add(nodes, &self.view.nodes, &view.nodes);
        add(retired, &self.view.retired, &view.retired);
        add(topics, &self.view.topics, &view.topics);
        add(partitions, &self.view.partitions, &view.partitions);
        add(subscriptions, &self.view.subscriptions, &view.subscriptions);
        self.view = view.clone();
        hash_of(&(view.version, view.cluster, view.level, view.last_partition, self.sums))
    }
}

fn add<K: Hash + Ord, V: Hash + PartialEq>(
    sum: &mut u64,
    before: &OrdMap<K, V>,
    after: &OrdMap<K, V>,
) {
    for item in before.diff(after) {
        let (old, new) = match item {
            DiffItem::Add(key, value) => (None, Some((key, value))),
            DiffItem::Update { old, new } => (Some(old), Some(new)),
            DiffItem::Remove(key, value) => (Some((key, value)), None),
        };
        *sum = sum.wrapping_sub(old.map_or(0, |old| hash_of(&old)));
        *sum = sum.wrapping_add(new.map_or(0, |new| hash_of(&new)));
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hash = Digest::default();
    value.hash(&mut hash);
    hash.finish()
}

impl View {
    /// Its hash, found from nothing.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        Fingerprint::default().of(self)
    }
}
