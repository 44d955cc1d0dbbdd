//! Who founds a cluster, when several nodes start with nothing: at most one of them, and only when
//! all whom it knows of have said that they have nothing either.
//!
//! A node's *set* is the identities behind its listed seeds, and its own. It founds when each of
//! the set has answered, in this start, that it belongs to no cluster and has the same set, and its
//! own identity is the lowest of them. Two nodes whose sets meet and who both found would have the
//! same set, and so the same lowest. So "each lists all", "each lists the others" and "all list the
//! first" each found exactly one cluster.
//!
//! A node that belongs, or has ever belonged, to a cluster does not come here.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, DiskId};
use crate::zoo::{Bug, planted};

/// How many seeds a node lists at most.
pub const SEEDS_MAX: usize = 64;

/// What a node without a cluster asks its seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedQuestion {
    /// Who asks.
    pub disk: DiskId,
}

/// What a seed answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedAnswer {
    /// Who answers.
    pub disk: DiskId,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// Its set, when it belongs to none and has heard from all its seeds.
    pub set: Option<BTreeSet<DiskId>>,
}

/// What a node without a cluster is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Found one.
    Found,
    /// Join the cluster that this seed belongs to.
    Join(SocketAddr),
    /// Ask again, for one of these reasons.
    Wait(Waiting),
}

/// Why a node neither founds nor joins yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These seeds have not answered.
    Silent(Vec<SocketAddr>),
    /// This seed has other seeds, or has not heard from all of its own.
    Differs(SocketAddr),
    /// This seed founds.
    Lower(SocketAddr),
}

/// A node without a cluster, among its seeds.
#[derive(Clone, Debug)]
pub struct Founding {
    me: DiskId,
    seeds: BTreeSet<SocketAddr>,
    /// The newest answer of each seed that has given one in this start; at most as many as there
    /// are seeds.
    answers: BTreeMap<SocketAddr, SeedAnswer>,
    /// The seed that was last asked to let this node in, and did not.
    turned_away: Option<SocketAddr>,
    /// Whether silence does not count: an operator knows better.
    is_told: bool,
}

impl Founding {
    /// A node that has just started with nothing. `is_told` founds without waiting for anybody.
    #[must_use]
    pub fn new(me: DiskId, seeds: BTreeSet<SocketAddr>, is_told: bool) -> Self {
        Self { me, seeds, answers: BTreeMap::new(), turned_away: None, is_told }
    }

    /// Whom to ask.
    pub fn seeds(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.seeds.iter().copied()
    }

    /// What to ask them.
    #[must_use]
    pub fn question(&self) -> SeedQuestion {
        SeedQuestion { disk: self.me }
    }

    /// What to answer when others ask.
    #[must_use]
    pub fn answer(&self) -> SeedAnswer {
        SeedAnswer { disk: self.me, cluster: None, set: self.set() }
    }

    /// A seed has answered; an address that is no seed's is not heard.
    pub fn answered(&mut self, seed: SocketAddr, answer: SeedAnswer) {
        if self.seeds.contains(&seed) {
            self.answers.insert(seed, answer);
        }
    }

    /// A seed that belongs to a cluster could not let this node in: it has died, has left, or does
    /// not know who leads. The next one that belongs to one is asked.
    pub fn turned_away(&mut self, seed: SocketAddr) {
        self.turned_away = Some(seed);
    }

    /// Who is behind the seeds, and this node; unknown until all have answered.
    fn set(&self) -> Option<BTreeSet<DiskId>> {
        let silence =
            |seed: &&SocketAddr| !planted(Bug::FoundsInSilence) || self.answers.contains_key(seed);
        let counted = self.seeds.iter().filter(silence);
        let behind = counted.map(|seed| self.answers.get(seed).map(|said| said.disk));
        behind.chain([Some(self.me)]).collect()
    }

