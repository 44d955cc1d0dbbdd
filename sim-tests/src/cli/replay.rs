//! `replay`: one run again, byte for byte.

use clap::Args;

use super::alone::Shown;
use super::exit;
use super::run::Profile;
use super::summary::Summary;
use crate::plan::{Plan, VERSION};
use crate::trace::Log;
use crate::world::{self, Watch};

#[derive(Args)]
pub(super) struct Replay {
    /// A seed, or a file with a plan
    what: String,
    /// Which faults, when a seed is given
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// What to print
    #[arg(long, value_enum, default_value = "short")]
    log: Shown,
    /// Print nothing but the chain hash over all events
    #[arg(long)]
    hash: bool,
    /// Run this seed before, in the same process: it must change nothing
    #[arg(long)]
    after: Option<u64>,
    /// Change one byte of one payload on purpose
    #[arg(long)]
    tamper: bool,
    /// Plant this bug (see `cargo sim-zoo zoo --help`)
    #[cfg(zoo)]
    #[arg(long)]
    bug: Option<String>,
}

impl Replay {
    pub(super) fn run(self) -> u8 {
        let plan = match self.plan() {
            Ok(plan) => plan,
            Err(why) => {
                eprintln!("{why}");
                return exit::USAGE;
            }
        };
        #[cfg(zoo)]
        let planted = match super::zoo::planted(self.bug.as_deref()) {
            Ok(planted) => planted,
            Err(code) => return code,
        };
        let log = if self.hash { Log::None } else { self.log.into() };
        let run = |plan: &Plan, watch| {
            world::apart(|| {
                #[cfg(zoo)]
                sprawl_core::zoo::plant(planted);
                world::run(plan, watch)
            })
        };
        if let Some(before) = self.after {
            let before = Plan::of_seed(before, self.profile == Profile::Calm);
            run(&before, Watch { log: Log::None, tamper: false });
        }
        let outcome = run(&plan, Watch { log, tamper: self.tamper });
        if self.hash {
            println!("{:016x} {}", outcome.chain, outcome.events);
            return 0;
        }
        let mut summary = Summary::new(1);
        summary.add(&outcome);
        summary.print();
        println!("chain: {:016x} over {} events", outcome.chain, outcome.events);
        for (invariant, detail) in &outcome.violations {
            println!("{invariant}: {detail}");
        }
        summary.code()
    }

    fn plan(&self) -> Result<Plan, String> {
        if let Ok(seed) = self.what.parse() {
            return Ok(Plan::of_seed(seed, self.profile == Profile::Calm));
        }
        let text = std::fs::read(&self.what)
            .map_err(|error| format!("'{}' is no seed and no file: {error}", self.what))?;
        let plan: Plan = serde_json::from_slice(&text)
            .map_err(|error| format!("'{}' is no plan: {error}", self.what))?;
        if plan.version != VERSION {
            return Err(format!("plan version {}; this build runs {VERSION}", plan.version));
        }
        Ok(plan)
    }
}
