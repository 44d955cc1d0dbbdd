//! The loop that takes what other nodes ask for their clients, and hands it to the shards.

use std::sync::{Arc, PoisonError, RwLock};

use sprawl_core::broker::routing::{Answer, wire};
use sprawl_core::cluster::metadata::View;
use sprawl_core::machine::{Refused, Response};
use sprawl_core::node::entry_shard;
use tokio::sync::mpsc;

use super::shard::FromPeer;
use crate::handle::Ended;
use crate::peer::{Counters, Incoming};
use crate::signal::Follower;

/// How many requests of other nodes wait in front of one shard at most; the next one is refused.
pub(crate) const PEER_REQUESTS_MAX: usize = 4_096;

/// Decodes and hands over; it decides nothing.
pub(crate) struct DataLoop {
    arriving: mpsc::Receiver<Incoming>,
    shards: Vec<mpsc::Sender<FromPeer>>,
    /// The newest view: which shard a request is handed to.
    face: Arc<RwLock<Arc<View>>>,
    traffic: Arc<Counters>,
    stopped: Follower<Option<Ended>>,
}

impl DataLoop {
    pub(crate) fn new(
        arriving: mpsc::Receiver<Incoming>,
        shards: Vec<mpsc::Sender<FromPeer>>,
        face: Arc<RwLock<Arc<View>>>,
        traffic: Arc<Counters>,
        stopped: Follower<Option<Ended>>,
    ) -> Self {
        Self { arriving, shards, face, traffic, stopped }
    }

    /// Runs until the node ends.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.stopped.until(Option::is_some) => return,
                incoming = self.arriving.recv() => match incoming {
                    Some(incoming) => self.hand_over(incoming),
                    None => return,
                },
            }
        }
    }

    fn hand_over(&self, incoming: Incoming) {
        let from = incoming.from.disk;
        let (ask, answer) = match (wire::decode_ask(incoming.body), incoming.answer) {
            (Ok(ask), Some(answer)) => (ask, answer),
            (Ok(_), None) => {
                self.traffic.not_understood.more();
                return tracing::debug!(node = %from, "a request without a way back");
            }
            (Err(error), _) => {
                self.traffic.not_understood.more();
                return tracing::debug!(%error, node = %from, "a request that nobody understands");
            }
        };
        let view = self.face.read().unwrap_or_else(PoisonError::into_inner).clone();
        let shards = u16::try_from(self.shards.len()).expect("shards are counted in u16");
        let door = entry_shard(&view, shards, &ask.request);
        let sent = self.shards[usize::from(door.0)].try_send(FromPeer { from, ask, answer });
        if let Err(mpsc::error::TrySendError::Full(FromPeer { answer, .. })) = sent {
            let refused = Refused::Overloaded("too many requests are waiting");
            let refused = Answer::from(Response::Refused(refused));
            answer.answer(wire::encode_answer(&refused));
        }
    }
}
