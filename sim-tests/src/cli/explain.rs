//! `explain`: a run as a page that shows what happened, where, and what led to what.

use std::path::PathBuf;

use clap::Args;

use super::exit;
use super::failures::commit;
use super::which::Which;
use crate::story::{Heading, Story, page};
use crate::world::Watch;

#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    which: Which,
    /// The file to write: one HTML page that needs nothing else
    #[arg(short, long, default_value = "report.html")]
    output: PathBuf,
}

impl Explain {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let (case, plant) = (self.which.case()?, self.which.bug.plant()?);
        let story = Story::heard();
        let ran = case.run(Watch { story: story.clone(), ..Watch::none() }, plant);
        let violations = ran.violations().iter();
        let (chain, events) = ran.chain();
        let heading = Heading {
            command: format!("cargo sim replay {}", self.which),
            commit: commit(),
            violations: violations.map(|(&name, text)| (name.to_owned(), text.clone())).collect(),
            plan: serde_json::to_value(&case).expect("a plan is data"),
            chain: format!("{chain:016x} over {events} events"),
        };
        let text = page(&heading, &story);
        std::fs::write(&self.output, &text).map_err(|error| {
            eprintln!("'{}' could not be written: {error}", self.output.display());
            exit::USAGE
        })?;
        println!("{}: {} KiB", self.output.display(), text.len() >> 10);
        for (invariant, detail) in ran.violations() {
            println!("{invariant}: {detail}");
        }
        Ok(0)
    }
}
