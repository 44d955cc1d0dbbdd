//! What is measured, as its clients see it: whoever publishes requests, and whoever receives.

use std::time::{Duration, Instant};

use super::load::Load;

/// How long a reader waits for a message.
pub(crate) const RECEIVE_WAIT: Duration = Duration::from_secs(1);

/// A system of one or more servers with a few topics.
pub(crate) trait System: Clone + Send + Sync + 'static {
    /// Its publishers.
    type Writer: Writer;
    /// Its subscribers.
    type Reader: Reader;

    /// Connects the publisher of this number, through the next one of the servers.
    fn writer(
        &self,
        load: Load,
        number: usize,
    ) -> impl Future<Output = anyhow::Result<Self::Writer>> + Send;

    /// Subscribes to what comes to a topic from now on, through the server after the one that its
    /// first publisher asks.
    fn reader(&self, topic: usize) -> impl Future<Output = anyhow::Result<Self::Reader>> + Send;
}

/// A connection that publishes, one request after the other.
pub(crate) trait Writer: Send + 'static {
    /// Writes the next request into memory, so that writing it costs no latency when it is due.
    fn prepare(&mut self);

    /// Sends the request that is prepared, and returns when all its messages are acknowledged.
    fn exchange(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A connection that receives.
pub(crate) trait Reader: Send + 'static {
    /// Waits for messages, but no longer than [`RECEIVE_WAIT`]; none when nothing came.
    fn receive(&mut self) -> impl Future<Output = anyhow::Result<Received>> + Send;

    /// Acknowledges what was received last.
    fn acknowledge(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Messages that came together.
pub(crate) struct Received {
    pub(crate) at: Instant,
    /// Of each, the numbers of its writer and request and its place there, joined by `-`.
    pub(crate) ids: Vec<String>,
}
