//! `run`: many seeds, each as a node with its clients and as a cluster, or as one that loses a
//! third.

use clap::{Args, ValueEnum};

use super::exit;
use super::failures::report;
use super::sums::Sums;
use super::sweep::Sweep;
use super::which::Bug;
use crate::case::{Kind, Origin};
use crate::cluster::Scenario;
use crate::world::Watch;

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
pub(super) enum World {
    /// One node, and clients of all kinds
    Node,
    /// A cluster, and who changes its metadata
    Cluster,
    /// First the one, then the other
    Both,
    /// A cluster that loses a third of its nodes
    Third,
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
    /// Which third dies, and how
    #[arg(long, value_enum, default_value = "at-random")]
    scenario: Scenario,
    /// How many nodes a cluster has at first [default: as the seed says; 9 of which a third dies]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    nodes: Option<u16>,
    #[command(flatten)]
    bug: Bug,
    /// Whether the table of faults and phases is printed, and is to be full.
    #[arg(skip)]
    is_measured: bool,
}

impl Run {
    /// The seeds of a sweep, as they are by default.
    pub(super) fn endless(sweep: Sweep, world: World, bug: Bug) -> Self {
        let (profile, scenario) = (Profile::Swarm, Scenario::AtRandom);
        Self { sweep, profile, world, scenario, nodes: None, bug, is_measured: false }
    }

    /// The same, to see what faults have met.
    pub(super) fn measured(sweep: Sweep, world: World, bug: Bug) -> Self {
        Self { is_measured: true, ..Self::endless(sweep, world, bug) }
    }

    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let plant = self.bug.plant()?;
        for origin in self.origins(self.sweep.from) {
            origin.checked().map_err(|why| {
                eprintln!("{why}");
                exit::USAGE
            })?;
        }
        let mut sums = Sums::new();
        let live = |seed| {
            let run = |origin: Origin| {
                let case = origin.case();
                let ran = case.run(Watch::none(), plant);
                (origin, case, ran)
            };
            self.origins(seed).into_iter().map(run).collect::<Vec<_>>()
        };
        self.sweep.run(live, |_, all| {
            for (origin, case, ran) in all {
                report(&origin.to_string(), &self.bug, &case, &ran);
                sums.add(&ran);
            }
        });
        let code = sums.conclude();
        // The worst has the lowest code.
        Ok([code, sums.measure(self.is_measured)]
            .into_iter()
            .filter(|code| *code != 0)
            .min()
            .unwrap_or(0))
    }

    /// What a seed stands for.
    fn origins(&self, seed: u64) -> Vec<Origin> {
        let kinds = match self.world {
            World::Node => vec![Kind::Node],
            World::Cluster => vec![Kind::Cluster],
            World::Both => vec![Kind::Node, Kind::Cluster],
            World::Third => vec![Kind::Third(self.scenario)],
        };
        let (calm, nodes) = (self.profile == Profile::Calm, self.nodes);
        kinds.into_iter().map(|kind| Origin { seed, kind, calm, nodes }).collect()
    }
}
