//! What to move when nodes come and go: as little as brings the load back into its bounds.

use std::collections::BTreeMap;

use super::{Candidate, Candidates, Fill, rank};
use crate::ids::{DiskId, PartitionId};

/// One copy of a partition changes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Who has held the copy.
    pub from: DiskId,
    /// Who is to hold it.
    pub to: DiskId,
}

/// What is moved, while it is planned.
struct Plan<'a> {
    nodes: BTreeMap<DiskId, &'a Candidate>,
    held: BTreeMap<DiskId, BTreeMap<PartitionId, u64>>,
    owners: BTreeMap<PartitionId, Vec<DiskId>>,
    moves: Vec<Move>,
    /// Which partitions may be moved.
    may: &'a dyn Fn(PartitionId) -> bool,
    most: usize,
}

/// The moves that bring copies of nodes that are gone to others, then those that share a zone into
/// zones that lack one, and then even the load out: each node ends between the whole numbers around
/// its share, as far as zones allow. A copy is moved at most once, to a node that holds none of its
/// partition and, as long as there is one, in a zone that has none. Partitions that may not be
/// moved count as load only. At most so many; the same question again, after these, gives the rest.
#[must_use]
pub fn moves(
    candidates: &Candidates,
    owners: &[(PartitionId, u64, Vec<DiskId>)],
    may: &dyn Fn(PartitionId) -> bool,
    most: usize,
) -> Vec<Move> {
    let nodes: BTreeMap<_, _> = candidates.nodes().iter().map(|node| (node.disk, node)).collect();
    let mut held: BTreeMap<_, BTreeMap<_, _>> =
        nodes.keys().map(|disk| (*disk, BTreeMap::new())).collect();
    for (partition, key, disks) in owners {
        for disk in disks {
            held.entry(*disk).or_default().insert(*partition, *key);
        }
    }
    let owners = owners.iter().map(|(partition, _, disks)| (*partition, disks.clone())).collect();
    let mut plan = Plan { nodes, held, owners, moves: Vec::new(), may, most };
    if !plan.nodes.is_empty() {
        plan.rescue();
        plan.spread();
        plan.even_out();
    }
    plan.moves
}

impl Plan<'_> {
    /// Copies that nobody among the candidates holds go to whoever has the most room.
    fn rescue(&mut self) {
        let gone = self.held.iter().filter(|(disk, _)| !self.nodes.contains_key(disk));
        let gone: Vec<_> = gone
            .flat_map(|(disk, held)| held.iter().map(|(partition, key)| (*disk, *partition, *key)))
            .collect();
        for (from, partition, key) in gone {
            let takers = self.nodes.values().filter(|node| self.fits(partition, from, node));
            let best = takers.min_by(|a, b| {
                let crowd = |node: &Candidate| self.crowd(partition, from, node);
                let load = self.fill(a.disk).compare(&self.fill(b.disk));
                let ranked = rank::rank(key, a).compare(&rank::rank(key, b));
                crowd(a).cmp(&crowd(b)).then(load).then(ranked)
            });
            if let Some(to) = best.map(|node| node.disk) {
                self.carry(Move { partition, from, to });
            }
        }
    }

    /// Copies that share a zone go to where one is lacking.
    fn spread(&mut self) {
        let partitions: Vec<PartitionId> = self.owners.keys().copied().collect();
        for partition in partitions {
            if let Some(next) = self.next_spread(partition) {
                self.carry(next);
            }
        }
    }

    /// One of a partition's copies that shares a zone with most others, for whoever has the most
    /// room where fewer are.
    fn next_spread(&self, partition: PartitionId) -> Option<Move> {
        if self.moves.len() >= self.most || self.is_fixed(partition) {
            return None;
        }
        let owners = self.owners[&partition].iter().filter_map(|disk| self.nodes.get(disk));
        let from = owners.max_by(|a, b| {
            let crowd = |node: &Candidate| self.crowd(partition, node.disk, node);
            crowd(a).cmp(&crowd(b)).then(self.fill(a.disk).compare(&self.fill(b.disk)))
        })?;
        let crowd = |node: &Candidate| self.crowd(partition, from.disk, node);
        if crowd(from) == 0 {
            return None;
        }
        let takers = self.nodes.values().filter(|node| self.fits(partition, from.disk, node));
        let takers = takers.filter(|node| crowd(node) < crowd(from));
        let to = takers.min_by(|a, b| {
            let load = self.fill(a.disk).compare(&self.fill(b.disk));
            crowd(a).cmp(&crowd(b)).then(load)
        })?;
        Some(Move { partition, from: from.disk, to: to.disk })
    }

    /// Whether a partition may not be moved, or is already.
    fn is_fixed(&self, partition: PartitionId) -> bool {
        !(self.may)(partition) || self.moves.iter().any(|done| done.partition == partition)
    }

    /// Fills the emptiest node from the fullest, until a move would not even anything out.
    fn even_out(&mut self) {
        while self.moves.len() < self.most {
            let Some(next) = self.next_even() else { return };
            self.carry(next);
        }
    }

    fn next_even(&self) -> Option<Move> {
        let mut takers: Vec<DiskId> = self.nodes.keys().copied().collect();
        takers.sort_by(|a, b| self.fill(*a).compare(&self.fill(*b)).then(a.cmp(b)));
        let givers: Vec<DiskId> = takers.iter().rev().copied().collect();
        for &to in &takers {
            for &from in &givers {
                if from == to || !self.fill(from).may_give_to(&self.fill(to)) {
                    break;
                }
                if let Some(found) = self.best(from, to) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// The copy of `from` that `to` is wanted for most.
    fn best(&self, from: DiskId, to: DiskId) -> Option<Move> {
        let node = self.nodes[&to];
        let fitting = self.held[&from].iter().filter(|&(&partition, _)| {
            let better =
                self.crowd(partition, from, node) <= self.crowd(partition, from, self.nodes[&from]);
            better && self.fits(partition, from, node) && !self.is_fixed(partition)
        });
        let ranked = fitting.min_by(|a, b| rank::rank(*a.1, node).compare(&rank::rank(*b.1, node)));
        ranked.map(|(&partition, _)| Move { partition, from, to })
    }

    fn fits(&self, partition: PartitionId, from: DiskId, node: &Candidate) -> bool {
        node.disk != from && !self.owners[&partition].contains(&node.disk)
    }

    /// How many of the partition's other copies lie in the node's zone.
    fn crowd(&self, partition: PartitionId, from: DiskId, node: &Candidate) -> usize {
        let others = self.owners[&partition].iter().filter(|other| **other != from);
        let zones = others.filter_map(|other| self.nodes.get(other)).map(|other| &other.zone);
        zones.filter(|zone| **zone == node.zone).count()
    }

    fn fill(&self, disk: DiskId) -> Fill {
        let held = self.held.get(&disk).map_or(0, BTreeMap::len) as u64;
        Fill { held, weight: self.nodes.get(&disk).map_or(1, |node| node.weight) }
    }

    fn carry(&mut self, next: Move) {
        let Move { partition, from, to } = next;
        if self.moves.len() >= self.most {
            return;
        }
        let key = self.held.get_mut(&from).and_then(|held| held.remove(&partition));
        let key = key.expect("what is moved is held");
        self.held.entry(to).or_default().insert(partition, key);
        let owners = self.owners.get_mut(&partition).expect("a partition has owners");
        owners.iter_mut().filter(|owner| **owner == from).for_each(|owner| *owner = to);
        self.moves.push(next);
    }
}
