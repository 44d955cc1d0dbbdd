//! How a node reaches other nodes: requests with an answer, messages without one, datagrams.
//!
//! [`Network`] is what the rest of a node asks for. [`Peers`] does it over [`Sockets`]: streams of
//! bytes and datagrams, which are the operating system's in production ([`tcp`]) and a simulated
//! wire's in simulation, so that frames, handshakes, queues and back-off are the same code in
//! both. The rules are in docs/protocol.md, "Between nodes".

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{ClusterId, DiskId};

mod answer;
mod backoff;
mod calls;
pub mod contract;
mod counters;
mod dice;
pub mod frame;
mod handshake;
mod hello;
mod hub;
mod inbox;
mod key;
mod lane;
mod link;
mod outbox;
mod peers;
mod pump;
mod runs;
mod sockets;
#[cfg(not(madsim))]
pub mod tcp;
mod visitor;

pub use answer::{Answerer, Datagram, Incoming};
pub use counters::{Counter, Counters};
pub use hello::{PeerIdentity, Refusal};
pub use inbox::Inbound;
pub use key::ClusterKey;
pub use lane::{Class, Lane};
pub use peers::{Options, Pace, Peers};
pub use runs::Runs;
pub use sockets::{Halves, Sockets};

/// The largest datagram, in bytes: it fits into one packet on every network of today.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;
/// The oldest and the newest version of the protocol between nodes that this build speaks.
pub const VERSIONS: (u16, u16) = (1, 1);

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it must be; `None` takes whoever listens there. What concerns an identity, such as a
    /// vote, names it: after a disk was replaced another node listens at the old address.
    pub disk: Option<DiskId>,
    /// Whether its registered run is meant, wherever that has registered: the address is what
    /// somebody remembers. Otherwise it is whoever listens at this very address.
    pub moves: bool,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, disk: None, moves: false }
    }
}

impl From<(SocketAddr, DiskId)> for Peer {
    fn from((address, disk): (SocketAddr, DiskId)) -> Self {
        Self { address, disk: Some(disk), moves: false }
    }
}

/// Reaches other nodes. A clone is the same network.
pub trait Network: Clone + Send + Sync + 'static {
    /// Sends a request and waits for its answer, for at most `wait`. A request that finds no
    /// connection waits for one attempt to make one. Dropping the future gives the answer up.
    ///
    /// # Errors
    ///
    /// [`CallError`] tells what certainly did not arrive from what may have.
    fn call(
        &self,
        to: impl Into<Peer> + Send,
        lane: Lane,
        request: Bytes,
        wait: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send;

    /// Sends a message on its way: at most once, in order with what was sent on the same lane
    /// before. It is dropped, and counted, when the peer's queue is full or an attempt to reach
    /// the peer fails; while there is none it waits, so that it may arrive late.
    fn tell(&self, to: impl Into<Peer> + Send, lane: Lane, message: Bytes);

    /// Sends a datagram of at most [`DATAGRAM_BYTES_MAX`] bytes: at most once or more often, in any
    /// order, or never. A longer one is dropped and counted.
    fn datagram(&self, to: SocketAddr, message: Bytes);

    /// Names the cluster that this node belongs to from now on. Connections are made anew, so that
    /// peers learn it; calls under way on them end as unknown.
    fn belong(&self, cluster: ClusterId);

    /// Names the runs that the metadata have registered from now on. Connections of runs that were
    /// overtaken end, and no new ones are made.
    fn know(&self, runs: Runs);
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request did not arrive, and will not.
    #[error("not delivered: {0}")]
    NotDelivered(#[from] NotDelivered),
    /// The request may have arrived, and may have had its effect.
    #[error("outcome unknown: {0}")]
    Unknown(#[from] Unknown),
}

/// Why a request certainly did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDelivered {
    /// No connection came about.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// No connection came about within the call's own time.
    #[error("no connection came about in time")]
    Expired,
    /// One of the two nodes does not talk to the other.
    #[error("{0}")]
    Refused(Refusal),
    /// Another node than the one that was meant listens at the address.
    #[error("node {0} listens there instead")]
    OtherNode(DiskId),
    /// The peer belongs to no cluster, or this node to none, and the lane is for members; or this
    /// run has not registered, and another one of its directory is there.
    #[error("the lane is for registered members of one cluster")]
    Outsider,
    /// Nobody takes what comes on this lane there.
    #[error("nobody there takes what comes on this lane")]
    NobodyListens,
    /// Too much waits for this peer, or there are too many peers.
    #[error("too much waits for this peer")]
    Full,
    /// The body is longer than the lane's frames may be.
    #[error("{bytes} bytes, where the lane takes {bytes_max}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// This node is ending.
    #[error("this node is ending")]
    Closed,
}

/// Why nobody knows what became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The connection broke after the request was sent.
    #[error("the connection broke")]
    Broken,
    /// Whoever took the request let go of it without an answer, or the answer was too long.
    #[error("the peer gave no answer")]
    Unanswered,
}

/// Locks what no holder leaves half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
