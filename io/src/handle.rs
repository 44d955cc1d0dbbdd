//! How the face of a node asks its machines, and hears when the node has ended.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sprawl_core::broker::replica::Submission;
use sprawl_core::broker::routing::Routed;
use sprawl_core::cluster::consensus::RaftStatus;
use sprawl_core::cluster::control::FAREWELL_WAIT;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{PartitionId, ShardId};
use sprawl_core::machine::{
    ControlRequest, ControlResponse, Refused, Request, Response, ShardStatus,
};
use sprawl_core::node::{entry_shard, shard_of};
use tokio::sync::{mpsc, oneshot};

use crate::data_dir::Identity;
use crate::membership::Membership;
use crate::peer::Counters;
use crate::signal::Follower;

/// How many requests wait in front of one machine at most; the next one is refused.
pub const INBOX_REQUESTS_MAX: usize = 16_384;

/// How often a starting node looks whether it serves what it leads.
const SETTLED_LOOK: Duration = Duration::from_millis(2);

/// A request with the place where its answer is awaited.
#[derive(Debug)]
pub(crate) struct Asked<Q, A> {
    pub(crate) request: Q,
    pub(crate) answer: oneshot::Sender<A>,
}

/// Why a node has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and everything is flushed.
    Shutdown,
    /// A write or sync failed; nothing was answered after it. Start the node again: it reads its
    /// log back.
    DiskFailed(String),
    /// The node may not, or cannot, go on; what it acknowledged is on its disk.
    Halted(String),
}

/// A running node, for whoever serves its clients. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub(crate) identity: Arc<Identity>,
    pub(crate) view: Arc<RwLock<Arc<View>>>,
    pub(crate) control: mpsc::Sender<Asked<ControlRequest, ControlResponse>>,
    pub(crate) shards: Arc<[mpsc::Sender<Asked<Request, Response>>]>,
    pub(crate) group: Follower<RaftStatus>,
    pub(crate) waits: Follower<Option<String>>,
    pub(crate) membership: Follower<Arc<Membership>>,
    pub(crate) traffic: Arc<Counters>,
    pub(crate) stop: mpsc::Sender<()>,
    pub(crate) ended: Follower<Option<Ended>>,
}

impl NodeHandle {
    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The newest view of the metadata that the node has.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// How this node sees the group that agrees on the metadata.
    #[must_use]
    pub fn group(&self) -> RaftStatus {
        self.group.get()
    }

    /// Why the node belongs to no cluster yet; `None` when it does.
    #[must_use]
    pub fn waits(&self) -> Option<String> {
        self.waits.get()
    }

