//! The life of a message: the data plane.

pub mod admission;
mod batches;
pub mod delivery;
mod desk;
mod door;
mod partition;
mod pulls;
pub mod replica;
pub mod routing;
pub mod shard;

pub use desk::ShardOptions;
pub use shard::{Shard, ShardSeed};
