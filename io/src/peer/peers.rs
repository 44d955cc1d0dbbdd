//! The network of a node: what it is started with, and the handle that others use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::ids::{Boot, ClusterId, DiskId};
use tokio::time::timeout;

use super::hub::{Hub, Openings};
use super::inbox::Inbound;
use super::link::{self, Asked, Link};
use super::outbox::NotTaken;
use super::{
    CallError, ClusterKey, Counters, Lane, Network, NotDelivered, Peer, PeerIdentity, Refusal,
    Runs, Sockets, Unknown, VERSIONS, visitor,
};
use crate::signal::Follower;

/// How often a message looks for its link: one may be retired just when it is found.
const LOOKS_MAX: usize = 3;

/// How long the network waits for what.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How long connecting and shaking hands may take, together.
    pub connect_max: Duration,
    /// After how long without a frame a sign of life is sent.
    pub alive_every: Duration,
    /// After how long without a byte a connection is cut.
    pub silence_max: Duration,
    /// After how long without a message a connection is closed: within once and twice this.
    pub idle_max: Duration,
    /// How long to wait after the first failure to connect; it doubles with each further one.
    pub retry_delay_min: Duration,
    /// How long to wait at most.
    pub retry_delay_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(2),
            alive_every: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            idle_max: Duration::from_secs(120),
            retry_delay_min: Duration::from_millis(50),
            retry_delay_max: Duration::from_secs(1),
        }
    }
}

/// What a network is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's data directory.
    pub disk: DiskId,
    /// This run of the node.
    pub boot: Boot,
    /// A random number of the run, by which a copied directory under the same boot is told apart.
    pub run: u64,
    /// What people call it.
    pub name: String,
    /// Where others reach it.
    pub address: SocketAddr,
    /// The cluster that it belongs to, as far as it knows.
    pub cluster: Option<ClusterId>,
    /// The secret of the cluster; without one anybody who reaches the port may say anything.
    pub key: Option<ClusterKey>,
    /// Where nonces and jitter come from.
    pub entropy: [u8; 32],
    /// How long it waits for what.
    pub pace: Pace,
    /// The oldest and the newest version of the protocol that it speaks.
    pub versions: (u16, u16),
}

impl Options {
    /// The options of a node that belongs to no cluster and has no key.
    #[must_use]
    pub fn new(node: (DiskId, Boot), address: SocketAddr, entropy: [u8; 32]) -> Self {
        Self {
            disk: node.0,
            boot: node.1,
            run: entropy.iter().fold(0, |run: u64, byte| run.rotate_left(5) ^ u64::from(*byte)),
            name: String::new(),
            address,
            cluster: None,
            key: None,
            entropy,
            pace: Pace::default(),
            versions: VERSIONS,
        }
    }
}

/// The network over some sockets. A clone is the same network.
pub struct Peers<S> {
    hub: Arc<Hub<S>>,
}

impl<S> Clone for Peers<S> {
    fn clone(&self) -> Self {
        Self { hub: self.hub.clone() }
    }
}

