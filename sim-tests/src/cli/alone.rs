//! One run of a cluster again: which one, with which bug, and what is printed of it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;

use super::exit;
use crate::cluster::{ClusterPlan, Outcome};
use crate::trace::Log;

/// What is printed while one seed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
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

/// Which one, if any.
#[derive(Args)]
pub(super) struct Alone {
    /// Run this seed alone, and print what happens
    #[arg(long)]
    seed: Option<u64>,
    /// Run this plan alone, and print what happens
    #[arg(long)]
    plan: Option<PathBuf>,
    /// What to print of a run alone
    #[arg(long, value_enum, default_value = "short")]
    log: Shown,
    /// Of a run alone, print nothing but the chain hash over all events
    #[arg(long)]
    hash: bool,
    /// Plant this bug (see `cargo sim-zoo zoo --help`)
    #[cfg(zoo)]
    #[arg(long)]
    bug: Option<String>,
}

impl Alone {
    /// What plants the bug, if there is one, on the thread of a run; the exit code where there is
    /// none of its name.
    pub(super) fn plant(&self) -> Result<impl Fn() + Sync + use<>, u8> {
        #[cfg(zoo)]
        let planted = super::zoo::planted(self.bug.as_deref())?;
        Ok(move || {
            #[cfg(zoo)]
            sprawl_core::zoo::plant(planted);
        })
    }

    /// The plan that is asked for, if one is; the exit code where it is none that this build runs,
    /// and that was said.
    pub(super) fn plan<P: DeserializeOwned>(
        &self,
        of_seed: impl FnOnce(u64) -> P,
        cluster: impl FnOnce(&P) -> &ClusterPlan,
    ) -> Result<Option<P>, u8> {
        let Some(path) = &self.plan else { return Ok(self.seed.map(of_seed)) };
        let at = path.display();
        let text = std::fs::read(path).map_err(|error| format!("'{at}' is no file: {error}"));
        let plan = text.and_then(|text| {
            serde_json::from_slice(&text).map_err(|error| format!("'{at}' is no plan: {error}"))
        });
        let plan = plan.and_then(|plan| cluster(&plan).is_run().map(|()| plan));
        plan.map(Some).map_err(|why| {
            eprintln!("{why}");
            exit::USAGE
        })
    }

    /// What is printed while it runs.
    pub(super) fn log(&self) -> Log {
        if self.hash { Log::None } else { self.log.into() }
    }

    /// Prints the hash of a run, where only that is wanted; says whether it is.
    pub(super) fn is_hash(&self, outcome: &Outcome) -> bool {
        if self.hash {
            println!("{:016x} {}", outcome.chain, outcome.events);
        }
        self.hash
    }
}

/// Prints what ends the report on a run.
pub(super) fn print_end(outcome: &Outcome) {
    println!("chain: {:016x} over {} events", outcome.chain, outcome.events);
    for (invariant, detail) in &outcome.violations {
        println!("{invariant}: {detail}");
    }
}
