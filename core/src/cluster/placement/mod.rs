//! Who should own a partition: weighted rendezvous with bounded load, over distinct zones.
//!
//! A pure function of the nodes, of what they hold already and of the partition's key: whole
//! numbers only, and no order of any input matters, so that every node that asks finds the same.
//! Rendezvous hashing is Thaler and Ravishankar's (1998), its weights by the logarithm of the
//! hash; the bound on the load is that of Mirrokni, Thorup and Zadimoghaddam (2018).

mod moves;
mod rank;
mod watch;

use std::collections::BTreeMap;

pub use moves::{MOVES_MAX, Move, moves};
pub use watch::PlacementWatch;

use super::metadata::View;
use crate::ids::DiskId;

/// How much more than its share a node holds at most, in hundredths.
pub const LOAD_PERCENT_MAX: u64 = 105;
/// How many owners a partition has at most.
pub const OWNERS_MAX: usize = 5;

/// A node that may own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub disk: DiskId,
    /// What it shares a fate with.
    pub zone: String,
    /// Its share beside others, 1 or more.
    pub weight: u32,
    /// How many copies it holds.
    pub held: u64,
}

/// Who may be chosen, and what all of them hold together.
#[derive(Clone, Debug)]
pub struct Candidates {
    nodes: Vec<Candidate>,
    held: u64,
    weight: u64,
}

impl Candidates {
    /// These nodes, in whatever order.
    #[must_use]
    pub fn new(mut nodes: Vec<Candidate>) -> Self {
        nodes.sort_by_key(|node| node.disk);
        nodes.dedup_by_key(|node| node.disk);
        let held = nodes.iter().map(|node| node.held).sum();
        let weight = nodes.iter().map(|node| u64::from(node.weight)).sum();
        Self { nodes, held, weight }
    }

    /// The nodes that take partitions; where none does, all of them.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let some = view.nodes.values().any(|node| node.takes_partitions());
        let nodes = view.nodes.iter().filter(|(_, node)| !some || node.takes_partitions());
        let candidate = |(disk, node): (&DiskId, &std::sync::Arc<super::metadata::Node>)| {
            let (disk, zone, weight) = (*disk, node.zone.clone(), node.capacity);
            Candidate { disk, zone, weight, held: view.partitions_held(disk) as u64 }
        };
        Self::new(nodes.map(candidate).collect())
    }

    /// The nodes, ascending.
    #[must_use]
    pub fn nodes(&self) -> &[Candidate] {
        &self.nodes
    }

    /// The most that a node may hold when all of them together hold `total`.
    #[must_use]
    pub fn load_max(&self, weight: u32, total: u64) -> u64 {
        let share = u128::from(total) * u128::from(weight) * u128::from(LOAD_PERCENT_MAX);
        share.div_ceil(u128::from(self.weight.max(1)) * 100) as u64
    }

    /// Chooses up to `factor` owners for the partition with this key, the first one to lead, and
    /// counts what they hold with it. Zones come before load: a second owner in a zone is chosen
    /// only when each zone that has another node has one. Within that a node above its bound is
    /// chosen only when no other is left.
    pub fn choose(&mut self, key: u64, factor: usize) -> Vec<DiskId> {
        self.choose_beside(key, &[], factor)
    }

    /// Chooses up to `count` owners more for a partition that these own already, by the same rules.
    pub fn choose_beside(&mut self, key: u64, owners: &[DiskId], count: usize) -> Vec<DiskId> {
        let count = count.min(OWNERS_MAX).min(self.nodes.len());
        let total = self.held + count as u64;
        let ranks: Vec<_> = self.nodes.iter().map(|node| rank::rank(key, node)).collect();
        let mut chosen: Vec<usize> = Vec::new();
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in self.nodes.iter().filter(|node| owners.contains(&node.disk)) {
            *zones.entry(&owner.zone).or_default() += 1;
        }
        while chosen.len() < count {
            let is_free =
                |at: &usize| !chosen.contains(at) && !owners.contains(&self.nodes[*at].disk);
            let left = (0..self.nodes.len()).filter(is_free);
            let best = left.min_by(|&a, &b| {
                let order = |at: usize| {
                    let node = &self.nodes[at];
                    let crowd = zones.get(&*node.zone).copied().unwrap_or(0);
                    let excess = (node.held + 1).saturating_sub(self.load_max(node.weight, total));
                    (crowd, excess)
                };
                let ranked = ranks[a].compare(&ranks[b]);
                order(a).cmp(&order(b)).then(ranked)
            });
            let Some(best) = best else { break };
            chosen.push(best);
            if !crate::zoo::planted(crate::zoo::Bug::ZoneIgnored) {
                *zones.entry(&self.nodes[best].zone).or_default() += 1;
            }
        }
        for &at in &chosen {
            self.nodes[at].held += 1;
            self.held += 1;
        }
        chosen.into_iter().map(|at| self.nodes[at].disk).collect()
    }
}

/// Who would own the partition with this key if it were placed now: for people, and for moves.
#[must_use]
pub fn preferred(view: &View, key: u64, factor: usize) -> Vec<DiskId> {
    Candidates::of(view).choose(key, factor)
}
