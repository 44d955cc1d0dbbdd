//! Consensus on the metadata: openraft, which is known to nobody outside of this folder
//! (docs/adr/0006-openraft.md).
//!
//! The group's member runs on a thread of its own. Control gives it proposals and gets back what is
//! agreed, in the one order that all nodes see.

mod channels;
mod kinds;
mod log;
mod machine;
mod network;
mod runtime;
mod stored;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::BasicNode;
use openraft::async_runtime::watch::WatchReceiver as _;
use sprawl_core::cluster::metadata::Change;
use sprawl_core::ids::{ClusterId, NodeId};
use tokio::sync::mpsc;

use self::kinds::Kinds;
use self::log::{Disk, Log};
pub(crate) use self::machine::Decision;
use self::machine::Metadata;
use self::network::NoPeers;
pub use self::stored::BadMetadata;
use self::stored::Membership;
pub(crate) use self::stored::{Applied, Stored};
use crate::handle::Ended;
use crate::signal::{Follower, Signal};
use crate::storage::Cell;
use crate::writer::WriterHandle;

/// How many proposals wait until there is a leader, at most.
const PROPOSALS_MAX: usize = 4_096;
/// The Raft id of whoever founds a cluster.
const FOUNDER: u64 = 0;

type Raft = openraft::Raft<Kinds, Metadata>;

/// The group, for control.
pub(crate) struct Group {
    proposals: mpsc::Sender<Change>,
    decisions: mpsc::UnboundedReceiver<Decision>,
    pub(crate) status: Follower<GroupStatus>,
}

impl Group {
    /// Proposes a change. It comes back from [`decided`](Self::decided), or never.
    pub(crate) fn propose(&self, change: Change) {
        if self.proposals.try_send(change).is_err() {
            tracing::warn!("too many changes wait for a leader: one is dropped");
        }
    }

    /// What was agreed next, durably; `None` when nothing will be any more.
    pub(crate) async fn decided(&mut self) -> Option<Decision> {
        self.decisions.recv().await
    }
}

/// How one member sees the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, as far as this member knows.
    pub leader: Option<NodeId>,
    /// The newest term that it has seen.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who receives the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// This node's member of the group.
pub(crate) struct Member {
    id: u64,
    cluster: ClusterId,
    is_new: bool,
    /// Whether nobody else votes, so that there is nobody to wait for.
    is_alone: bool,
    log: Log,
    metadata: Metadata,
    disk: Disk,
    proposals: mpsc::Receiver<Change>,
    status: Signal<GroupStatus>,
    stop: Signal<Option<Ended>>,
    stopped: Follower<Option<Ended>>,
}

impl Member {
    /// A member as its disk left it, and the group as control sees it. `cluster` is the identity of
    /// the cluster, should this node found one.
    pub(crate) fn new(
        mut stored: Stored,
        applied: Applied,
        cluster: ClusterId,
        writer: WriterHandle,
        stop: Signal<Option<Ended>>,
    ) -> Result<(Self, Group), BadMetadata> {
        // Decisions are bounded by the changes that the disk takes while control is busy.
        let (decide, decisions) = mpsc::unbounded_channel();
        let (proposals, proposed) = mpsc::channel(PROPOSALS_MAX);
        let is_new = stored.membership.is_none();
        let Membership { node: id, cluster } =
            stored.membership.unwrap_or(Membership { node: FOUNDER, cluster });
        let is_alone = stored.all()?.voters().eq([id]);
        let disk = Disk::new(writer);
        let snapshot = stored.snapshot.take();
        let log = Log::new(&mut stored, disk.clone());
        let metadata = Metadata::new(applied, snapshot, decide, disk.clone());
        let (stopped, status) = (stop.follow(), Signal::new(GroupStatus::default()));
        let followed = status.follow();
        let member = Self {
            id,
            cluster,
            is_new,
            is_alone,
            log,
            metadata,
            disk,
            proposals: proposed,
            status,
            stop,
            stopped,
        };
        Ok((member, Group { proposals, decisions, status: followed }))
    }

    /// Takes part until the node ends.
    pub(crate) async fn run(mut self) {
        if let Err(why) = self.take_part().await {
            let ended = Ended::Halted(format!("consensus on the metadata failed: {why}"));
            // A disk that has failed is the reason, where it has.
            if self.stop.set_where(Option::is_none, Some(ended)) {
                tracing::error!(why, "consensus on the metadata failed");
            }
        }
    }

    async fn take_part(&mut self) -> Result<(), String> {
        let raft = self.start().await?;
        let mut metrics = raft.server_metrics();
        loop {
            let leads = raft.is_leader();
            self.status.set(seen(&raft));
            tokio::select! {
                biased;
                _ = self.stopped.until(Option::is_some) => break,
                Some(change) = self.proposals.recv(), if leads => {
                    let written = raft.client_write_ff(kinds::Agreed(change), None).await;
                    written.map_err(|error| error.to_string())?;
                }
                changed = metrics.changed() => {
                    changed.map_err(|_| fate(&raft))?;
                }
            }
        }
        raft.shutdown().await.map_err(|error| error.to_string())
    }

    async fn start(&mut self) -> Result<Raft, String> {
        if self.is_new {
            let membership = Membership { node: self.id, cluster: self.cluster };
            let cell = stored::write_cell(Cell::Membership, &membership);
            self.disk.sync(vec![cell]).await.map_err(|error| error.to_string())?;
        }
        let config = kinds::config().validate().map_err(|error| error.to_string())?;
        let (log, metadata) = (self.log.clone(), self.metadata.clone());
        let raft = Raft::new(self.id, Arc::new(config), NoPeers, log, metadata);
        let raft = raft.await.map_err(|error| error.to_string())?;
        let initialized = raft.is_initialized().await.map_err(|error| error.to_string())?;
        if !initialized {
            let members = BTreeMap::from([(self.id, BasicNode::default())]);
            raft.initialize(members).await.map_err(|error| error.to_string())?;
        } else if self.is_alone {
            raft.trigger().elect(false).await.map_err(|error| error.to_string())?;
        }
        Ok(raft)
    }
}

fn seen(raft: &Raft) -> GroupStatus {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let members = metrics.membership_config.membership();
    GroupStatus {
        leader: metrics.current_leader.map(NodeId),
        term: metrics.vote.leader_id().term,
        voters: members.voter_ids().map(NodeId).collect(),
        learners: members.learner_ids().map(NodeId).collect(),
    }
}

/// Why the member has ended.
fn fate(raft: &Raft) -> String {
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "it ended without a reason".to_owned(),
        Err(fatal) => fatal.to_string(),
    }
}
