//! What the group has agreed on, applied: the metadata, as core's state machine makes them of the
//! changes, and their snapshots.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use sprawl_core::cluster::metadata::{Change, View};
use sprawl_core::ids::ChangeIndex;
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::mpsc;

use super::kinds::{Kinds, LogId, Members, Snapshot, SnapshotMeta};
use super::log::Disk;
use super::observed::Observed;
use super::runtime::apart;
use super::stored::{self, Applied, StoredSnapshot};

/// A step of what is agreed.
#[derive(Debug)]
pub(crate) enum Decision {
    /// A change, and the metadata after it.
    Change { index: ChangeIndex, change: Change, view: Arc<View> },
    /// The metadata as another node has them, which this one was too far behind for.
    Installed(Arc<View>),
}

/// The state machine. Clones are the same one.
#[derive(Clone)]
pub(super) struct Metadata {
    applied: Arc<Mutex<Applied>>,
    snapshot: Arc<Mutex<Option<StoredSnapshot>>>,
    /// Held from the decision to store a snapshot until it is durable.
    keeping: Arc<tokio::sync::Mutex<()>>,
    /// Bounded by the changes that the disk takes while control is busy.
    decisions: mpsc::UnboundedSender<Decision>,
    disk: Disk,
    observed: Observed,
}

impl Metadata {
    pub(super) fn new(
        applied: Applied,
        snapshot: Option<StoredSnapshot>,
        decisions: mpsc::UnboundedSender<Decision>,
        (disk, observed): (Disk, Observed),
    ) -> Self {
        let (applied, snapshot) = (Arc::new(Mutex::new(applied)), Arc::new(Mutex::new(snapshot)));
        Self { applied, snapshot, keeping: Arc::default(), decisions, disk, observed }
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> MutexGuard<'_, Option<StoredSnapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, decision: Decision) {
        // Control is gone only when the node has ended.
        let _ = self.decisions.send(decision);
    }

    /// Stores a snapshot; it is the newest one when it is durable. Openraft builds one in a task
    /// of its own, and may have one installed meanwhile: the log may be purged by the newer of
    /// the two at once, so an older one never takes its place.
    async fn keep(&self, snapshot: StoredSnapshot, is_installed: bool) -> io::Result<()> {
        let _one_at_a_time = self.keeping.lock().await;
        let is_behind = self.snapshot().as_ref().is_some_and(|held| held.is_past(&snapshot));
        if is_behind && !planted(Bug::SnapshotReplacedByOlder) {
            return Ok(());
        }
        if planted(Bug::SnapshotHeadFirst) {
            let body = self.snapshot().as_ref().map(|held| held.view.clone());
            let view = body.unwrap_or_else(|| View::default().snapshot().into());
            let head = StoredSnapshot { meta: snapshot.meta.clone(), view };
            self.disk.sync(vec![stored::write_snapshot(&head)]).await?;
        }
        self.disk.sync(vec![stored::write_snapshot(&snapshot)]).await?;
        self.observed.keeps(&snapshot, is_installed);
        *self.snapshot() = Some(snapshot);
        Ok(())
    }
}

impl RaftSnapshotBuilder<Kinds> for Metadata {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let Applied { last, members, view } = self.applied().clone();
        let meta = SnapshotMeta { last_log_id: last, last_membership: members };
        let view = Bytes::from(apart(move || view.snapshot()).await?);
        self.keep(StoredSnapshot { meta: meta.clone(), view: view.clone() }, false).await?;
        Ok(Snapshot { meta, snapshot: view })
    }
}

impl RaftStateMachine<Kinds> for Metadata {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Members)> {
        let applied = self.applied();
        Ok((applied.last, applied.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Kinds>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let decision = {
                let mut applied = self.applied();
                let agreed = applied.apply(&entry);
                self.observed.applied(entry.log_id, &applied.view);
                agreed.map(|agreed| Decision::Change {
                    index: ChangeIndex(entry.log_id.index),
                    change: agreed.0.clone(),
                    view: Arc::new(applied.view.clone()),
                })
            };
            decision.into_iter().for_each(|decision| self.tell(decision));
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, view: Bytes) -> io::Result<()> {
        let bytes = view.clone();
        let restored = apart(move || View::restore(&bytes)).await?.map_err(io::Error::other)?;
        self.keep(StoredSnapshot { meta: meta.clone(), view }, true).await?;
        if let Some(last) = meta.last_log_id {
            self.observed.applied(last, &restored);
        }
        let shown = Arc::new(restored.clone());
        *self.applied() = Applied {
            last: meta.last_log_id,
            members: meta.last_membership.clone(),
            view: restored,
        };
        self.tell(Decision::Installed(shown));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let held = self.snapshot();
        Ok(held
            .as_ref()
            .map(|held| Snapshot { meta: held.meta.clone(), snapshot: held.view.clone() }))
    }
}
