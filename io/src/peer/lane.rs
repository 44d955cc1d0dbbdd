//! What messages between nodes are about, and which share a connection.

use sprawl_core::broker::replica::frame;
use sprawl_core::broker::routing::wire::CALL_BYTES_MAX;

/// What a message is about: each lane has receivers of its own at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The metadata log: entries, votes, heartbeats of its leader.
    Raft,
    /// Pieces of snapshots.
    Snapshot,
    /// Sessions and what the controller asks: small messages whose time matters.
    Control,
    /// Founding and joining, the only lane of a node that belongs to no cluster yet.
    Join,
    /// The exchange of whole membership tables.
    Gossip,
    /// What clients ask, handed on between shards of different nodes.
    Data,
    /// Between the replicas of partitions.
    Replica,
}

/// Lanes that share a connection, so that what is large never stands before what is urgent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Class {
    /// [`Lane::Raft`].
    Raft,
    /// [`Lane::Snapshot`] and [`Lane::Gossip`].
    Bulk,
    /// [`Lane::Control`] and [`Lane::Join`].
    Urgent,
    /// [`Lane::Data`].
    Data,
    /// [`Lane::Replica`].
    Replica,
}

impl Lane {
    /// All lanes, by their number.
    pub const ALL: [Self; 7] = [
        Self::Raft,
        Self::Snapshot,
        Self::Control,
        Self::Join,
        Self::Gossip,
        Self::Data,
        Self::Replica,
    ];

    /// The number that a frame names it by.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Raft => 0,
            Self::Snapshot => 1,
            Self::Control => 2,
            Self::Join => 3,
            Self::Gossip => 4,
            Self::Data => 5,
            Self::Replica => 6,
        }
    }

    /// The lane of a number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Which connection carries it.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Raft => Class::Raft,
            Self::Snapshot | Self::Gossip => Class::Bulk,
            Self::Control | Self::Join => Class::Urgent,
            Self::Data => Class::Data,
            Self::Replica => Class::Replica,
        }
    }

    /// The longest body of a frame, in bytes.
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Raft => 16 << 20,
            Self::Snapshot | Self::Gossip => 4 << 20,
            Self::Control => 64 << 10,
            Self::Join => 256 << 10,
            Self::Data => CALL_BYTES_MAX,
            Self::Replica => frame::FRAME_BYTES_MAX,
        }
    }

    /// How many bytes from all peers may wait for the lane's receiver. Connections that bring more
    /// are not read from meanwhile.
    #[must_use]
    pub const fn inbox_bytes_max(self) -> usize {
        match self {
            Self::Raft | Self::Snapshot | Self::Gossip | Self::Control | Self::Join => {
                4 * self.body_bytes_max()
            }
            Self::Data | Self::Replica => 2 * self.body_bytes_max(),
        }
    }
}

impl Class {
    /// How many bytes may wait for one connection.
    #[must_use]
    pub const fn queue_bytes_max(self) -> usize {
        match self {
            Self::Raft => 64 << 20,
            Self::Bulk => 32 << 20,
            Self::Urgent => 1 << 20,
            Self::Data => 192 << 20,
            Self::Replica => 192 << 20,
        }
    }
}

// The largest frame of each lane fits into its connection's queue.
const _: () = {
    assert!(Lane::Raft.body_bytes_max() * 2 < Class::Raft.queue_bytes_max());
    assert!(Lane::Snapshot.body_bytes_max() * 2 < Class::Bulk.queue_bytes_max());
    assert!(Lane::Gossip.body_bytes_max() * 2 < Class::Bulk.queue_bytes_max());
    assert!(Lane::Control.body_bytes_max() * 2 < Class::Urgent.queue_bytes_max());
    assert!(Lane::Join.body_bytes_max() * 2 < Class::Urgent.queue_bytes_max());
    assert!(Lane::Data.body_bytes_max() * 2 < Class::Data.queue_bytes_max());
    assert!(Lane::Replica.body_bytes_max() * 2 < Class::Replica.queue_bytes_max());
};
