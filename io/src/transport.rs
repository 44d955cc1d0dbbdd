//! How what a shard sends reaches another one.
//!
//! In a node the shards are neighbours in one process: a channel carries each message as it is.

use sprawl_core::ids::ShardId;
use sprawl_core::machine::Message;
use tokio::sync::mpsc;

/// Carries messages between shards, in order per pair, each at most once.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sends a message on its way. It is lost when the receiver is gone, which the sender learns
    /// from its own deadlines.
    fn send(&self, from: ShardId, to: ShardId, message: Message);
}

/// The shards of one node.
#[derive(Clone, Debug)]
pub struct Neighbours {
    shards: std::sync::Arc<[mpsc::UnboundedSender<(ShardId, Message)>]>,
}

impl Neighbours {
    /// Connects shards by where each receives. What is under way between them is bounded by what
    /// each of them has under way itself (core's `FORWARDS_MAX`, `PULLS_MAX`, `WATCHERS_MAX`).
    #[must_use]
    pub fn new(shards: Vec<mpsc::UnboundedSender<(ShardId, Message)>>) -> Self {
        Self { shards: shards.into() }
    }
}

impl Transport for Neighbours {
    fn send(&self, from: ShardId, to: ShardId, message: Message) {
        let shard = self.shards.get(usize::from(to.0));
        if shard.is_none_or(|shard| shard.send((from, message)).is_err()) {
            tracing::debug!(to = to.0, "the shard has ended: a message to it is lost");
        }
    }
}
