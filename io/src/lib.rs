//! The hands of a node: what the core asks for is done here, with nothing decided on the way.
//!
//! [`start`](start::start) opens the disk, recovers the core from it and sets one driver loop per
//! machine going; [`NodeHandle`](handle::NodeHandle) is how the face talks to them. The drivers are
//! generic over [`Storage`](storage::Storage), [`Clock`](clock::Clock),
//! [`Transport`](transport::Transport) and [`Trace`](trace::Trace), so that simulation runs the
//! same loops.

mod alarm;
pub mod clock;
pub mod contacts;
pub mod data_dir;
mod driver;
pub mod handle;
mod load;
pub mod membership;
pub mod peer;
pub mod raft;
mod signal;
mod spawn;
pub mod start;
pub mod storage;
pub mod trace;
pub mod transport;
mod writer;
