//! The commands of `sprawl-sim`.

mod corpus;
mod coverage;
mod determinism;
mod diff;
mod explain;
mod failures;
mod golden;
mod gossip;
mod plan;
mod replay;
mod run;
mod shrink;
mod soak;
mod sums;
mod sweep;
mod which;
#[cfg(zoo)]
mod zoo;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// How a command ended, apart from well.
pub(crate) mod exit {
    /// A safety invariant was violated.
    pub(crate) const SAFETY: u8 = 10;
    /// Something did not happen in time after healing.
    pub(crate) const LIVENESS: u8 = 11;
    /// Something panicked.
    pub(crate) const PANIC: u8 = 12;
    /// The same seed gave two runs.
    pub(crate) const NONDETERMINISM: u8 = 13;
    /// Runs said nothing, or there were too few of them.
    pub(crate) const COVERAGE: u8 = 14;
    /// The command itself was wrong.
    pub(crate) const USAGE: u8 = 2;

    /// The code of the worst of some violations, by their invariants; 0 where there is none.
    pub(super) fn of_violations<'a>(invariants: impl Iterator<Item = &'a str> + Clone) -> u8 {
        let safety = |name: &str| name != "NoPanic" && !crate::invariants::is_liveness(name);
        if invariants.clone().any(safety) {
            SAFETY
        } else if invariants.clone().any(|name| name == "NoPanic") {
            PANIC
        } else if invariants.count() > 0 {
            LIVENESS
        } else {
            0
        }
    }
}

#[derive(Parser)]
#[command(name = "cargo sim", version, about = "Sprawl nodes in a seeded simulation")]
#[command(after_help = "Exit codes: 0 all held, 10 safety, 11 liveness, 12 panic, \
                        13 nondeterminism, 14 vacuous or too few runs, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds, each once
    Run(run::Run),
    /// Run one seed, or a plan from a file, again
    Replay(replay::Replay),
    /// Print what a seed stands for
    Plan(plan::Plan),
    /// Find the smallest plan that still breaks the same invariant
    Shrink(shrink::Shrink),
    /// Draw a run: who did what when, and what led to what
    Explain(explain::Explain),
    /// Find the first event that is not the same in two runs
    Diff(diff::Diff),
    /// Run every plan that once failed
    Corpus(corpus::Corpus),
    /// Run seeds that nobody has run, until time is over
    Soak(soak::Soak),
    /// Show which faults have met which phases of the protocol; fail where one never has
    Coverage(coverage::Coverage),
    /// Run each seed twice in processes of their own: the traces must be equal
    CheckDeterminism(determinism::Determinism),
    /// Run the membership alone: many nodes for long, or many short runs with faults
    Gossip(gossip::Gossip),
    /// Plant each known bug, and see that the invariant that it breaks says so
    #[cfg(zoo)]
    Zoo(zoo::Zoo),
    /// Say how to get the build that has the planted bugs
    #[cfg(not(zoo))]
    Zoo,
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    quiet_panics();
    let code = match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Shrink(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Corpus(command) => command.run(),
        Command::Soak(command) => command.run(),
        Command::Coverage(command) => command.run(),
        Command::CheckDeterminism(command) => command.run(),
        Command::Gossip(command) => command.run(),
        #[cfg(zoo)]
        Command::Zoo(command) => command.run(),
        #[cfg(not(zoo))]
        Command::Zoo => {
            eprintln!("the planted bugs are in a build of their own: run `cargo sim-zoo zoo`");
            exit::USAGE
        }
    };
    ExitCode::from(code)
}

/// A panic within a run is a finding, which is reported; it need not be printed where it happens.
fn quiet_panics() {
    if std::env::var_os("SPRAWL_SIM_PANICS").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Reads a span of time: `90s`, `10m`, `2h`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no span of time: write 90s, 10m or 2h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}
