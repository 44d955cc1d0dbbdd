//! The nodes of the cluster: who has registered, who is down, who is never to come back.

use core::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Leaving, Registration, View};
use crate::ids::{Boot, ChangeIndex, DiskId, NAME_BYTES_MAX, NodeId};
use crate::machine::WallTime;
use crate::zoo::{Bug, planted, seat};

/// How many nodes a cluster has at most.
pub const NODES_MAX: usize = 1_000;
/// How many identities a cluster remembers as retired, at most; no node is retired beyond it, so
/// that none of them is ever taken for a newcomer.
pub const RETIRED_MAX: usize = 100_000;
/// The largest capacity of a node.
pub const CAPACITY_MAX: u32 = 10_000;

/// A node that has registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its Raft id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Its newest run.
    pub boot: Boot,
    /// What tells this run from one of a copied directory under the same boot.
    pub run: u64,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub http: SocketAddr,
    /// What it shares a fate with: a rack, a room; empty where nobody said.
    pub zone: String,
    /// How much it is to hold, beside others; see [`Registration::capacity`].
    pub capacity: u32,
    /// The highest feature level that it understands.
    pub level: u32,
    /// Whether it is to leave the cluster for good, and how.
    pub leaving: Option<Leaving>,
    /// Since when it is known to be down, in cluster time.
    pub down: Option<WallTime>,
}

impl Node {
    /// Whether it is to hold what is placed now: it lives and stays.
    #[must_use]
    pub fn takes_partitions(&self) -> bool {
        self.leaving.is_none() && self.down.is_none()
    }
}

/// An identity that has left the cluster and never comes back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Retired {
    /// Its Raft id.
    pub id: NodeId,
    /// Its name, which another node may have now.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its last run.
    pub boot: Boot,
    /// The change that retired it.
    pub at: ChangeIndex,
}

/// Why a registration changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unfit {
    /// The cluster is not founded.
    #[error("the cluster is not founded")]
    Unfounded,
    /// The identity was retired.
    #[error("the identity was retired")]
    Retired,
    /// The run is not newer than the one that is registered.
    #[error("boot {0} of this identity is registered already")]
    Boot(Boot),
    /// Another node has the name.
    #[error("another node has this name")]
    Name(DiskId),
    /// There is no room for another node.
    #[error("the cluster has as many nodes as it takes")]
    Full,
    /// It does not understand what the cluster has agreed to use.
    #[error("the cluster uses feature level {0}, which this version does not know")]
    Level(u32),
    /// A name, a zone or a capacity is out of range.
    #[error("its name, zone or capacity is out of range")]
    Range,
}

impl View {
    /// Why a registration would change nothing now; `None` when it is accepted.
    #[must_use]
    pub fn unfit(&self, said: &Registration) -> Option<Unfit> {
        let fits = (1..=NAME_BYTES_MAX).contains(&said.name.len())
            && said.zone.len() <= NAME_BYTES_MAX
            && (1..=CAPACITY_MAX).contains(&said.capacity);
        let known = self.nodes.get(&said.disk);
        if self.cluster.is_none() {
            Some(Unfit::Unfounded)
        } else if self.retired.contains_key(&said.disk) {
            Some(Unfit::Retired)
        } else if let Some(node) = known.filter(|node| node.boot >= said.boot) {
            Some(Unfit::Boot(node.boot))
        } else if let Some(other) = self.named(&said.name).filter(|other| *other != said.disk) {
            Some(Unfit::Name(other))
        } else if known.is_none() && self.nodes.len() >= NODES_MAX {
            Some(Unfit::Full)
        } else if said.level < self.level {
            Some(Unfit::Level(self.level))
        } else {
            (!fits).then_some(Unfit::Range)
        }
    }

