//! Consensus on the metadata: openraft, which is known to nobody outside of this folder
//! (docs/adr/0006-openraft.md).
//!
//! The group's member runs on a thread of its own. Control gives it proposals and gets back what is
//! agreed, in the one order that all nodes see. A node that belongs to no cluster finds one first.

mod channels;
mod entry;
mod kinds;
mod log;
mod machine;
mod member;
mod network;
mod observed;
mod proposals;
pub mod recover;
mod runtime;
mod serving;
mod stored;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sprawl_core::cluster::consensus::{RaftChange, RaftStatus};
use sprawl_core::cluster::metadata::{Change, Registration};
use sprawl_core::ids::ClusterId;
use tokio::sync::mpsc;

use self::kinds::Kinds;
pub use self::kinds::SNAPSHOT_ENTRIES;
pub(crate) use self::machine::Decision;
use self::machine::Metadata;
pub(crate) use self::member::{Member, Reached};
pub(crate) use self::observed::Observed;
pub use self::observed::{Pending, pending, synced};
pub use self::stored::BadMetadata;
pub(crate) use self::stored::{Applied, Stored};
use crate::peer::Answerer;
use crate::signal::Follower;

/// How many proposals wait until there is a leader, at most.
const PROPOSALS_MAX: usize = 4_096;
/// How many changes of the group wait at most.
const CHANGES_MAX: usize = 16;
/// How many nodes wait at the door at most.
const VISITORS_MAX: usize = 64;

type Raft = openraft::Raft<Kinds, Metadata>;

/// How a node without a cluster is to find one.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) said: Registration,
    pub(crate) seeds: BTreeSet<SocketAddr>,
    pub(crate) founds: bool,
    /// The identity of the cluster, should this node found one.
    pub(crate) fresh: ClusterId,
    /// After how many entries the metadata are stored as a snapshot.
    pub(crate) snapshot_entries: u64,
}

/// What control wants agreed on.
#[derive(Clone, Debug)]
struct Proposal {
    change: Change,
    /// Whether it is this node's to decide, as the leader that it is now.
    only_here: bool,
}

/// A node that asks to be registered, and waits for the answer.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) said: Registration,
    pub(crate) answer: Answerer,
}

/// The group, for control.
pub(crate) struct Group {
    proposals: mpsc::Sender<Proposal>,
    changes: mpsc::Sender<RaftChange>,
    /// What is agreed, durably, in its order.
    pub(crate) decisions: mpsc::UnboundedReceiver<Decision>,
    pub(crate) visitors: mpsc::Receiver<Visitor>,
    pub(crate) status: Follower<RaftStatus>,
    /// Why this node belongs to no cluster yet; `None` when it does.
    pub(crate) waits: Follower<Option<String>>,
}

impl Group {
    /// Proposes a change. It comes back among the decisions, or never.
    pub(crate) fn propose(&self, change: Change, only_here: bool) {
        if self.proposals.try_send(Proposal { change, only_here }).is_err() {
            tracing::warn!("too many changes wait for a leader: one is dropped");
        }
    }

    /// Has the group changed, if this node leads it. It shows in the status, or was lost.
    pub(crate) fn reconfigure(&self, change: RaftChange) {
        // What does not fit is asked for again.
        let _ = self.changes.try_send(change);
    }
}