impl<S: Sockets> Peers<S> {
    /// Starts the network, on the runtime that this is called from, and gives the receiving ends.
    /// It lives until [`close`](Self::close).
    ///
    /// # Panics
    ///
    /// When the pace contradicts itself: signs of life must come more often than silence is borne.
    #[must_use]
    pub fn start(sockets: S, options: Options) -> (Self, Inbound) {
        let pace = &options.pace;
        assert!(pace.alive_every * 2 <= pace.silence_max, "alive less often than {pace:?} bears");
        let (hub, inbound, openings) = Hub::new(sockets, options);
        let hub = Arc::new(hub);
        tokio::spawn(visitor::receive(hub.clone()));
        tokio::spawn(hub.clone().receive_datagrams());
        tokio::spawn(serve_links(hub.clone(), openings));
        (Self { hub }, inbound)
    }

    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.hub.sockets.local()
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.hub.counters
    }

    /// Who this node is to others, and its cluster once it has one.
    pub(crate) fn identity(&self) -> Follower<PeerIdentity> {
        self.hub.me.follow()
    }

    /// Why others say for good that this data directory is not the node, once one has said so.
    pub(crate) fn fenced(&self) -> Follower<Option<Refusal>> {
        self.hub.fenced.follow()
    }

    /// Ends it: nothing is sent or received any more; requests under way are unknown.
    pub fn close(&self) {
        self.hub.stop.set(true);
        self.hub.end_links();
    }

    /// Finds the link to a peer and hands it something.
    fn hand<T>(
        &self,
        to: SocketAddr,
        lane: Lane,
        message: &Bytes,
        hand: impl Fn(&Link) -> Result<T, NotTaken>,
    ) -> Result<(T, Arc<Link>), NotDelivered> {
        let (bytes, bytes_max) = (message.len(), lane.body_bytes_max());
        if bytes > bytes_max {
            return Err(NotDelivered::TooLong { bytes, bytes_max });
        }
        for _ in 0..LOOKS_MAX {
            let link = self.hub.link(to, lane.class())?;
            match hand(&link) {
                Ok(handed) => return Ok((handed, link)),
                Err(NotTaken::Full) => return Err(NotDelivered::Full),
                Err(NotTaken::Closed) => {}
            }
        }
        Err(NotDelivered::Closed)
    }

    async fn ask(
        &self,
        to: Peer,
        lane: Lane,
        request: Bytes,
        wait: Duration,
    ) -> Result<Bytes, CallError> {
        let ask = |link: &Link| link.ask(lane, request.clone(), to.disk);
        let ((id, told), link): (Asked, _) = self.hand(to.address, lane, &request, ask)?;
        drop(request);
        let mut asking = Asking { link, id, over: false };
        match timeout(wait, told).await {
            Ok(outcome) => {
                asking.over = true;
                // The link holds the other end for as long as it lives.
                outcome.unwrap_or(Err(Unknown::Broken.into()))
            }
            Err(_) => Err(asking.give_up()),
        }
    }
}

/// A request that somebody waits for; whoever stops waiting takes it back if it was not sent.
struct Asking {
    link: Arc<Link>,
    id: u64,
    over: bool,
}

impl Asking {
    fn give_up(&mut self) -> CallError {
        self.over = true;
        let known = self.link.calls.give_up(self.id);
        if matches!(known, CallError::NotDelivered(_)) {
            self.link.outbox.withdraw(self.id);
        }
        known
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.over {
            self.give_up();
        }
    }
}

impl<S: Sockets> Network for Peers<S> {
    async fn call(
        &self,
        to: impl Into<Peer> + Send,
        lane: Lane,
        request: Bytes,
        wait: Duration,
    ) -> Result<Bytes, CallError> {
        let to = self.hub.whereabouts(to.into());
        self.ask(to, lane, request, wait).await
    }

    fn tell(&self, to: impl Into<Peer> + Send, lane: Lane, message: Bytes) {
        let to = self.hub.whereabouts(to.into());
        let tell = |link: &Link| link.tell(lane, message.clone(), to.disk);
        match self.hand(to.address, lane, &message, tell) {
            Ok(_) => {}
            Err(NotDelivered::Closed) => self.hub.counters.dropped_unreachable.more(),
            Err(_) => self.hub.counters.dropped_full.more(),
        }
    }

    fn datagram(&self, to: SocketAddr, message: Bytes) {
        self.hub.send_datagram(to, &message);
    }

    fn belong(&self, cluster: ClusterId) {
        self.hub.belong(cluster);
    }

    fn know(&self, runs: Runs) {
        self.hub.know(runs);
    }
}

/// Sets a task going for each new link, until the network ends.
async fn serve_links<S: Sockets>(hub: Arc<Hub<S>>, mut openings: Openings) {
    let mut stopped = hub.stop.follow();
    loop {
        let opened = tokio::select! {
            biased;
            _ = stopped.until(|stop| *stop) => return,
            opened = openings.recv() => opened,
        };
        match opened {
            Some(link) => {
                tokio::spawn(link::serve(hub.clone(), link));
            }
            None => return,
        }
    }
}
