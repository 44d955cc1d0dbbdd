//! What happens to the gossip machine, and what it wants done.
//!
//! The driver hands in what has arrived before it says `Woke`: what was silent only because the
//! process stood still is then not taken for dead.

use std::sync::Arc;

use bytes::Bytes;
use core::net::SocketAddr;

use crate::cluster::gossip::{Load, MemberEvent, Members};
use crate::ids::{ClusterId, DiskId, ExchangeId, RequestId};

/// What happened to the gossip machine.
#[derive(Clone, Debug, Hash)]
pub enum GossipInput {
    /// A datagram came.
    Received {
        /// The address that it came from.
        from: SocketAddr,
        /// All of it.
        datagram: Bytes,
    },
    /// A peer asks, over a stream, for an exchange of what both know.
    Asked {
        /// Names it in the answer.
        id: RequestId,
        /// What it asks.
        request: Bytes,
    },
    /// What became of an exchange that this machine asked for.
    Answered {
        /// Which one.
        exchange: ExchangeId,
        /// What the peer answered; nothing, when it could not be reached or broke off.
        answer: Option<Bytes>,
    },
    /// Seek the cluster at these addresses too.
    Join {
        /// Where members may be.
        addresses: Vec<SocketAddr>,
    },
    /// The metadata has retired these identities: nothing about them is heard any more.
    Retired(Vec<DiskId>),
    /// How much the node has to do now.
    Loaded(Load),
    /// The cluster that the node belongs to, as its metadata says.
    Cluster(ClusterId),
    /// The node is about to stop: the others are to know.
    Leave,
    /// The time that `wakeup` named has come.
    Woke,
}

/// What the gossip machine wants done.
#[derive(Clone, Debug, Hash)]
pub enum GossipEffect {
    /// Send this; whether it arrives nobody hears.
    Send {
        /// To whom.
        to: SocketAddr,
        /// All of it.
        datagram: Bytes,
    },
    /// Ask a peer over a stream; `Answered` tells what became of it, within five seconds.
    Exchange {
        /// Names it in the answer.
        exchange: ExchangeId,
        /// Whom.
        to: SocketAddr,
        /// What.
        request: Bytes,
    },
    /// Answer a peer's exchange. One that gets no answer is to be closed.
    Answer {
        /// Which one.
        id: RequestId,
        /// The answer.
        answer: Bytes,
    },
    /// Show whoever reads it the newest view of the members.
    Show(Arc<Members>),
    /// Tell whoever listens what became of a member.
    Event(MemberEvent),
    /// The others were told that the node leaves: it may stop.
    Departed,
}
