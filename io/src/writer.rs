//! Group commit: one writer for all shards and the metadata log.
//!
//! While one batch is being synced, the next one gathers; then all of it is written with one
//! sync, and everybody who waits for a part of it is answered. A batch that finds no room is kept
//! and tried again, so that an entry that was given its place is never forgotten.

use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{ChangeIndex, PartitionId};
use sprawl_core::machine::{Append, DiskSpace};
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::handle::Ended;
use crate::signal::{Follower, Signal};
use crate::storage::{Batch, CommitError, Storage, Usage};

/// How many jobs are gathered into one batch at most.
const JOBS_MAX: usize = 1_024;
/// About how many bytes are gathered into one batch at most.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How many jobs wait for the writer at most.
pub(crate) const QUEUE_JOBS_MAX: usize = 4_096;
/// How long the writer waits before it tries again to write to a full disk.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// How often the writer looks how full the disk is.
const USAGE_INTERVAL: Duration = Duration::from_secs(1);
/// From which share of the disk on publishes are refused, in percent.
const FULL_PERCENT: u64 = 90;

/// What one loop wants written, and whom to tell.
pub(crate) struct Job {
    pub(crate) appends: Vec<Append>,
    /// Partitions to forget, after what is appended to them.
    pub(crate) erased: Vec<PartitionId>,
    pub(crate) changes: Vec<(ChangeIndex, Bytes)>,
    /// Called once when all of it is durable.
    pub(crate) done: Box<dyn FnOnce() + Send>,
}

/// How the loops reach the writer, and what it tells all of them.
#[derive(Clone)]
pub(crate) struct WriterHandle {
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) space: Follower<DiskSpace>,
}

/// The one who writes.
pub(crate) struct Writer<S> {
    storage: S,
    jobs: mpsc::Receiver<Job>,
    space: Signal<DiskSpace>,
    stop: Signal<Option<Ended>>,
    next_look: Instant,
}

impl<S: Storage> Writer<S> {
    /// A writer, and how to reach it. It tells `stop` when the disk fails.
    pub(crate) fn new(storage: S, stop: Signal<Option<Ended>>) -> (Self, WriterHandle) {
        let (jobs, received) = mpsc::channel(QUEUE_JOBS_MAX);
        let space = Signal::new(DiskSpace::Free);
        let followed = space.follow();
        let next_look = Instant::now();
        let writer = Self { storage, jobs: received, space, stop, next_look };
        (writer, WriterHandle { jobs, space: followed })
    }

    /// Writes until nobody is left who could ask, or the disk fails; drops `finished` at the end.
    pub(crate) async fn run(mut self, finished: oneshot::Sender<()>) {
        self.write_all().await;
        drop(finished);
    }

    async fn write_all(&mut self) {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = self.jobs.recv_many(&mut waiting, JOBS_MAX) => {
                    if count == 0 {
                        return self.storage.close().await;
                    }
                }
                () = tokio::time::sleep_until(self.next_look) => {}
            }
            if Instant::now() >= self.next_look {
                self.look().await;
                self.next_look = Instant::now() + USAGE_INTERVAL;
            }
            while !waiting.is_empty() {
                let jobs = gather(&mut waiting);
                if let Err(reason) = self.write(jobs).await {
                    tracing::error!(reason, "the disk failed; nothing more is acknowledged");
                    self.stop.set(Some(Ended::DiskFailed(reason)));
                    return;
                }
            }
        }
    }

    async fn write(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let mut batch = Batch::default();
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            batch.appends.extend(job.appends);
            batch.erased.extend(job.erased);
            batch.changes.extend(job.changes);
            done.push(job.done);
        }
        if planted(Bug::NoSync) {
            done.drain(..).for_each(|tell| tell());
        }
        loop {
            match self.storage.commit(&batch).await {
                Ok(()) => break,
                Err(CommitError::NoSpace) => {
                    self.show(DiskSpace::Full);
                    tokio::time::sleep(FULL_RETRY).await;
                }
                Err(CommitError::Failed(reason)) => return Err(reason),
            }
        }
        done.into_iter().for_each(|tell| tell());
        Ok(())
    }

    /// Looks how full the disk is. A disk that was found full is free again below the bound.
    async fn look(&mut self) {
        match self.storage.usage().await {
            Ok(Usage { used, capacity }) => {
                let full = used.saturating_mul(100) >= capacity.saturating_mul(FULL_PERCENT);
                self.show(if full { DiskSpace::Full } else { DiskSpace::Free });
            }
            Err(error) => tracing::warn!(%error, "cannot tell how full the disk is"),
        }
    }

    fn show(&self, space: DiskSpace) {
        if self.space.set(space) {
            match space {
                DiskSpace::Full => tracing::error!("the disk is full: publishes are refused"),
                DiskSpace::Free => tracing::info!("the disk takes writes again"),
            }
        }
    }
}

/// Takes jobs for one batch: at least one, and about as many bytes as a batch should have.
fn gather(waiting: &mut Vec<Job>) -> Vec<Job> {
    let mut bytes = 0;
    let count = waiting
        .iter()
        .take_while(|job| {
            let fits = bytes < BATCH_BYTES_MAX;
            let records = job.appends.iter().flat_map(|append| &append.records);
            bytes += records.map(|record| record.len()).sum::<usize>();
            fits
        })
        .count();
    waiting.drain(..count).collect()
}
