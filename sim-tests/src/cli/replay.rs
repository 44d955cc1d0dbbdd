//! `replay`: one run again, byte for byte.

use clap::{Args, ValueEnum};

use super::sums::Sums;
use super::which::Which;
use crate::case::{Kind, Origin};
use crate::chronicle::Log;
use crate::world::Watch;

/// What is printed while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// Nothing
    None,
    /// Faults, starts, elections and what is decided
    Short,
    /// Each input of each machine, and what comes of it
    Full,
}

impl From<Shown> for Log {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::None => Log::None,
            Shown::Short => Log::Short,
            Shown::Full => Log::Full,
        }
    }
}

#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// What to print
    #[arg(long, value_enum, default_value = "short")]
    log: Shown,
    /// Print nothing but the chain hash over all events
    #[arg(long)]
    hash: bool,
    /// Run this seed of a node before, in the same process: it must change nothing
    #[arg(long)]
    after: Option<u64>,
    /// Change one byte of one payload on purpose, in a run of a node
    #[arg(long)]
    tamper: bool,
}

impl Replay {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let (case, plant) = (self.which.case()?, self.which.bug.plant()?);
        if let Some(seed) = self.after {
            let before = Origin { seed, kind: Kind::Node, calm: false, nodes: None };
            before.case().run(Watch::none(), plant);
        }
        let log = if self.hash { Log::None } else { self.log.into() };
        let ran = case.run(Watch { log, tamper: self.tamper, ..Watch::none() }, plant);
        let (chain, events) = ran.chain();
        if self.hash {
            println!("{chain:016x} {events}");
            return Ok(0);
        }
        let mut sums = Sums::new();
        sums.add(&ran);
        let code = sums.conclude();
        println!("chain: {chain:016x} over {events} events");
        for (invariant, detail) in ran.violations() {
            println!("{invariant}: {detail}");
        }
        Ok(code)
    }
}