    /// What to do, by what is known.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let belongs = |(_, answer): &(&SocketAddr, &SeedAnswer)| answer.cluster.is_some();
        let mut members = self.answers.iter().filter(belongs).map(|(seed, _)| *seed);
        let next = members.clone().find(|seed| Some(*seed) > self.turned_away);
        if let Some(seed) = next.or_else(|| members.next()) {
            return Verdict::Join(seed);
        }
        if self.is_told {
            return Verdict::Found;
        }
        let Some(set) = self.set() else {
            let silent = self.seeds.iter().filter(|seed| !self.answers.contains_key(seed));
            return Verdict::Wait(Waiting::Silent(silent.copied().collect()));
        };
        // This node's own answer to itself, where it lists itself, says nothing about others.
        let others = || self.answers.iter().filter(|(_, answer)| answer.disk != self.me);
        if let Some((&seed, _)) = others().find(|(_, answer)| answer.set.as_ref() != Some(&set)) {
            return Verdict::Wait(Waiting::Differs(seed));
        }
        match others().find(|(_, answer)| answer.disk < self.me) {
            Some((&seed, _)) => Verdict::Wait(Waiting::Lower(seed)),
            None => Verdict::Found,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    const REGRESSIONS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/founding.txt");

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number as u8], 7_946))
    }

    /// Nodes that ask one another, one question at a time.
    struct World {
        nodes: Vec<Node>,
        clusters: usize,
    }

    struct Node {
        disk: DiskId,
        founding: Founding,
        cluster: Option<ClusterId>,
    }

    impl World {
        fn new(disks: &[u128], seeds: impl Fn(usize) -> Vec<usize>) -> Self {
            let node = |(at, disk): (usize, &u128)| {
                let disk = DiskId(*disk);
                let seeds = seeds(at).into_iter().map(address).collect();
                Node { disk, founding: Founding::new(disk, seeds, false), cluster: None }
            };
            Self { nodes: disks.iter().enumerate().map(node).collect(), clusters: 0 }
        }

        /// A node asks a seed and does what follows.
        fn ask(&mut self, at: usize, seed: usize) {
            let asked = &self.nodes[seed];
            let answer = match asked.cluster {
                Some(_) => SeedAnswer { disk: asked.disk, cluster: asked.cluster, set: None },
                None => asked.founding.answer(),
            };
            let node = &mut self.nodes[at];
            if node.cluster.is_some() {
                return;
            }
            node.founding.answered(address(seed), answer.clone());
            match node.founding.verdict() {
                Verdict::Found => {
                    self.clusters += 1;
                    node.cluster = Some(ClusterId(self.clusters as u128));
                }
                Verdict::Join(_) => node.cluster = answer.cluster.or(node.cluster),
                Verdict::Wait(_) => {}
            }
        }

        /// Everybody asks everybody, often enough.
        fn settle(&mut self) {
            for _ in 0..2 * self.nodes.len() + 2 {
                for at in 0..self.nodes.len() {
                    for seed in 0..self.nodes.len() {
                        if self.nodes[at].founding.seeds.contains(&address(seed)) {
                            self.ask(at, seed);
                        }
                    }
                }
            }
        }
    }

    /// The ways in which people list seeds.
    fn listed(style: usize, at: usize, count: usize) -> Vec<usize> {
        match style {
            0 => (0..count).collect(),
            1 => (0..count).filter(|other| *other != at).collect(),
            _ => vec![0],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn exactly_one_cluster_is_founded_in_whatever_order_they_ask(
            disks in prop::collection::btree_set(1_u128..1_000, 2..7),
            style in 0_usize..3,
            order in prop::collection::vec((0_usize..7, 0_usize..7), 0..200),
            rotate in 0_usize..7,
        ) {
            let mut disks: Vec<u128> = disks.into_iter().collect();
            let count = disks.len();
            disks.rotate_left(rotate % count);
            let mut world = World::new(&disks, |at| listed(style, at, count));
            for (at, seed) in order {
                let (at, seed) = (at % count, seed % count);
                if listed(style, at, count).contains(&seed) {
                    world.ask(at, seed);
                    prop_assert!(world.clusters <= 1);
                }
            }
            world.settle();
            prop_assert_eq!(world.clusters, 1);
            let first = world.nodes[0].cluster;
            prop_assert!(world.nodes.iter().all(|node| node.cluster == first));
        }

        #[test]
        fn nodes_that_know_of_each_other_never_found_two(
            lists in prop::collection::vec(prop::collection::btree_set(0_usize..5, 1..5), 5),
            order in prop::collection::vec((0_usize..5, 0_usize..5), 0..300),
        ) {
            // Each lists whom it likes. Two may found only if neither lists the other.
            let mut world = World::new(&[3, 1, 4, 2, 5], |at| lists[at].iter().copied().collect());
            let mut founders: Vec<usize> = Vec::new();
            for (at, seed) in order {
                let before = world.clusters;
                if lists[at].contains(&seed) {
                    world.ask(at, seed);
                }
                if world.clusters > before {
                    for other in &founders {
                        prop_assert!(!lists[at].contains(other) && !lists[*other].contains(&at));
                    }
                    founders.push(at);
                }
            }
        }
    }

    #[test]
    fn a_silent_seed_stops_the_founding_and_is_named() {
        let seeds = [address(1), address(2)];
        let mut founding = Founding::new(DiskId(1), seeds.into(), false);
        let set = Some(BTreeSet::from([DiskId(1), DiskId(2)]));
        founding.answered(seeds[0], SeedAnswer { disk: DiskId(2), cluster: None, set });
        assert_eq!(founding.verdict(), Verdict::Wait(Waiting::Silent(vec![seeds[1]])));
        let told = Founding { is_told: true, ..founding.clone() };
        assert_eq!(told.verdict(), Verdict::Found);
        let cluster = Some(ClusterId(1));
        founding.answered(seeds[1], SeedAnswer { disk: DiskId(3), cluster, set: None });
        assert_eq!(founding.verdict(), Verdict::Join(seeds[1]));
    }

    #[test]
    fn who_is_turned_away_asks_the_next_one() {
        let seeds: BTreeSet<_> = [1, 2, 3].map(address).into();
        let mut founding = Founding::new(DiskId(9), seeds, false);
        for (number, cluster) in [(1, Some(ClusterId(7))), (2, None), (3, Some(ClusterId(7)))] {
            let answer = SeedAnswer { disk: DiskId(number), cluster, set: None };
            founding.answered(address(number as usize), answer);
        }
        for expected in [1, 3, 1, 3] {
            assert_eq!(founding.verdict(), Verdict::Join(address(expected)));
            founding.turned_away(address(expected));
        }
    }

    #[test]
    fn a_node_without_seeds_founds() {
        assert_eq!(Founding::new(DiskId(1), BTreeSet::new(), false).verdict(), Verdict::Found);
    }
}
