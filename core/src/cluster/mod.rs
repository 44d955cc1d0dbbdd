//! Who there is and what they agree on: the control plane.

pub mod consensus;
pub mod control;
pub mod controller;
pub mod dht;
pub mod founding;
pub mod gossip;
pub mod message;
pub mod metadata;
pub mod pattern;
pub mod placement;
pub mod raft;
pub mod subscription;
pub mod time;
pub mod topic;
pub mod verdicts;

pub use control::Control;
pub use gossip::Gossip;
pub use time::ClusterClock;