    /// Who lives, as far as this node knows.
    #[must_use]
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.get()
    }

    /// What the network between nodes has counted.
    #[must_use]
    pub fn traffic(&self) -> &Counters {
        &self.traffic
    }

    /// Returns when the node is registered and serves what it leads, when it has ended, or after
    /// `wait`; says whether it serves.
    pub async fn settled(&self, wait: Duration) -> bool {
        let settled = async {
            while !self.serves_what_it_leads().await {
                if self.ended.get().is_some() {
                    return false;
                }
                tokio::time::sleep(SETTLED_LOOK).await;
            }
            true
        };
        tokio::time::timeout(wait, settled).await.unwrap_or(false)
    }

    async fn serves_what_it_leads(&self) -> bool {
        let (view, me) = (self.view(), &self.identity);
        if !view.has_registered(me.disk, me.boot) {
            return false;
        }
        let Some(shards) = self.describe().await else { return false };
        let partitions = shards.iter().flat_map(|shard| &shard.partitions);
        let serving: BTreeSet<PartitionId> =
            partitions.filter(|held| held.serving).map(|held| held.partition).collect();
        let led = view.partitions.values().filter(|partition| partition.leader == me.disk);
        led.map(|partition| partition.id).all(|id| serving.contains(&id))
    }

    /// Asks the data plane. Every request gets an answer: a full inbox refuses it, and a node
    /// that ends meanwhile leaves it unknown.
    pub async fn request(&self, request: Request) -> Response {
        let shards = u16::try_from(self.shards.len()).expect("shards are counted in u16");
        let door = entry_shard(&self.view(), shards, &request);
        self.request_at(door, request).await
    }

    async fn request_at(&self, door: ShardId, request: Request) -> Response {
        self.hand_in(door, request).await
    }

    /// Hands a request in, at once; what is given back waits for the answer.
    fn hand_in(&self, door: ShardId, request: Request) -> impl Future<Output = Response> + use<> {
        let (answer, answered) = oneshot::channel();
        let handed = self.shards[usize::from(door.0)].try_send(Asked { request, answer });
        async move {
            match handed {
                Ok(()) => answered.await.unwrap_or(Response::Unknown),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    Response::Refused(Refused::Overloaded("too many requests are waiting"))
                }
                Err(mpsc::error::TrySendError::Closed(_)) => Response::Refused(Refused::NotReady),
            }
        }
    }

    /// Stores a batch, each part by the shard that it belongs to; gives what became of each
    /// message, in their order.
    pub async fn publish_batch(&self, items: Vec<Submission>) -> Vec<Response> {
        let shards = u16::try_from(self.shards.len()).expect("shards are counted in u16");
        let (view, me) = (self.view(), self.identity.disk);
        let is_alone = view.nodes.len() <= 1;
        let mut outcomes = vec![Response::Unknown; items.len()];
        let Routed { version, partitions } = Routed::by(&view, &items);
        let nothing = Routed { version, partitions: Vec::new() };
        let mut parts = vec![(Vec::new(), Vec::new(), nothing); shards.into()];
        for (at, (item, partition)) in items.into_iter().zip(partitions).enumerate() {
            // What other nodes lead goes to one door, which asks each of them once.
            let here = partition.filter(|id| {
                is_alone || view.partitions.get(id).is_some_and(|held| held.leader == me)
            });
            let door = here.map_or(ShardId(0), |id| shard_of(id, shards));
            let (places, part, routed) = &mut parts[usize::from(door.0)];
            places.push(at);
            part.push(item);
            routed.partitions.push(partition);
        }
        let asked = (0..).zip(parts).filter(|(_, (places, ..))| !places.is_empty());
        // All are asked before the first answer is awaited.
        let asked = asked.map(|(door, (places, part, routed))| {
            (places, self.hand_in(ShardId(door), Request::PublishBatch(part, routed)))
        });
        for (places, answered) in asked.collect::<Vec<_>>() {
            match answered.await {
                Response::Batch(all) => {
                    for (at, outcome) in places.into_iter().zip(all) {
                        outcomes[at] = outcome;
                    }
                }
                other @ (Response::Published { .. }
                | Response::Fetched { .. }
                | Response::Trimmed { .. }
                | Response::Pulled(_)
                | Response::Settled { .. }
                | Response::Available(_)
                | Response::Described(_)
                | Response::Refused(_)
                | Response::Unknown) => {
                    places.into_iter().for_each(|at| outcomes[at] = other.clone());
                }
            }
        }
        outcomes
    }

    /// Asks the control plane.
    pub async fn control(&self, request: ControlRequest) -> ControlResponse {
        let (answer, answered) = oneshot::channel();
        match self.control.try_send(Asked { request, answer }) {
            Ok(()) => answered.await.unwrap_or(ControlResponse::Unknown),
            Err(mpsc::error::TrySendError::Full(_)) => {
                ControlResponse::Refused(Refused::Overloaded("too many requests are waiting"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                ControlResponse::Refused(Refused::NotReady)
            }
        }
    }

    /// What each shard holds and has counted; `None` when one of them does not answer because it
    /// has ended or has too much before it.
    pub async fn describe(&self) -> Option<Vec<ShardStatus>> {
        let mut all = Vec::with_capacity(self.shards.len());
        for shard in 0..self.shards.len() as u16 {
            let response = self.request_at(ShardId(shard), Request::Describe).await;
            let Response::Described(status) = response else {
                return None;
            };
            all.push(*status);
        }
        Some(all)
    }

    /// Ends the node: others take over what it leads, as far as they can within a moment; what
    /// waits for the disk is synced and answered, the rest is left unknown. Returns when it has
    /// ended.
    pub async fn shutdown(&self) -> Ended {
        // Whatever comes of it, the node ends: what was not handed over is noticed by its silence.
        let farewell = self.control(ControlRequest::Farewell);
        let _ = tokio::time::timeout(FAREWELL_WAIT * 2, farewell).await;
        // An error means that the node has ended already; `ended` then says how.
        let _ = self.stop.send(()).await;
        self.ended().await
    }

    /// Returns when the node has ended, with the reason.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let reason = ended.until(Option::is_some).await;
        reason.expect("it was waited for until there is one")
    }
}
