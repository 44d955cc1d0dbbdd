//! What all connections of a node's network have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sprawl_core::ids::ClusterId;
use tokio::sync::{Semaphore, mpsc};

use super::answer::Datagram;
use super::counters::Counters;
use super::dice::Dice;
use super::handshake::Side;
use super::hello::NAME_BYTES_MAX;
use super::inbox::{Inbound, Inboxes};
use super::link::Link;
use super::visitor::Visitors;
use super::{
    Class, ClusterKey, DATAGRAM_BYTES_MAX, NotDelivered, Options, Pace, Peer, PeerIdentity,
    Refusal, Runs, Sockets, lock,
};
use crate::signal::Signal;

/// How many connections a node makes at most.
const LINKS_MAX: usize = 4_096;
/// How many connections it takes from others at most.
const INBOUND_MAX: usize = 4_096;
/// How many of them may not have proved themselves yet.
const GREETINGS_MAX: usize = 256;
/// How many complaints about callers are remembered, so that each is logged once.
const COMPLAINTS_MAX: usize = 256;

/// Links that are to be served: bounded by [`LINKS_MAX`].
pub(super) type Openings = mpsc::UnboundedReceiver<Arc<Link>>;

/// The network of one node.
pub(super) struct Hub<S> {
    pub(super) sockets: S,
    pub(super) pace: Pace,
    pub(super) counters: Arc<Counters>,
    pub(super) dice: Dice,
    pub(super) inboxes: Inboxes,
    pub(super) visitors: Visitors,
    /// Set when the network ends.
    pub(super) stop: Signal<bool>,
    /// Who this node is; connections that it has made are made anew when that changes.
    pub(super) me: Signal<PeerIdentity>,
    /// How many more connections are taken.
    pub(super) room: Arc<Semaphore>,
    /// How many more callers are listened to who have not proved themselves.
    pub(super) greetings: Arc<Semaphore>,
    /// As in `me`; looked at for each message that arrives.
    cluster: Mutex<Option<ClusterId>>,
    key: Option<ClusterKey>,
    versions: (u16, u16),
    /// What the metadata say of runs.
    runs: Mutex<Arc<Runs>>,
    /// Set when another node has said that this run is not the registered one.
    pub(super) fenced: Signal<Option<Refusal>>,
    links: Mutex<BTreeMap<(SocketAddr, Class), Arc<Link>>>,
    openings: mpsc::UnboundedSender<Arc<Link>>,
    complaints: Mutex<BTreeSet<(IpAddr, String)>>,
}

impl<S: Sockets> Hub<S> {
    pub(super) fn new(sockets: S, options: Options) -> (Self, Inbound, Openings) {
        let Options { disk, boot, run, mut name, address, cluster, .. } = options;
        let Options { key, entropy, pace, versions, .. } = options;
        let dice = Dice::new(entropy);
        while name.len() > NAME_BYTES_MAX {
            name.pop();
        }
        let me = PeerIdentity { disk, boot, run, address, name, cluster };
        let (inboxes, inbound) = Inboxes::new();
        let (openings, opened) = mpsc::unbounded_channel();
        let hub = Self {
            sockets,
            pace,
            counters: Arc::default(),
            dice,
            inboxes,
            visitors: Visitors::default(),
            stop: Signal::new(false),
            cluster: Mutex::new(me.cluster),
            me: Signal::new(me),
            room: Arc::new(Semaphore::new(INBOUND_MAX)),
            greetings: Arc::new(Semaphore::new(GREETINGS_MAX)),
            key,
            versions,
            runs: Mutex::default(),
            fenced: Signal::new(None),
            links: Mutex::default(),
            openings,
            complaints: Mutex::default(),
        };
        (hub, inbound, opened)
    }

