//! Which third of a cluster dies, whether it comes back, and on what links: expanded from a seed.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cluster::plan::{self, ClusterPlan, LinkPlan};
use crate::plan::Draw;
use crate::shrink::Parts;

/// What befalls a third of the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// One zone of three dies, and its disks are gone
    ByZone,
    /// Any third dies, and its disks are gone
    AtRandom,
    /// Any third loses power, and comes back
    Restarts,
}

impl Scenario {
    /// As the command line has it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The dice.
#[repr(u64)]
enum Purpose {
    Struck = 50_000,
    Links = 50_001,
    Disk = 50_002,
    Knobs = 50_003,
}

/// How many partitions are written to.
const PARTITIONS: u64 = 60;
/// The time between two messages to each.
const PAUSE_MS: u64 = 100;
/// How long they are written to before the deaths.
const BEFORE_MS: u64 = 10_000;
/// The longest way of a packet that is not late.
const LATENCY_US_MAX: u64 = 5_000;
/// In half of the seeds one of a hundred packets is lost.
const LOSS_PERMILLE: u64 = 10;

/// The death of a third.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThirdPlan {
    pub(crate) scenario: Scenario,
    /// The machines, their links and their disks; no other faults, no other clients.
    pub(crate) cluster: ClusterPlan,
    /// Each has three copies and a writer.
    pub(crate) partitions: u64,
    /// Each writer has another message after so long, whatever became of the last one.
    pub(crate) pause_ms: u64,
    pub(crate) before_ms: u64,
    /// Which machines die, and after how long each comes back, where they do.
    pub(crate) struck: Vec<(usize, u64)>,
}

impl ThirdPlan {
    /// The plan of a seed, for so many nodes.
    pub(crate) fn of_seed(seed: u64, scenario: Scenario, nodes: usize) -> Self {
        let mut dice = Draw::new(seed, Purpose::Struck as u64);
        let struck: Vec<usize> = match scenario {
            Scenario::ByZone => {
                let zone = dice.range(0, 2) as usize;
                (0..nodes).filter(|number| number % 3 == zone).collect()
            }
            Scenario::AtRandom | Scenario::Restarts => any(nodes / 3, nodes, &mut dice),
        };
        let struck = struck.into_iter().map(|number| (number, dice.log_range(200, 5_000)));
        let struck = struck.collect();
        let mut links = Draw::new(seed, Purpose::Links as u64);
        let longest = links.log_range(500, LATENCY_US_MAX);
        let link = LinkPlan {
            latency_us: (links.log_range(50, longest), longest),
            loss_permille: links.pick(&[0, LOSS_PERMILLE]),
            tail_permille: 0,
            tail_us_max: 0,
            duplicate_permille: 0,
        };
        let mut knobs = Draw::new(seed, Purpose::Knobs as u64);
        let cluster = ClusterPlan {
            starts_ms: vec![0; nodes],
            zones: if scenario == Scenario::ByZone { 3 } else { 1 },
            link,
            disk: plan::pace(&mut Draw::new(seed, Purpose::Disk as u64)),
            clients: 0,
            age_ms: 0,
            early: 0,
            subscribers: Vec::new(),
            cache_bytes: plan::CACHE_BYTES,
            checkpoint_entries: 4_096,
            newest_first_bytes: knobs.pick(&plan::NEWEST_FIRST_BYTES),
            older_bytes: plan::OLDER_BYTES as u32,
            older_rate: 0,
            ..ClusterPlan::of_seed(seed, Some(nodes as u32), true)
        };
        Self {
            scenario,
            cluster,
            partitions: PARTITIONS,
            pause_ms: PAUSE_MS,
            before_ms: BEFORE_MS,
            struck,
        }
    }
}

impl ThirdPlan {
    /// What may become smaller.
    pub(crate) const PARTS: Parts = Parts {
        lists: &[("/struck", 1), ("/cluster/starts_ms", 3)],
        options: &[],
        numbers: &[("/partitions", 1), ("/before_ms", 0), ("/cluster/link/loss_permille", 0)],
        magnitudes: &[],
        pauses: &["/pause_ms"],
    };

    /// Whether those who die do so for ever.
    pub(crate) fn is_for_ever(&self) -> bool {
        match self.scenario {
            Scenario::ByZone | Scenario::AtRandom => true,
            Scenario::Restarts => false,
        }
    }
}

/// So many numbers below `all`, each set of them alike.
fn any(count: usize, all: usize, dice: &mut Draw) -> Vec<usize> {
    let mut left: Vec<usize> = (0..all).collect();
    let drawn = (0..count).map(|_| left.swap_remove(dice.range(0, left.len() as u64 - 1) as usize));
    drawn.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_third_dies_and_of_zones_a_whole_one() {
        for seed in 0..50 {
            for (nodes, third) in [(3, 1), (6, 2), (9, 3), (15, 5)] {
                for scenario in [Scenario::ByZone, Scenario::AtRandom, Scenario::Restarts] {
                    let plan = ThirdPlan::of_seed(seed, scenario, nodes);
                    let struck: BTreeSet<usize> = plan.struck.iter().map(|one| one.0).collect();
                    assert_eq!(struck.len(), third);
                    assert!(struck.iter().all(|&number| number < nodes));
                    let zones: BTreeSet<usize> =
                        struck.iter().map(|number| number % plan.cluster.zones as usize).collect();
                    assert_eq!(zones.len(), 1, "one zone dies, or there is one");
                }
            }
        }
    }

    #[test]
    fn a_plan_survives_its_text() {
        let plan = ThirdPlan::of_seed(7, Scenario::Restarts, 9);
        let text = serde_json::to_string(&plan).expect("a plan is data");
        assert_eq!(serde_json::from_str::<ThirdPlan>(&text).expect("it was a plan"), plan);
    }
}
