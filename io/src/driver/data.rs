//! The loop that takes what the shards of other nodes send, requests of their clients and words of
//! their replicas, and hands it to the shards.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sprawl_core::broker::replica::frame;
use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::broker::routing::{Answer, wire};
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{Boot, DiskId, PartitionId, ShardId};
use sprawl_core::machine::{Refused, Response};
use sprawl_core::node::{entry_shard, shard_of};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::shard::FromPeer;
use crate::handle::Ended;
use crate::peer::{Counters, Incoming};
use crate::signal::Follower;

/// How many requests of other nodes wait in front of one shard at most; the next one is refused.
pub(crate) const PEER_REQUESTS_MAX: usize = 4_096;

/// What the replicas of another node say to those of one shard. It waits in the room of its lane's
/// inbox until the shard has handled it: as much as that takes, and no more is received meanwhile.
pub(crate) struct FromReplicas {
    pub(crate) from: (DiskId, Boot),
    pub(crate) messages: Vec<(PartitionId, ReplicaMessage)>,
    _room: Arc<OwnedSemaphorePermit>,
}

/// Where a shard takes what other nodes send.
pub(crate) struct Ears {
    pub(crate) asks: mpsc::Sender<FromPeer>,
    pub(crate) replicas: mpsc::UnboundedSender<FromReplicas>,
}

/// What arrives from other nodes' shards.
pub(crate) struct Arriving {
    /// What their clients ask.
    pub(crate) asks: mpsc::Receiver<Incoming>,
    /// What their replicas say.
    pub(crate) replicas: mpsc::Receiver<Incoming>,
}

/// Decodes and hands over; it decides nothing.
pub(crate) struct DataLoop {
    arriving: Arriving,
    shards: Vec<Ears>,
    /// The newest view: which shard a request is handed to.
    face: Arc<RwLock<Arc<View>>>,
    traffic: Arc<Counters>,
    stopped: Follower<Option<Ended>>,
}

impl DataLoop {
    pub(crate) fn new(
        arriving: Arriving,
        shards: Vec<Ears>,
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
                Some(incoming) = self.arriving.replicas.recv() => self.distribute(incoming),
                Some(incoming) = self.arriving.asks.recv() => self.hand_over(incoming),
                else => return,
            }
        }
    }

    fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("shards are counted in u16")
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
        let door = entry_shard(&view, self.shards(), &ask.request);
        let asks = &self.shards[usize::from(door.0)].asks;
        let sent = asks.try_send(FromPeer { from, ask, answer });
        if let Err(mpsc::error::TrySendError::Full(FromPeer { answer, .. })) = sent {
            let refused = Refused::Overloaded("too many requests are waiting");
            let refused = Answer::from(Response::Refused(refused));
            answer.answer(wire::encode_answer(&refused));
        }
    }

    fn distribute(&self, incoming: Incoming) {
        let (from, frame, room) = incoming.into_message();
        let messages = match frame::decode(frame) {
            Ok(messages) => messages,
            Err(error) => {
                self.traffic.not_understood.more();
                return tracing::debug!(%error, node = %from.disk, "replicas say what is nothing");
            }
        };
        let mut parts: BTreeMap<ShardId, Vec<(PartitionId, ReplicaMessage)>> = BTreeMap::new();
        for (partition, message) in messages {
            let shard = shard_of(partition, self.shards());
            parts.entry(shard).or_default().push((partition, message));
        }
        let (from, room) = ((from.disk, from.boot), Arc::new(room));
        for (shard, messages) in parts {
            let part = FromReplicas { from, messages, _room: room.clone() };
            // The shard is gone only when the node has ended.
            let _ = self.shards[usize::from(shard.0)].replicas.send(part);
        }
    }
}