    /// This node's side of a handshake.
    pub(super) fn side(&self) -> Side<'_> {
        let (key, versions) = (self.key.as_ref(), self.versions);
        Side { me: self.me.follow().get(), key, versions, runs: self.runs(), dice: &self.dice }
    }

    /// The runs that the metadata have registered.
    pub(super) fn runs(&self) -> Arc<Runs> {
        lock(&self.runs).clone()
    }

    /// Names the runs that the metadata have registered from now on.
    pub(super) fn know(&self, runs: Runs) {
        let runs = Arc::new(runs);
        *lock(&self.runs) = runs.clone();
        // What a retired run may still ask, it asks over a new connection.
        let is_out = |peer: &PeerIdentity| runs.retired.contains(&peer.disk);
        self.visitors.dismiss(|peer| runs.judge(peer).is_err() || is_out(peer));
    }

    /// Where a peer is reached.
    pub(super) fn whereabouts(&self, peer: Peer) -> Peer {
        lock(&self.runs).whereabouts(peer)
    }

    /// Another node has refused this one.
    pub(super) fn fence(&self, refusal: Refusal) {
        if refusal.is_final() {
            self.fenced.set_where(Option::is_none, Some(refusal));
        }
    }

    pub(super) fn cluster(&self) -> Option<ClusterId> {
        *lock(&self.cluster)
    }

    /// Names the cluster that this node belongs to from now on.
    pub(super) fn belong(&self, cluster: ClusterId) {
        let mut mine = lock(&self.cluster);
        *mine = Some(cluster);
        let me = self.me.follow().get();
        self.me.set(PeerIdentity { cluster: *mine, ..me });
    }

    /// The link to an address, made if there is none.
    pub(super) fn link(
        &self,
        address: SocketAddr,
        class: Class,
    ) -> Result<Arc<Link>, NotDelivered> {
        let mut links = lock(&self.links);
        if self.stop.follow().get() {
            return Err(NotDelivered::Closed);
        }
        if let Some(link) = links.get(&(address, class)) {
            return Ok(link.clone());
        }
        if links.len() >= LINKS_MAX {
            return Err(NotDelivered::Full);
        }
        let link = Arc::new(Link::new(address, class));
        links.insert((address, class), link.clone());
        // Nobody takes it when the network has just ended; then it refuses all.
        self.openings.send(link.clone()).map_err(|_| NotDelivered::Closed)?;
        Ok(link)
    }

    /// Forgets a link for which nothing waits; says whether that is so.
    pub(super) fn retire(&self, link: &Link) -> bool {
        let mut links = lock(&self.links);
        let retired = link.outbox.close_if_empty();
        if retired {
            links.remove(&(link.address, link.class));
        }
        retired
    }

    /// Ends all links; what waits is not delivered.
    pub(super) fn end_links(&self) {
        let links = std::mem::take(&mut *lock(&self.links));
        links.values().for_each(|link| link.end());
    }

    /// Whether a complaint about an address is new, and so worth a line.
    pub(super) fn complain(&self, about: IpAddr, what: &str) -> bool {
        let mut complaints = lock(&self.complaints);
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.clear();
        }
        complaints.insert((about, what.to_owned()))
    }

    /// An address has behaved: the next complaint about it is new.
    pub(super) fn content(&self, with: IpAddr) {
        lock(&self.complaints).retain(|(about, _)| *about != with);
    }

    pub(super) fn send_datagram(&self, to: SocketAddr, message: &[u8]) {
        let fits = message.len() <= DATAGRAM_BYTES_MAX;
        if fits && self.sockets.send_datagram(to, message).is_ok() {
            self.counters.datagrams_sent.more();
        } else {
            self.counters.datagrams_dropped.more();
        }
    }

    /// Hands on what datagrams arrive, until the network ends.
    pub(super) async fn receive_datagrams(self: Arc<Self>) {
        let mut stopped = self.stop.follow();
        // One byte more than the longest, so that one which is too long is known by it.
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        loop {
            let received = tokio::select! {
                biased;
                _ = stopped.until(|stop| *stop) => return,
                received = self.sockets.receive_datagram(&mut buffer) => received,
            };
            // The system reports here what became of an earlier one that was sent.
            let Ok((length, from)) = received else { continue };
            self.counters.datagrams_received.more();
            let body = Bytes::copy_from_slice(&buffer[..length]);
            if length > DATAGRAM_BYTES_MAX
                || !self.inboxes.deliver_datagram(Datagram { from, body })
            {
                self.counters.datagrams_dropped.more();
            }
        }
    }
}
