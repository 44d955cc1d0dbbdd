//! `corpus`: every plan that once failed, again.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit;
use super::failures::{kept, report};
use super::sums::Sums;
use super::sweep::side_by_side;
use super::which::Bug;
use crate::world::Watch;

/// Where the plans are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

#[derive(Args)]
pub(super) struct Corpus {
    /// How many at once [default: one a core]
    #[arg(long)]
    jobs: Option<usize>,
    #[command(flatten)]
    bug: Bug,
}

impl Corpus {
    pub(super) fn run(self) -> u8 {
        self.try_run().unwrap_or_else(|code| code)
    }

    fn try_run(&self) -> Result<u8, u8> {
        let plant = self.bug.plant()?;
        let plans = plans().map_err(|error| {
            eprintln!("{FOLDER}: {error}");
            exit::USAGE
        })?;
        let mut cases = Vec::new();
        for path in &plans {
            let name = path.display().to_string();
            let case = kept(&name).and_then(|case| case.is_run().map(|()| case));
            cases.push(case.map(|case| (name.clone(), case)).map_err(|why| {
                eprintln!("{name}: {why}");
                exit::USAGE
            })?);
        }
        let mut sums = Sums::new();
        let all = 0..cases.len() as u64;
        let run = |at: u64| cases[at as usize].1.run(Watch::none(), plant);
        side_by_side(all, self.jobs, None, run, |at, ran| {
            let (name, case) = &cases[at as usize];
            report(name, &self.bug, case, &ran);
            sums.add(&ran);
            true
        });
        Ok(sums.conclude())
    }
}

/// The files with plans, in their order.
fn plans() -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for file in Path::new(FOLDER).read_dir()? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}
