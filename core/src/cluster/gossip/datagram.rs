//! What nodes say to one another: datagrams, and the two sides of an exchange.

use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

use super::member::{Incarnation, Load};
use super::news::News;
use crate::ids::{ClusterId, DiskId, NUMBER_MAX};

/// How many members one message of an exchange tells of, at most.
pub(super) const PIECE_MAX: usize = 256;

/// What every message begins with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Head {
    /// The sender's cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// The sender.
    pub from: DiskId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// How much it has to do.
    pub load: Load,
    /// A hash over the live members that it knows, with their incarnations.
    pub view: u64,
}

/// What a datagram is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Word {
    /// Are you there? The node of this identity answers with `Ack`.
    Ping {
        /// The sender's name for the question.
        number: u64,
        /// Whom it means.
        to: DiskId,
    },
    /// I am here; or, from a helper: the one that you asked me about is.
    Ack {
        /// The asker's name for the question.
        number: u64,
    },
    /// Ask another for me; the answer is `Ack`, or `Nack` when there is none.
    Ask {
        /// The sender's name for the question.
        number: u64,
        /// Whom to ask.
        target: DiskId,
        /// Where that is.
        address: SocketAddr,
    },
    /// I am here, and the one that you asked me about does not answer me.
    Nack {
        /// The asker's name for the question.
        number: u64,
    },
    /// Nothing but the news.
    News,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Datagram {
    /// Who says it.
    pub head: Head,
    /// What for.
    pub word: Word,
    /// What it tells beside.
    pub news: Vec<News>,
}

/// The asking side of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Asking {
    /// Do we know the same?
    Compare,
    /// This is what I know from an identity on; tell me what you know there.
    Piece {
        /// The first identity of the piece.
        from: DiskId,
        /// Ascending by identity.
        members: Vec<News>,
        /// Whether there are more above the last one.
        more: bool,
    },
}

/// The answering side of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Answering {
    /// To `Compare`: the heads say whether both know the same.
    Compared,
    /// To `Piece`: what the answerer knows there.
    Piece {
        /// Ascending by identity.
        members: Vec<News>,
        /// Whether there are more above the last one.
        more: bool,
    },
}

/// One message of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Exchanged<T> {
    /// Who says it.
    pub head: Head,
    /// What.
    pub body: T,
}

impl Head {
    /// Whether a node could have said it.
    pub(super) fn is_plausible(&self) -> bool {
        self.incarnation.is_plausible() && self.load.waiting_bytes <= NUMBER_MAX
    }
}

impl Datagram {
    /// Whether a node could have said it.
    pub(super) fn is_plausible(&self) -> bool {
        self.head.is_plausible() && self.news.iter().all(News::is_plausible)
    }
}

/// Whether a node could have said it.
pub(super) fn is_plausible_piece(members: &[News]) -> bool {
    members.len() <= PIECE_MAX && members.iter().all(News::is_plausible)
}
