//! How a change of the metadata becomes agreed.

use std::future::Future;

use bytes::Bytes;
use sprawl_core::cluster::metadata::Change;
use sprawl_core::ids::ChangeIndex;
use sprawl_core::wire;
use tokio::sync::mpsc;

use crate::storage::{ReadError, Storage};
use crate::writer::{Job, WriterHandle};

/// About how many bytes of the metadata log are read at once.
const READ_BYTES: usize = 4 << 20;

/// Has changes agreed, and gives them back in the one order that all nodes see.
pub trait Consensus: Send + 'static {
    /// Proposes a change. It comes back from [`decided`](Consensus::decided), or never.
    fn propose(&mut self, change: Change) -> impl Future<Output = ()> + Send;

    /// The next agreed change, durable; `None` when there will be none any more.
    fn decided(&mut self) -> impl Future<Output = Option<(ChangeIndex, Change)>> + Send;
}

/// Decides alone: a change is agreed when this node's own disk has it.
pub(crate) struct LoneDecider {
    writer: WriterHandle,
    last: ChangeIndex,
    /// Changes that are durable. Bounded by what control has proposed and not yet seen.
    durable: mpsc::UnboundedSender<(ChangeIndex, Change)>,
    decided: mpsc::UnboundedReceiver<(ChangeIndex, Change)>,
}

impl LoneDecider {
    pub(crate) fn new(writer: WriterHandle, last: ChangeIndex) -> Self {
        let (durable, decided) = mpsc::unbounded_channel();
        Self { writer, last, durable, decided }
    }
}

impl Consensus for LoneDecider {
    async fn propose(&mut self, change: Change) {
        self.last = self.last.next();
        let (index, durable) = (self.last, self.durable.clone());
        let bytes = Bytes::from(wire::encode(&change));
        let done = Box::new(move || {
            // The receiver is gone only when the node has ended.
            let _ = durable.send((index, change));
        });
        let job =
            Job { appends: Vec::new(), erased: Vec::new(), changes: vec![(index, bytes)], done };
        // The writer is gone only when the node has ended.
        let _ = self.writer.jobs.send(job).await;
    }

    async fn decided(&mut self) -> Option<(ChangeIndex, Change)> {
        self.decided.recv().await
    }
}

/// Why the metadata log does not read. Nothing of it was used.
#[derive(Debug, thiserror::Error)]
pub enum BadLog {
    /// The disk could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A change is not what was written, or is missing.
    #[error("the metadata log is damaged at change {index}: {reason}")]
    Damaged {
        /// The change.
        index: ChangeIndex,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the metadata log from its beginning, whole or not at all.
pub(crate) async fn recover<S: Storage>(storage: &S) -> Result<Vec<Change>, BadLog> {
    let mut changes = Vec::new();
    loop {
        let next = ChangeIndex(changes.len() as u64 + 1);
        let part = storage.changes(next, READ_BYTES).await?;
        if part.is_empty() {
            return Ok(changes);
        }
        for (index, bytes) in part {
            let expected = ChangeIndex(changes.len() as u64 + 1);
            if index != expected {
                let reason = format!("the log goes on at {index}");
                return Err(BadLog::Damaged { index: expected, reason });
            }
            match wire::decode(&bytes) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    return Err(BadLog::Damaged { index, reason: error.to_string() });
                }
            }
        }
    }
}
