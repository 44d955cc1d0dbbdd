//! What arrives: messages, requests with the way back for their answers, datagrams.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::counters::Counters;
use super::frame::{Frame, Kind};
use super::outbox::{Item, Outbox};
use super::{Lane, PeerIdentity};

/// A message or a request from another node.
#[derive(Debug)]
pub struct Incoming {
    /// Who sent it, as it proved when it connected.
    pub from: Arc<PeerIdentity>,
    /// On which lane.
    pub lane: Lane,
    /// What it says.
    pub body: Bytes,
    /// The way back for the answer; none for a message without one.
    pub answer: Option<Answerer>,
    /// Room in the lane's inbox, given back when this is dropped.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Incoming {
    /// A message without an answer, and the room that it takes until whoever handles it is done.
    pub(crate) fn into_message(self) -> (Arc<PeerIdentity>, Bytes, OwnedSemaphorePermit) {
        (self.from, self.body, self._room)
    }
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who claims to have sent it. Anybody can claim anything.
    pub from: SocketAddr,
    /// What it says.
    pub body: Bytes,
}

/// Answers one request. Dropped without an answer it tells the asker that there will be none.
pub struct Answerer {
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    lane: Lane,
    id: u64,
    answered: bool,
}

impl std::fmt::Debug for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerer").field("lane", &self.lane).field("id", &self.id).finish()
    }
}

impl Answerer {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        counters: Arc<Counters>,
        (lane, id): (Lane, u64),
    ) -> Self {
        Self { outbox, counters, lane, id, answered: false }
    }

    /// Sends the answer on its way. It is lost when the connection has broken, or when too much
    /// waits for it; the asker's call then ends as unknown. An answer that is longer than the
    /// lane's frames may be is not sent, and the asker is told that there is none.
    pub fn answer(mut self, body: Bytes) {
        let fits = body.len() <= self.lane.body_bytes_max();
        if fits {
            self.send(Kind::Answer, body);
        }
    }

    /// Says that the request was not taken.
    pub(super) fn decline(mut self, kind: Kind) {
        self.send(kind, Bytes::new());
    }

    fn send(&mut self, kind: Kind, body: Bytes) {
        self.answered = true;
        let frame = Frame { kind, lane: self.lane, id: self.id, body };
        if self.outbox.push(Item { frame, only: None }).is_err() {
            self.counters.answers_dropped.more();
        }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Kind::Unanswered, Bytes::new());
        }
    }
}
