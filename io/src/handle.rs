//! How the face of a node asks its machines, and hears when the node has ended.

use std::sync::{Arc, RwLock};

use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::ShardId;
use sprawl_core::machine::{
    ControlRequest, ControlResponse, Refused, Request, Response, ShardStatus,
};
use sprawl_core::node::entry_shard;
use tokio::sync::{mpsc, oneshot};

use crate::data_dir::Identity;
use crate::signal::Follower;

/// How many requests wait in front of one machine at most; the next one is refused.
pub const INBOX_REQUESTS_MAX: usize = 16_384;

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
}

/// A running node, for whoever serves its clients. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub(crate) identity: Arc<Identity>,
    pub(crate) view: Arc<RwLock<Arc<View>>>,
    pub(crate) control: mpsc::Sender<Asked<ControlRequest, ControlResponse>>,
    pub(crate) shards: Arc<[mpsc::Sender<Asked<Request, Response>>]>,
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

    /// Asks the data plane. Every request gets an answer: a full inbox refuses it, and a node
    /// that ends meanwhile leaves it unknown.
    pub async fn request(&self, request: Request) -> Response {
        let shards = u16::try_from(self.shards.len()).expect("shards are counted in u16");
        let door = entry_shard(&self.view(), shards, &request);
        self.request_at(door, request).await
    }

    async fn request_at(&self, door: ShardId, request: Request) -> Response {
        let (answer, answered) = oneshot::channel();
        match self.shards[usize::from(door.0)].try_send(Asked { request, answer }) {
            Ok(()) => answered.await.unwrap_or(Response::Unknown),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Response::Refused(Refused::Overloaded("too many requests are waiting"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Response::Refused(Refused::NotReady),
        }
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
            all.push(status);
        }
        Some(all)
    }

    /// Ends the node: what waits for the disk is synced and answered, the rest is left unknown.
    /// Returns when it has ended.
    pub async fn shutdown(&self) -> Ended {
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
