//! `sprawlctl`: publishes, subscribes, and looks at nodes, over their HTTP API.

#[cfg(not(madsim))]
mod administer;
#[cfg(not(madsim))]
mod bench;
#[cfg(not(madsim))]
mod client;
#[cfg(not(madsim))]
mod command;
#[cfg(not(madsim))]
mod diagnose;
#[cfg(not(madsim))]
mod fetch;
#[cfg(not(madsim))]
mod output;
#[cfg(not(madsim))]
mod progress;
#[cfg(not(madsim))]
mod publish;
#[cfg(not(madsim))]
mod random;
#[cfg(not(madsim))]
mod recover;
#[cfg(not(madsim))]
mod show;
#[cfg(not(madsim))]
mod subscribe;
#[cfg(not(madsim))]
mod test;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    command::run()
}

/// There is nothing real to talk to in the simulated build.
#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    eprintln!("sprawlctl: this is the simulated build; cargo run --release --bin sprawlctl");
    std::process::ExitCode::FAILURE
}
