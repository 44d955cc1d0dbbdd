//! Who there is and what they agree on: the control plane.

pub mod control;
pub mod metadata;
pub mod pattern;
pub mod subscription;
pub mod time;
pub mod topic;

pub use control::Control;
pub use time::ClusterClock;
