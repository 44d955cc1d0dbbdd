//! Whole Sprawl nodes in a seeded simulation: `cargo sim run --seeds 100`.
//!
//! The drivers, the core and the HTTP API are those of production; the network is madsim's, the
//! disk and the clocks are ours. A seed is expanded to a plan, a plan is run, and what the clients
//! and the disk have seen is held against the invariants.

#[cfg(madsim)]
mod case;
#[cfg(madsim)]
mod chronicle;
#[cfg(madsim)]
mod cli;
#[cfg(madsim)]
mod client;
#[cfg(madsim)]
mod clock;
#[cfg(madsim)]
mod cluster;
#[cfg(madsim)]
mod coverage;
#[cfg(madsim)]
mod disk;
#[cfg(madsim)]
mod gossip;
#[cfg(madsim)]
mod history;
#[cfg(madsim)]
mod invariants;
#[cfg(madsim)]
mod net;
#[cfg(madsim)]
mod plan;
#[cfg(madsim)]
mod shrink;
#[cfg(madsim)]
mod story;
#[cfg(madsim)]
mod trace;
#[cfg(madsim)]
mod world;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("the simulator is compiled under --cfg madsim: run `cargo sim run --seeds 100`");
    std::process::ExitCode::FAILURE
}
