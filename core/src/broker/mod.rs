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

/// How long the data plane takes to answer a publish at most: it waits for its topic, for the node
/// that leads its partition, for its turn and for its commit.
pub const PUBLISH_ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(
    routing::TOPIC_WAIT.as_secs()
        + routing::ROUTE_WAIT.as_secs()
        + admission::LOBBY_WAIT.as_secs()
        + partition::PUBLISH_WAIT.as_secs(),
);
