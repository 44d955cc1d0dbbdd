//! Where what arrives waits for whoever handles it, bounded by lane.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::answer::{Answerer, Datagram, Incoming};
use super::{Lane, PeerIdentity};

/// How many messages wait on one lane at most.
pub(super) const INBOX_FRAMES_MAX: usize = 4_096;
/// How many datagrams wait at most; further ones are dropped.
pub(super) const DATAGRAMS_MAX: usize = 4_096;

/// The receiving ends, each of which is taken once. Requests on a lane whose end was dropped are
/// declined.
#[derive(Debug)]
pub struct Inbound {
    lanes: [Option<mpsc::Receiver<Incoming>>; Lane::ALL.len()],
    datagrams: Option<mpsc::Receiver<Datagram>>,
}

impl Inbound {
    /// What arrives on a lane.
    ///
    /// # Panics
    ///
    /// When it was taken before.
    pub fn lane(&mut self, lane: Lane) -> mpsc::Receiver<Incoming> {
        self.lanes[usize::from(lane.number())].take().expect("a lane has one receiver")
    }

    /// The datagrams that arrive.
    ///
    /// # Panics
    ///
    /// When they were taken before.
    pub fn datagrams(&mut self) -> mpsc::Receiver<Datagram> {
        self.datagrams.take().expect("datagrams have one receiver")
    }
}

struct Inbox {
    sender: mpsc::Sender<Incoming>,
    /// One permit per byte.
    room: Arc<Semaphore>,
}

/// The sending ends.
pub(super) struct Inboxes {
    lanes: [Inbox; Lane::ALL.len()],
    datagrams: mpsc::Sender<Datagram>,
}

impl Inboxes {
    pub(super) fn new() -> (Self, Inbound) {
        let mut receivers = Lane::ALL.map(|_| None);
        let lanes = Lane::ALL.map(|lane| {
            let (sender, receiver) = mpsc::channel(INBOX_FRAMES_MAX);
            receivers[usize::from(lane.number())] = Some(receiver);
            Inbox { sender, room: Arc::new(Semaphore::new(lane.inbox_bytes_max())) }
        });
        let (datagrams, received) = mpsc::channel(DATAGRAMS_MAX);
        (Self { lanes, datagrams }, Inbound { lanes: receivers, datagrams: Some(received) })
    }

    fn of(&self, lane: Lane) -> &Inbox {
        &self.lanes[usize::from(lane.number())]
    }

    /// Whether somebody takes what comes on a lane.
    pub(super) fn is_heard(&self, lane: Lane) -> bool {
        !self.of(lane).sender.is_closed()
    }

    /// Hands a message over when there is room for it. Who listened and ended meanwhile leaves
    /// the request without answer.
    pub(super) async fn deliver(
        &self,
        lane: Lane,
        from: Arc<PeerIdentity>,
        body: Bytes,
        answer: Option<Answerer>,
    ) {
        let inbox = self.of(lane);
        let bytes = u32::try_from(body.len()).expect("a lane's frames are shorter");
        let room = inbox.room.clone().acquire_many_owned(bytes).await;
        let _room = room.expect("the semaphore is never closed");
        // The error is the message back, whose answerer tells the asker.
        let _ = inbox.sender.send(Incoming { from, lane, body, answer, _room }).await;
    }

    /// Hands a datagram over; says whether it was taken.
    pub(super) fn deliver_datagram(&self, datagram: Datagram) -> bool {
        self.datagrams.try_send(datagram).is_ok()
    }
}
