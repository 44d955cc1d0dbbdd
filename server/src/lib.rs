//! The face of a node: its HTTP API, its configuration, and what the commands share.
//!
//! [`serve`](serve::serve) takes a listener and a running node and answers clients until it is
//! told to stop. It runs alike under tokio and in simulation. Configuration and the readings of
//! the host exist in the real world only.

pub mod api;
#[cfg(not(madsim))]
mod compress;
#[cfg(not(madsim))]
pub mod config;
mod connection;
pub mod duration;
mod gate;
mod guests;
pub mod host;
pub mod message;
#[cfg(not(madsim))]
mod preface;
pub mod problem;
pub mod quiet;
pub mod serve;
mod stall;
mod stop;
#[cfg(not(madsim))]
mod streams;
mod traffic;

/// The version of this build, as `--version`, `/health` and the metrics show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
