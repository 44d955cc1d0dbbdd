//! `coverage`: which faults have met which phases of the protocol, and which have not.

use clap::Args;

use super::run::{Run, World};
use super::sweep::Sweep;
use super::which::Bug;

#[derive(Args)]
pub(super) struct Coverage {
    #[command(flatten)]
    sweep: Sweep,
    /// What each seed is expanded to
    #[arg(long, value_enum, default_value = "both")]
    world: World,
    #[command(flatten)]
    bug: Bug,
}

impl Coverage {
    pub(super) fn run(self) -> u8 {
        Run::measured(self.sweep, self.world, self.bug).run()
    }
}
