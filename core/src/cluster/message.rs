//! What the control machines of different nodes send one another.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::metadata::Registration;
use crate::ids::{
    Boot, ChangeIndex, ClusterId, DiskId, EntryIndex, Epoch, NodeId, PartitionId, SubscriptionId,
};
use crate::machine::WallTime;

/// A message between control machines. Any of them may be lost, doubled, or come late: whoever
/// waits for an answer asks again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ControlMessage {
    /// From a node to every voter: I live.
    Heartbeat(Heartbeat),
    /// From a voter to whoever sent it a heartbeat.
    HeartbeatAnswer(HeartbeatAnswer),
    /// From a node whose run is not registered, to any node, which hands it on to the leader.
    Join {
        /// What the node says of itself.
        said: Registration,
        /// The cluster that it belonged to before.
        cluster: Option<ClusterId>,
        /// Who handed it on and will hand the answer back.
        via: Option<DiskId>,
    },
    /// From the controller to a node: what do these partitions' logs end with?
    AskLogEnds(AskLogEnds),
    /// To the controller: this.
    LogEnds(LogEnds),
    /// To the controller: something is wrong with a partition.
    Complaint(Complaint),
    /// What came of a `Join`, to the node or to whoever handed it on.
    JoinAnswer {
        /// The node that asked.
        disk: DiskId,
        /// Its run.
        boot: Boot,
        /// What came of it.
        answer: JoinAnswer,
    },
    /// From a node at which somebody subscribes, to one that leads partitions of the subscription:
    /// where has it begun?
    AskBegun(Begun),
    /// In which of the partitions that were asked about the subscription has begun.
    Begun(Begun),
    /// From a node to every voter: this run is about to end, and others are to take over from it.
    Farewell,
    /// To the controller: what nodes have to do is to be evened out now.
    Rebalance,
}

/// Partitions of a subscription, at most [`BEGUN_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Begun {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The change that made it.
    pub created: ChangeIndex,
    /// The partitions, ascending.
    pub partitions: Vec<PartitionId>,
}

/// How many partitions a [`Begun`] names at most.
pub const BEGUN_MAX: usize = 1_000;

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was sent by the sender's monotone clock, in microseconds; it comes back.
    pub sent: u64,
    /// What the sender's wall clock shows.
    pub wall: WallTime,
    /// How far the sender has applied the metadata.
    pub applied: ChangeIndex,
}

/// What a replica of a partition has the controller told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Complaint {
    /// From its leader: a member holds up the others, and cannot be removed.
    Slow {
        /// The partition.
        partition: PartitionId,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// A member of its set does not hold what it acknowledged.
    Damaged {
        /// The partition.
        partition: PartitionId,
        /// The epoch in which that was found: a later leader finds out for itself.
        epoch: Epoch,
        /// The member.
        member: DiskId,
    },
}

/// What a voter answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// [`Heartbeat::sent`], as it came.
    pub sent: u64,
    /// What the voter's wall clock shows.
    pub wall: WallTime,
    /// Cluster time, in microseconds; nothing while the voter does not know it itself.
    pub time: Option<u64>,
    /// What the voter knows of the node that asks.
    pub known: Known,
}

/// What a voter's metadata say of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Known {
    /// Nothing.
    Unknown,
    /// This run of it has registered.
    Run(Boot),
    /// It was retired.
    Retired,
}

/// From the controller to a node: what do these partitions' logs end with?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AskLogEnds {
    /// Names the question; it comes back.
    pub number: u64,
    /// The partitions.
    pub partitions: Vec<PartitionId>,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogEnds {
    /// [`AskLogEnds::number`], as it came.
    pub number: u64,
    /// What is known of the partitions that the node holds.
    pub ends: Vec<(PartitionId, LogEnd)>,
}

/// What a partition's log ends with on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogEnd {
    /// The epoch of the last durable entry.
    pub epoch: Epoch,
    /// The last durable entry.
    pub last: EntryIndex,
    /// The last entry that is known there to be committed.
    pub commit: EntryIndex,
    /// Whether the log does not verify, is to be cut below what is committed, or is being filled
    /// from its end.
    pub damaged: bool,
}

/// What came of a `Join`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// The run is registered.
    Joined(Joined),
    /// It is not, and why.
    Refused(JoinRefused),
    /// Whoever was asked does not lead and does not know who does, or cannot judge it yet: it is to
    /// be asked again.
    Elsewhere,
}

/// A registered run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Joined {
    /// The node's Raft id.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The view that the node must have reached before it acts.
    pub index: ChangeIndex,
    /// Cluster time, in microseconds; nothing while whoever answers does not know it itself.
    pub time: Option<u64>,
    /// The nodes of the cluster, at most `NODES_MAX`.
    pub members: Vec<MemberAddress>,
}

/// Where a node of the cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberAddress {
    /// Its Raft id.
    pub node: NodeId,
    /// Its identity.
    pub disk: DiskId,
    /// Where other nodes reach it.
    pub address: SocketAddr,
}

/// Why a run is not registered. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    /// The directory belongs to another cluster.
    #[error("this data directory belongs to cluster {0}, these nodes are cluster {1}")]
    OtherCluster(ClusterId, ClusterId),
    /// The identity was retired: another directory took its name, or it left.
    #[error("this data directory's identity was retired from the cluster; start with an empty one")]
    Retired,
    /// The same or a later start of this identity has registered.
    #[error(
        "this data directory is a copy or was rolled back: its start {asked} is not newer than \
         start {known}, which the cluster knows; start with an empty directory"
    )]
    OldBoot {
        /// The run that asks.
        asked: Boot,
        /// The registered one.
        known: Boot,
    },
    /// Another process with the same identity lives elsewhere.
    #[error(
        "a node with this data directory's identity is running at {0}: start a copy with an empty \
         directory; if the directory was moved, stop that node first"
    )]
    Copied(SocketAddr),
    /// Another node of the name lives.
    #[error("a node of the name '{0}' is running at {1}")]
    NameTaken(String, SocketAddr),
    /// The cluster has as many nodes as it takes.
    #[error("the cluster has as many nodes as it takes")]
    Full,
    /// The node does not understand what the cluster uses.
    #[error("the cluster uses feature level {0}, which this version does not know")]
    Level(u32),
    /// A name, a zone or a capacity is out of range.
    #[error("the node's name, zone or capacity is out of range")]
    Range,
}

impl JoinRefused {
    /// Whether waiting can help: whoever is in the way may have died a moment ago.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Copied(_) | Self::NameTaken(..) => true,
            Self::OtherCluster(..)
            | Self::Retired
            | Self::OldBoot { .. }
            | Self::Full
            | Self::Level(_)
            | Self::Range => false,
        }
    }

    /// Whether no later start from the same directory may be registered either. Its boot number
    /// would pass the registered one at last, and its data are older all the same.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Retired | Self::OldBoot { .. } => true,
            Self::OtherCluster(..)
            | Self::Copied(_)
            | Self::NameTaken(..)
            | Self::Full
            | Self::Level(_)
            | Self::Range => false,
        }
    }
}
