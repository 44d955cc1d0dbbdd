//! A failure as it is printed and kept: the command that repeats it first.

use std::path::{Path, PathBuf};

use super::which::Bug;
use crate::case::{Case, Ran};

/// Where the plans of failures are kept.
const FOLDER: &str = "target/sim-failures";

/// Prints what did not hold, if anything did not, first the command that repeats it; keeps the
/// plan.
pub(super) fn report(origin: &str, bug: &Bug, case: &Case, ran: &Ran) {
    if ran.violations().is_empty() && ran.vacuous().is_none() {
        return;
    }
    let bug = bug.argument();
    println!("cargo sim replay {origin}{bug}   # at commit {}", commit());
    match keep(&case.name(), case) {
        Ok(path) => {
            println!("  or, when the seeds have moved: cargo sim replay {}{bug}", path.display())
        }
        Err(why) => println!("  its plan could not be kept: {why}"),
    }
    for (invariant, detail) in ran.violations() {
        println!("  {invariant}: {detail}");
    }
    if let Some(why) = ran.vacuous() {
        println!("  the run says nothing: {why}");
    }
}

/// Keeps a plan; says where.
pub(super) fn keep(name: &str, case: &Case) -> std::io::Result<PathBuf> {
    let folder = Path::new(FOLDER);
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(case).expect("a plan is data"))?;
    Ok(path)
}

/// A plan that was kept.
pub(super) fn kept(path: &str) -> Result<Case, String> {
    let text =
        std::fs::read(path).map_err(|error| format!("'{path}' is no seed and no file: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("'{path}' is no plan: {error}"))
}

/// The commit that this build's sources are at, as far as git knows.
pub(super) fn commit() -> String {
    let git = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let found = git.ok().filter(|output| output.status.success());
    let text = found.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
