//! The group's log and votes on the node's disk, by the writer that all of the node share.
//!
//! The part of the log that is not purged is short (`kinds.rs`), so it is in memory too, where it
//! is read. The writer takes jobs in their order, which is the one order that Raft asks for.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use sprawl_core::cluster::raft::RaftEvent;
use sprawl_core::ids::ChangeIndex;
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::oneshot;

use super::kinds::{Entry, Kinds, LogId, Vote};
use super::observed::{Observed, of_log};
use super::stored::{self, Stored};
use crate::storage::{Cell, MetadataWrite};
use crate::writer::{Job, WriterHandle};

/// The log. Clones are the same one.
#[derive(Clone)]
pub(super) struct Log {
    held: Arc<Mutex<Held>>,
    disk: Disk,
    observed: Observed,
}

struct Held {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Whether the disk knows `committed`; it is written with the next job, which is early enough.
    committed_is_stored: bool,
    purged: Option<LogId>,
    log: BTreeMap<u64, Entry>,
}

/// The way to the node's disk.
#[derive(Clone)]
pub(super) struct Disk(WriterHandle);

impl Disk {
    pub(super) fn new(writer: WriterHandle) -> Self {
        Self(writer)
    }

    /// Has something written; `done` is called when it is durable, and never if the disk fails.
    pub(super) async fn write(
        &self,
        metadata: Vec<MetadataWrite>,
        done: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let job = Job { stores: Vec::new(), erased: Vec::new(), metadata, done: Box::new(done) };
        self.0.jobs.send(job).await.map_err(|_| ended())
    }

    /// Has something written, and waits until it is durable.
    pub(super) async fn sync(&self, metadata: Vec<MetadataWrite>) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let done = move || {
            // Whoever asked may have ended.
            let _ = tell.send(());
        };
        self.write(metadata, done).await?;
        told.await.map_err(|_| ended())
    }
}

/// The writer has ended, because the disk has failed or the node stops: nothing is said to be
/// stored any more.
fn ended() -> io::Error {
    io::Error::other("the node's disk takes nothing more")
}

impl Log {
    pub(super) fn new(stored: &mut Stored, disk: Disk, observed: Observed) -> Self {
        let held = Held {
            vote: stored.vote.take(),
            committed: stored.committed,
            committed_is_stored: true,
            purged: stored.purged,
            log: std::mem::take(&mut stored.log),
        };
        Self { held: Arc::new(Mutex::new(held)), disk, observed }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The committed place, if the disk does not know it yet.
    fn take_committed(&mut self) -> Option<MetadataWrite> {
        if std::mem::replace(&mut self.committed_is_stored, true) {
            return None;
        }
        self.committed.map(|committed| stored::write_cell(Cell::Committed, &committed))
    }
}

impl RaftLogReader<Kinds> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.held().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.held().vote)
    }
}

impl RaftLogStorage<Kinds> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Kinds>> {
        let held = self.held();
        let last = held.log.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.observed.leads(vote);
        let stored = vec![stored::write_cell(Cell::Vote, vote)];
        match planted(Bug::VoteAnsweredEarly) {
            true => self.disk.write(stored, || {}).await?,
            false => self.disk.sync(stored).await?,
        }
        self.held().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        {
            let mut held = self.held();
            held.committed = committed;
            held.committed_is_stored = false;
        }
        if let Some(committed) = committed {
            self.observed.tell(|| RaftEvent::Committed(of_log(committed)));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.held().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Kinds>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.observed.appended(&entries);
        let mut metadata = Vec::new();
        {
            let mut held = self.held();
            metadata.extend(held.take_committed());
            for entry in entries {
                metadata.push(stored::write_entry(&entry));
                held.log.insert(entry.log_id.index, entry);
            }
        }
        if planted(Bug::AppendAnsweredEarly) {
            flushed.io_completed(Ok(()));
            return self.disk.write(metadata, || {}).await;
        }
        self.disk.write(metadata, move || flushed.io_completed(Ok(()))).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut held = self.held();
            if let Some(committed) = held.committed.filter(|committed| committed.index >= from) {
                let why = "the group has another history than this node: what was agreed on here \
                           is not there; start with an empty directory";
                tracing::error!(from, committed = committed.index, why);
                return Err(io::Error::other(why));
            }
            held.log.split_off(&from);
        }
        self.observed.tell(|| RaftEvent::Truncated { from: from + 1 });
        self.disk.write(vec![MetadataWrite::Truncate(ChangeIndex(from))], || {}).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let below = upto.index + 1;
        {
            let mut held = self.held();
            held.log = held.log.split_off(&below);
            held.purged = held.purged.max(Some(upto));
        }
        self.observed.tell(|| RaftEvent::Purged { upto: of_log(upto).index });
        let purged = stored::write_cell(Cell::Purged, &upto);
        self.disk.write(vec![purged, MetadataWrite::Purge(ChangeIndex(below))], || {}).await
    }
}