    /// The node of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<DiskId> {
        self.nodes.iter().find(|(_, node)| node.name == name).map(|(disk, _)| *disk)
    }

    /// The identity, present or retired, that has this Raft id.
    #[must_use]
    pub fn disk_of(&self, id: NodeId) -> Option<DiskId> {
        self.by_id.get(&id).copied()
    }

    /// Whether this run is the registered one.
    #[must_use]
    pub fn has_registered(&self, disk: DiskId, boot: Boot) -> bool {
        self.nodes.get(&disk).is_some_and(|node| node.boot == boot)
    }

    /// How many partitions a node holds.
    #[must_use]
    pub fn partitions_held(&self, disk: DiskId) -> usize {
        self.held.get(&disk).map_or(0, |held| held.len())
    }

    pub(super) fn register(&mut self, said: &Registration) {
        if self.unfit(said).is_none() {
            self.enter(said);
        }
    }

    /// A run begins that is fit to.
    fn enter(&mut self, said: &Registration) {
        let disk = said.disk;
        let known = self.nodes.get(&disk);
        let id = match known {
            Some(node) => node.id,
            None if self.by_id.is_empty() => NodeId(0),
            None => NodeId(self.version.0),
        };
        let Registration { name, zone, address, http, .. } = said.clone();
        let Registration { boot, run, capacity, level, .. } = *said;
        let (leaving, down) = (known.and_then(|node| node.leaving), None);
        let node =
            Node { id, name, boot, run, address, http, zone, capacity, level, leaving, down };
        self.nodes.insert(disk, Arc::new(node));
        let is_new = self.by_id.insert(id, disk).is_none();
        if planted(Bug::EpochResumed) {
            self.thaw(disk);
        } else {
            self.begin_run(disk, said.clean);
        }
        if is_new {
            self.recount_all();
        }
    }

    /// The identity leaves for ever; the node that would be left alone by it stays.
    pub(super) fn retire(&mut self, disk: DiskId, boot: Boot) {
        if !self.has_registered(disk, boot)
            || self.nodes.len() == 1
            || self.retired.len() >= RETIRED_MAX
        {
            return;
        }
        self.remove(disk);
        self.bereave(disk);
        self.recount_all();
    }

    /// An identity leaves for ever, and another one is there in its place.
    pub(super) fn replace(&mut self, (disk, boot): (DiskId, Boot), by: &Registration) {
        let is_former = |node: &Arc<Node>| node.boot == boot && node.name == by.name;
        if self.nodes.contains_key(&by.disk)
            || !self.nodes.get(&disk).is_some_and(is_former)
            || self.retired.len() >= RETIRED_MAX
        {
            return;
        }
        let mut next = self.clone();
        next.remove(disk);
        if next.unfit(by).is_none() {
            next.enter(by);
            // With both counted: what a set keeps at least falls when a node leaves, and never
            // because its disk was lost.
            next.bereave(disk);
            next.recount_all();
            *self = next;
        }
    }

    fn remove(&mut self, disk: DiskId) {
        let node = self.nodes.remove(&disk).expect("it has registered");
        let Node { id, name, zone, boot, .. } = Node::clone(&node);
        let retired = Retired { id, name, zone, boot, at: self.version };
        self.retired.insert(disk, Arc::new(retired));
    }

    /// A node is to leave; the last one that stays does not.
    pub(super) fn decommission(&mut self, disk: DiskId, how: Leaving) {
        let stays = |(other, node): (&DiskId, &Arc<Node>)| *other != disk && node.leaving.is_none();
        if self.nodes.iter().any(stays) {
            self.amend_node(disk, |node| node.leaving = node.leaving.max(Some(how)));
            self.recount_all();
        }
    }

    /// These runs are down.
    pub(super) fn fail(&mut self, nodes: &[(DiskId, Boot)], at: WallTime) {
        let at = WallTime(at.0 ^ seat(Bug::DownByOwnClock) as u64);
        for &(disk, boot) in nodes {
            if self.has_registered(disk, boot) {
                self.amend_node(disk, |node| node.down = node.down.or(Some(at)));
            }
        }
    }

    /// These runs are not down.
    pub(super) fn revive(&mut self, nodes: &[(DiskId, Boot)]) {
        for &(disk, boot) in nodes {
            if self.has_registered(disk, boot) {
                self.amend_node(disk, |node| node.down = None);
                self.thaw(disk);
            }
        }
    }

    /// What every node understands may be used from now on.
    pub(super) fn raise(&mut self, level: u32) {
        let common = self.nodes.values().map(|node| node.level).min();
        if common.is_some_and(|common| level <= common) {
            self.level = self.level.max(level);
            self.recount_all();
        }
    }

    fn amend_node(&mut self, disk: DiskId, how: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&disk) {
            how(Arc::make_mut(node));
        }
    }
}
