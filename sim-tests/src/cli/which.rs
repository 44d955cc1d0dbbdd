//! Which run a command is about: a seed and what it is expanded to, or a plan from a file; and
//! which bug is planted in it.

use std::fmt;

use clap::{Args, ValueEnum};

use super::exit;
use super::run::Profile;
use crate::case::{Case, Kind, Origin};
use crate::cluster::Scenario;

/// What a seed is expanded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum World {
    /// One node, and clients of all kinds
    Node,
    /// A cluster, and who changes its metadata
    Cluster,
    /// A cluster that loses a third of its nodes
    Third,
}

/// What a seed stands for.
#[derive(Args)]
pub(super) struct Expansion {
    /// What a seed is expanded to
    #[arg(long, value_enum, default_value = "node")]
    world: World,
    /// Which faults a seed is given
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// Which third dies, and how, where a seed is expanded to that
    #[arg(long, value_enum, default_value = "at-random")]
    scenario: Scenario,
    /// How many nodes a seed's cluster has at first
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    nodes: Option<u16>,
}

impl Expansion {
    /// The plan of a seed, or that in a file; the exit code where there is none that this build
    /// runs, and that was said.
    pub(super) fn case(&self, what: &str) -> Result<Case, u8> {
        self.find(what).map_err(|why| {
            eprintln!("{why}");
            exit::USAGE
        })
    }

    fn find(&self, what: &str) -> Result<Case, String> {
        let case = match what.parse() {
            Ok(seed) => self.origin(seed).checked()?.case(),
            Err(_) => super::failures::kept(what)?,
        };
        case.is_run().map(|()| case)
    }

    fn origin(&self, seed: u64) -> Origin {
        let kind = match self.world {
            World::Node => Kind::Node,
            World::Cluster => Kind::Cluster,
            World::Third => Kind::Third(self.scenario),
        };
        Origin { seed, kind, calm: self.profile == Profile::Calm, nodes: self.nodes }
    }
}

/// One run.
#[derive(Args)]
pub(super) struct Which {
    /// A seed, or a file with a plan
    what: String,
    #[command(flatten)]
    expansion: Expansion,
    #[command(flatten)]
    pub(super) bug: Bug,
}

impl Which {
    /// The plan; the exit code where there is none that this build runs, and that was said.
    pub(super) fn case(&self) -> Result<Case, u8> {
        self.expansion.case(&self.what)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what.parse() {
            Ok(seed) => self.expansion.origin(seed).fmt(f)?,
            Err(_) => f.write_str(&self.what)?,
        }
        f.write_str(&self.bug.argument())
    }
}

/// Which bug is planted, if one is.
#[derive(Args, Clone)]
pub(super) struct Bug {
    /// Plant this bug (see `cargo sim-zoo zoo --help`)
    #[cfg(zoo)]
    #[arg(long)]
    bug: Option<String>,
}

impl Bug {
    /// What plants the bug, if there is one, on the thread of a run; the exit code where there is
    /// none of its name.
    pub(super) fn plant(&self) -> Result<impl Fn() + Sync + Copy + use<>, u8> {
        #[cfg(zoo)]
        let planted = super::zoo::planted(self.bug.as_deref())?;
        Ok(move || {
            #[cfg(zoo)]
            sprawl_core::zoo::plant(planted);
        })
    }

    /// The invariant that it breaks.
    pub(super) fn invariant(&self) -> Option<&'static str> {
        #[cfg(zoo)]
        return super::zoo::invariant(self.bug.as_deref()?);
        #[cfg(not(zoo))]
        None
    }

    /// How the command line names it.
    pub(super) fn argument(&self) -> String {
        #[cfg(zoo)]
        return self.bug.as_ref().map(|bug| format!(" --bug {bug}")).unwrap_or_default();
        #[cfg(not(zoo))]
        String::new()
    }
}
