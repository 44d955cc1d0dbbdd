//! Group commit: one writer for all shards and the metadata log, and one syncer behind it.
//!
//! While a batch is being synced, the next ones gather and are written; one sync then covers all
//! of them, and everybody who waits for a part is answered. A batch that finds no room is kept and
//! tried again, so that an entry that was given its place is never forgotten.

use std::time::Duration;

use sprawl_core::ids::PartitionId;
use sprawl_core::machine::{DiskSpace, Store};
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::handle::Ended;
use crate::signal::{Follower, Signal};
use crate::storage::{Batch, CommitError, MetadataWrite, Storage, Usage};

/// How many jobs are gathered into one batch at most.
const JOBS_MAX: usize = 1_024;
/// About how many bytes are gathered into one batch at most.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How many batches are written and not synced at most.
const WRITTEN_MAX: usize = 4;
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
    pub(crate) stores: Vec<Store>,
    /// Partitions to forget, after what is appended to them.
    pub(crate) erased: Vec<PartitionId>,
    pub(crate) metadata: Vec<MetadataWrite>,
    /// Called once when all of it is durable.
    pub(crate) done: Box<dyn FnOnce() + Send>,
}

/// How the loops reach the writer, and what it tells all of them.
#[derive(Clone)]
pub(crate) struct WriterHandle {
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) space: Follower<DiskSpace>,
}

/// Whom to tell when a batch is durable.
type Waiting = Vec<Box<dyn FnOnce() + Send>>;

/// The one who writes.
pub(crate) struct Writer<S> {
    storage: S,
    jobs: mpsc::Receiver<Job>,
    written: mpsc::Sender<Waiting>,
    /// Resolves when the syncer has ended; to an error when that was for a failure.
    synced: oneshot::Receiver<()>,
    space: Signal<DiskSpace>,
    stop: Signal<Option<Ended>>,
    next_look: Instant,
}

/// The one who syncs what was written.
pub(crate) struct Syncer<S> {
    storage: S,
    written: mpsc::Receiver<Waiting>,
    ended: oneshot::Sender<()>,
    stop: Signal<Option<Ended>>,
}

impl<S: Storage> Syncer<S> {
    /// Syncs until the writer has ended, or the disk fails.
    pub(crate) async fn run(mut self) {
        let mut batches = Vec::new();
        while self.written.recv_many(&mut batches, WRITTEN_MAX).await > 0 {
            match self.storage.sync().await {
                Ok(()) => {}
                Err(CommitError::Failed(reason)) => return fail(&self.stop, reason),
                Err(CommitError::NoSpace) => return fail(&self.stop, "no room to sync".to_owned()),
            }
            batches.drain(..).flatten().for_each(|tell| tell());
        }
        // The writer waits for it, or has ended.
        let _ = self.ended.send(());
    }
}

fn fail(stop: &Signal<Option<Ended>>, reason: String) {
    tracing::error!(reason, "the disk failed; nothing more is acknowledged");
    stop.set(Some(Ended::DiskFailed(reason)));
}

impl<S: Storage> Writer<S> {
    /// A writer, its syncer, and how to reach them. They tell `stop` when the disk fails.
    pub(crate) fn new(storage: S, stop: Signal<Option<Ended>>) -> (Self, Syncer<S>, WriterHandle) {
        let (jobs, received) = mpsc::channel(QUEUE_JOBS_MAX);
        let (written, to_sync) = mpsc::channel(WRITTEN_MAX);
        let (ended, synced) = oneshot::channel();
        let space = Signal::new(DiskSpace::Free);
        let followed = space.follow();
        let next_look = Instant::now();
        let syncer =
            Syncer { storage: storage.clone(), written: to_sync, ended, stop: stop.clone() };
        let writer = Self { storage, jobs: received, written, synced, space, stop, next_look };
        (writer, syncer, WriterHandle { jobs, space: followed })
    }

    /// Writes until nobody is left who could ask, or the disk fails; drops `finished` at the end.
    pub(crate) async fn run(mut self, finished: oneshot::Sender<()>) {
        match self.write_all().await {
            Ok(()) => {
                drop(self.written);
                if self.synced.await.is_ok() {
                    self.storage.close().await;
                }
            }
            Err(reason) => fail(&self.stop, reason),
        }
        drop(finished);
    }

    async fn write_all(&mut self) -> Result<(), String> {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = self.jobs.recv_many(&mut waiting, JOBS_MAX) => {
                    if count == 0 {
                        return Ok(());
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
                self.write(jobs).await?;
            }
        }
    }

    async fn write(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let mut batch = Batch::default();
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            batch.stores.extend(job.stores);
            batch.erased.extend(job.erased);
            batch.metadata.extend(job.metadata);
            done.push(job.done);
        }
        if planted(Bug::NoSync) {
            done.drain(..).for_each(|tell| tell());
        }
        loop {
            match self.storage.write(&batch).await {
                Ok(()) => break,
                Err(CommitError::NoSpace) => {
                    self.show(DiskSpace::Full);
                    tokio::time::sleep(FULL_RETRY).await;
                }
                Err(CommitError::Failed(reason)) => return Err(reason),
            }
        }
        // The syncer is gone only when it has failed, and has said so: the next write fails too.
        let _ = self.written.send(done).await;
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
    let (mut bytes, mut erases) = (0, false);
    let count = waiting
        .iter()
        .take_while(|job| {
            // What is stored after an erasure may be of the same partition; a batch erases last.
            let fits = bytes < BATCH_BYTES_MAX && !erases;
            erases |= !job.erased.is_empty();
            let records = job.stores.iter().flat_map(|store| &store.records);
            bytes += records.map(|record| record.len()).sum::<usize>();
            fits
        })
        .count();
    waiting.drain(..count).collect()
}
