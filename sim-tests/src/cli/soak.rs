//! `soak`: seeds that nobody has run, until time is over.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::run::{Run, World};
use super::span;
use super::sweep::Sweep;
use super::which::Bug;

#[derive(Args)]
pub(super) struct Soak {
    /// Begin no seed after this long
    #[arg(long = "for", value_parser = span)]
    lasts: Duration,
    /// What each seed is expanded to
    #[arg(long, value_enum, default_value = "both")]
    world: World,
    /// The first seed [default: by the clock]
    #[arg(long)]
    from: Option<u64>,
    #[command(flatten)]
    bug: Bug,
}

/// How far seeds by the clock are apart: more than are run before the next second.
const STRIDE: u64 = 1_000_000;

impl Soak {
    pub(super) fn run(self) -> u8 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let from = self.from.unwrap_or(now.as_secs() * STRIDE);
        println!("seeds from {from} on");
        Run::endless(Sweep::endless(from, self.lasts), self.world, self.bug).run()
    }
}
