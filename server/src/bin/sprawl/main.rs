//! `sprawl`: starts a node.

#[cfg(not(madsim))]
mod node;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    node::run()
}

/// In the simulated build there is no real disk; whole nodes run inside `sprawl-sim`.
#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    eprintln!("sprawl: this is the simulated build; cargo run --release starts a node");
    std::process::ExitCode::FAILURE
}
