//! A run of any world as data: expanded from a seed, kept when it fails, replayed, made smaller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::{self, ClusterPlan, Scenario, Third, ThirdPlan};
use crate::plan::Plan;
use crate::shrink::Parts;
use crate::world::{self, Watch, apart};

/// What a seed is expanded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One node, and clients of all kinds.
    Node,
    /// A cluster, and who changes its metadata.
    Cluster,
    /// A cluster that loses a third of its nodes.
    Third(Scenario),
}

/// The seed of a run, and what it is expanded to. Written, it is what `replay` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    /// Without faults.
    pub(crate) calm: bool,
    /// How many nodes there are at first, where the seed does not say it.
    pub(crate) nodes: Option<u16>,
}

/// How many nodes lose a third, where nobody says otherwise.
const NODES: u16 = 9;

impl Origin {
    /// Itself, where there is such a run; why not.
    pub(crate) fn checked(self) -> Result<Self, String> {
        match (self.kind, self.nodes) {
            (Kind::Third(_), Some(nodes)) if nodes < 3 => {
                Err(format!("a third of {nodes} nodes is nobody; name 3 or more"))
            }
            (Kind::Third(_) | Kind::Cluster | Kind::Node, _) => Ok(self),
        }
    }

    /// The plan.
    pub(crate) fn case(self) -> Case {
        let Self { seed, kind, calm, nodes } = self;
        match kind {
            Kind::Node => Case::Node(Plan::of_seed(seed, calm)),
            Kind::Cluster => Case::Cluster(ClusterPlan::of_seed(seed, nodes.map(u32::from), calm)),
            Kind::Third(scenario) => {
                let nodes = usize::from(nodes.unwrap_or(NODES));
                Case::Third(ThirdPlan::of_seed(seed, scenario, nodes))
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        match self.kind {
            Kind::Node => {}
            Kind::Cluster => f.write_str(" --world cluster")?,
            Kind::Third(scenario) => write!(f, " --world third --scenario {}", scenario.name())?,
        }
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if self.calm {
            f.write_str(" --profile calm")?;
        }
        Ok(())
    }
}

/// The plan of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "world", rename_all = "snake_case")]
pub(crate) enum Case {
    Node(Plan),
    Cluster(ClusterPlan),
    Third(ThirdPlan),
}

/// What became of it.
pub(crate) enum Ran {
    Node(world::Outcome),
    Cluster(cluster::Outcome),
    Third(cluster::Outcome, Third),
}

impl Case {
    /// Runs it on a thread of its own, on which `plant` has been called.
    pub(crate) fn run(&self, watch: Watch, plant: impl Fn() + Sync) -> Ran {
        apart(|| {
            plant();
            match self {
                Self::Node(plan) => Ran::Node(world::run(plan, watch)),
                Self::Cluster(plan) => Ran::Cluster(cluster::run(plan, watch)),
                Self::Third(plan) => {
                    let (outcome, seen) = cluster::run_third(plan, watch);
                    Ran::Third(outcome, seen)
                }
            }
        })
    }

    /// Whether this build runs it; why not.
    pub(crate) fn is_run(&self) -> Result<(), String> {
        match self {
            Self::Node(plan) => plan.is_run(),
            Self::Cluster(plan) => plan.is_run(),
            Self::Third(plan) => plan.cluster.is_run(),
        }
    }

    /// What of the plan may become smaller.
    pub(crate) fn parts(&self) -> &'static Parts {
        match self {
            Self::Node(_) => &Plan::PARTS,
            Self::Cluster(_) => &ClusterPlan::PARTS,
            Self::Third(_) => &ThirdPlan::PARTS,
        }
    }

    /// Leaves out what is to happen after its end.
    pub(crate) fn tidy(&mut self) {
        match self {
            Self::Node(plan) => plan.faults.retain(|fault| fault.at_ms <= plan.chaos_ms),
            Self::Cluster(plan) => plan.faults.retain(|fault| fault.at_ms <= plan.chaos_ms),
            Self::Third(plan) => {
                let nodes = plan.cluster.starts_ms.len();
                plan.struck.retain(|&(number, _)| number < nodes);
            }
        }
    }

    /// How many faults and nodes it has.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Self::Node(plan) => (plan.faults.len(), 1),
            Self::Cluster(plan) => (plan.faults.len(), plan.starts_ms.len()),
            Self::Third(plan) => (plan.struck.len(), plan.cluster.starts_ms.len()),
        }
    }

    /// Drives what the plan does not say.
    pub(crate) fn seed_mut(&mut self) -> &mut u64 {
        match self {
            Self::Node(plan) => &mut plan.seed,
            Self::Cluster(plan) => &mut plan.seed,
            Self::Third(plan) => &mut plan.cluster.seed,
        }
    }

    /// How its file is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Node(plan) => format!("node-{}", plan.seed),
            Self::Cluster(plan) => format!("cluster-{}", plan.seed),
            Self::Third(plan) => {
                let nodes = plan.cluster.starts_ms.len();
                format!("third-{}-{nodes}-{}", plan.scenario.name(), plan.cluster.seed)
            }
        }
    }
}

impl Ran {
    /// What did not hold, each invariant with what was seen first.
    pub(crate) fn violations(&self) -> &BTreeMap<&'static str, String> {
        match self {
            Self::Node(outcome) => &outcome.violations,
            Self::Cluster(outcome) | Self::Third(outcome, _) => &outcome.violations,
        }
    }

    /// How often clients did or saw something before all healed, and it was judged.
    pub(crate) fn operations(&self) -> u64 {
        match self {
            Self::Node(outcome) => outcome.operations,
            Self::Cluster(outcome) => outcome.operations,
            Self::Third(_, seen) => seen.acknowledged,
        }
    }

    /// Why it says nothing, if it does not.
    pub(crate) fn vacuous(&self) -> Option<&str> {
        match self {
            Self::Node(outcome) => outcome.vacuous.as_deref(),
            Self::Cluster(_) => None,
            Self::Third(_, seen) => seen.is_vacuous().then_some("too little was acknowledged"),
        }
    }

    /// The chain hash over all events, and how many there were.
    pub(crate) fn chain(&self) -> (u64, u64) {
        match self {
            Self::Node(outcome) => (outcome.chain, outcome.events),
            Self::Cluster(outcome) | Self::Third(outcome, _) => (outcome.chain, outcome.events),
        }
    }
}
