//! What the metadata's consensus tells control, and what control asks of it.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ChangeIndex, DiskId, NodeId};
use crate::machine::Time;

/// How the metadata's Raft group stands, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RaftStatus {
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Whether this node leads and has applied an entry of its term.
    pub is_leader_ready: bool,
    /// When a majority last answered this leader.
    pub quorum_acked: Option<Time>,
    /// The voters; of a change of them that is under way, the old and the new ones.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of the group is under way, of its voters or its learners: openraft refuses
    /// another one meanwhile.
    pub is_joint: bool,
    /// Who receives the log and does not vote, and how far the leader knows that they have it: 0
    /// while it does not.
    pub learners: BTreeMap<NodeId, u64>,
    /// How far this node has applied the log.
    pub applied: ChangeIndex,
}

impl RaftStatus {
    /// A group of one.
    #[must_use]
    pub fn alone(node: NodeId, applied: ChangeIndex) -> Self {
        Self {
            leader: Some(node),
            term: 1,
            is_leader_ready: true,
            voters: BTreeSet::from([node]),
            applied,
            ..Self::default()
        }
    }
}

/// A change of the Raft group that the leader is to make. It shows in the status, or was lost and
/// is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RaftChange {
    /// Send this node the log.
    AddLearner {
        /// Its Raft id.
        node: NodeId,
        /// Its identity.
        disk: DiskId,
        /// Where it is reached.
        address: SocketAddr,
    },
    /// Have these nodes vote, by joint consensus; former voters go on as learners.
    Voters(BTreeSet<NodeId>),
    /// Forget a node that does not vote.
    Remove(NodeId),
    /// Have another voter lead.
    HandOver,
}
