//! `run`: many seeds, each as a node with its clients and as a cluster.

use clap::{Args, ValueEnum};

use super::cluster::{self, Sum};
use super::exit;
use super::summary::{Summary, report};
use super::sweep::Sweep;
use crate::cluster::ClusterPlan;
use crate::plan::Plan;
use crate::trace::Log;
use crate::world::{self, Watch};

/// Which plans the seeds are expanded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// No faults
    Calm,
    /// Each class of faults on or off, by seed
    Swarm,
}

/// What a seed is expanded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum World {
    /// One node, and clients of all kinds
    Node,
    /// A cluster, and who changes its metadata
    Cluster,
    /// First the one, then the other
    Both,
}

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    sweep: Sweep,
    /// Which faults
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// What each seed is expanded to
    #[arg(long, value_enum, default_value = "both")]
    world: World,
}

impl Run {
    pub(super) fn run(self) -> u8 {
        let (calm, world) = (self.profile == Profile::Calm, self.world);
        let (mut nodes, mut clusters) = (Summary::new(self.sweep.seeds), Sum::default());
        let live = |seed| {
            let node = || {
                let watch = Watch { log: Log::None, tamper: false };
                world::run(&Plan::of_seed(seed, calm), watch)
            };
            let cluster = || {
                let plan = ClusterPlan::of_seed(seed, None, calm);
                let outcome = crate::cluster::run(&plan, Log::None);
                (plan, outcome)
            };
            // Each has a thread of its own (`world::apart`).
            let node = (world != World::Cluster).then(|| world::apart(node));
            let cluster = (world != World::Node).then(|| world::apart(cluster));
            (node, cluster)
        };
        self.sweep.run(live, |seed, (node, cluster)| {
            if let Some(outcome) = node {
                report(seed, calm, &outcome);
                nodes.add(&outcome);
            }
            if let Some((plan, outcome)) = cluster {
                cluster::report(&plan, (None, calm), &outcome);
                clusters.add(&outcome);
            }
        });
        let mut codes = Vec::new();
        if world != World::Cluster {
            nodes.print();
            codes.push(if nodes.seeds() == 0 { exit::COVERAGE } else { nodes.code() });
        }
        if world != World::Node {
            println!("clusters:");
            clusters.print();
            codes.push(clusters.code());
        }
        // The worst has the lowest code.
        codes.into_iter().filter(|code| *code != 0).min().unwrap_or(0)
    }
}
