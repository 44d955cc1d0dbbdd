//! Who should own a partition: weighted rendezvous with bounded load, over distinct zones.
//!
//! A pure function of the nodes, of what they hold already and of the partition's key: whole
//! numbers only, and no order of any input matters, so that every node that asks finds the same.
//! Rendezvous hashing is Thaler and Ravishankar's (1998), its weights by the logarithm of the
//! hash; the bound on the load is that of Mirrokni, Thorup and Zadimoghaddam (2018).

mod moves;
mod rank;
mod watch;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use moves::{Move, moves};
pub use watch::PlacementWatch;

use super::metadata::{Node, View};
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

impl Candidate {
    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill { held: self.held, weight: self.weight }
    }
}

/// How full a node is: what it holds, by its weight.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// How much it holds.
    pub held: u64,
    /// Its share beside others.
    pub weight: u32,
}

impl Fill {
    /// Which of two is fuller.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.held) * u128::from(other.weight);
        mine.cmp(&(u128::from(other.held) * u128::from(self.weight)))
    }

    /// Whether it is left no emptier than the other becomes when something goes there.
    #[must_use]
    pub fn may_give_to(&self, other: &Self) -> bool {
        self.compare(&Self { held: other.held + 1, ..*other }).is_gt()
    }
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
        Self::which(view, |node| !some || node.takes_partitions())
    }

    /// The nodes of which this holds.
    #[must_use]
    pub fn which(view: &View, holds: impl Fn(&Node) -> bool) -> Self {
        let nodes = view.nodes.iter().filter(|(_, node)| holds(node));
        let candidate = |(disk, node): (&DiskId, &Arc<Node>)| {
            let (disk, zone, weight) = (*disk, node.zone.clone(), node.capacity);
            Candidate { disk, zone, weight, held: view.partitions_held(disk) as u64 }
        };
        Self::new(nodes.map(candidate).collect())
    }

    fn at(&self, disk: DiskId) -> Option<usize> {
        self.nodes.binary_search_by_key(&disk, |node| node.disk).ok()
    }

    /// Which of these owners is to give up its copy first, by its place among them: whoever shares
    /// a zone with most of the others; of those, whoever holds the most for its size; of those, the
    /// last. `None` where none of them is a candidate.
    #[must_use]
    pub fn surplus(&self, owners: &[DiskId]) -> Option<usize> {
        let node = |disk: &DiskId| self.at(*disk).map(|at| &self.nodes[at]);
        let crowd =
            |zone: &String| owners.iter().filter_map(node).filter(|n| n.zone == *zone).count();
        let known = owners.iter().enumerate().filter_map(|(at, disk)| Some((at, node(disk)?)));
        let most = known.max_by(|(_, a), (_, b)| {
            crowd(&a.zone).cmp(&crowd(&b.zone)).then_with(|| a.fill().compare(&b.fill()))
        });
        most.map(|(at, _)| at)
    }

    /// Whether they are in more than one zone.
    #[must_use]
    pub fn have_zones(&self) -> bool {
        self.nodes.windows(2).any(|pair| pair[0].zone != pair[1].zone)
    }

    /// A zone that has a node to spare, and two fewer of these owners than another zone: its name,
    /// how many of them it has, and how many the other one.
    #[must_use]
    pub fn neglected(&self, owners: &[DiskId]) -> Option<(&str, usize, usize)> {
        let mut zones: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for node in &self.nodes {
            let (used, spare) = zones.entry(&node.zone).or_default();
            *(if owners.contains(&node.disk) { used } else { spare }) += 1;
        }
        let most = zones.values().map(|(used, _)| *used).max()?;
        let mut zones = zones.into_iter();
        let found = zones.find(|(_, (used, spare))| *spare > 0 && used + 1 < most);
        found.map(|(zone, (used, _))| (zone, used, most))
    }

    /// One copy more is held there.
    pub fn take(&mut self, disk: DiskId) {
        if let Some(at) = self.at(disk) {
            self.nodes[at].held += 1;
            self.held += 1;
        }
    }

    /// One copy less is held there.
    pub fn give_up(&mut self, disk: DiskId) {
        if let Some(at) = self.at(disk) {
            self.nodes[at].held -= 1;
            self.held -= 1;
        }
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

/// Whether nothing could be given away without another one becoming as full.
#[must_use]
pub fn are_even(fills: impl Iterator<Item = Fill> + Clone) -> bool {
    let least = fills.clone().min_by(Fill::compare);
    least.is_none_or(|least| !fills.clone().any(|fill| fill.may_give_to(&least)))
}

/// Whether all who take partitions hold, and lead, as much as is their share, to one more or less.
#[must_use]
pub fn is_even(view: &View) -> bool {
    let places = Candidates::of(view);
    let leads = leads(view, &places);
    are_even(places.nodes().iter().map(Candidate::fill)) && are_even(leads.values().copied())
}

/// How many partitions the candidates lead.
#[must_use]
pub fn leads(view: &View, places: &Candidates) -> BTreeMap<DiskId, Fill> {
    let weights = places.nodes().iter().map(|node| (node.disk, node.weight));
    let mut fills: BTreeMap<DiskId, Fill> =
        weights.map(|(disk, weight)| (disk, Fill { held: 0, weight })).collect();
    for leader in view.partitions.values().filter_map(|partition| partition.led_by()) {
        fills.entry(leader).and_modify(|fill| fill.held += 1);
    }
    fills
}

/// Who would own the partition with this key if it were placed now: for people, and for moves.
#[must_use]
pub fn preferred(view: &View, key: u64, factor: usize) -> Vec<DiskId> {
    Candidates::of(view).choose(key, factor)
}
