//! How gossip comes up, and what the rest of the node follows of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use sprawl_core::cluster::gossip::{Description, Gossip, GossipSeed, Members, Thresholds};
use sprawl_core::cluster::metadata::{Registration, View};
use sprawl_core::cluster::verdicts::Verdicts;
use sprawl_core::ids::{ClusterId, DiskId};
use tokio::sync::oneshot;

use super::{Options, StartError};
use crate::clock::Clock;
use crate::driver::{GossipLoop, gossip};
use crate::handle::Ended;
use crate::load::Gauges;
use crate::membership::Membership;
use crate::peer::{Inbound, Lane, Peers, Sockets, VERSIONS};
use crate::signal::{Follower, Signal};
use crate::spawn::spawn;
use crate::trace::Trace;

/// A running gossip, for the rest of the node.
pub(super) struct Gossiping {
    pub(super) membership: Follower<Arc<Membership>>,
    pub(super) verdicts: Follower<Arc<Verdicts>>,
    /// Control sets what the metadata have retired.
    pub(super) retired: Signal<Arc<BTreeSet<DiskId>>>,
    /// Control sets that this node leaves for good.
    pub(super) leaves: Signal<bool>,
    /// Control sets that this run is registered.
    pub(super) registered: Signal<bool>,
}

/// What the gossip machine is made from; `others` are the addresses that an earlier run has left.
pub(super) fn seed(
    said: &Registration,
    cluster: Option<ClusterId>,
    mut others: Vec<SocketAddr>,
    view: &View,
    options: &Options,
) -> Result<GossipSeed, StartError> {
    let about = Description {
        name: said.name.clone(),
        address: said.address,
        http: said.http,
        zone: said.zone.clone(),
        capacity: said.capacity.into(),
        version: VERSIONS.1,
    };
    if !about.is_plausible() {
        return Err(StartError::Texts);
    }
    others.extend(&options.cluster.seeds);
    others.extend(view.nodes.values().map(|node| node.address));
    others.retain(|address| *address != said.address);
    let words = options.entropy.as_chunks::<8>().0;
    let dice =
        words.iter().fold(0, |dice: u64, word| dice.rotate_left(7) ^ u64::from_be_bytes(*word));
    Ok(GossipSeed {
        disk: said.disk,
        boot: said.boot,
        about,
        cluster,
        key: options.cluster.key.as_ref().map(|key| key.secret()),
        thresholds: Thresholds::default(),
        contacts: others,
        dice,
    })
}

/// Sets gossip going. What is given beside it comes to an end when gossip has said its last word.
///
/// A node that is `known` from an earlier run says nothing before this one is registered: in gossip
/// the greater boot is believed, and it may be a copy's.
pub(super) fn begin<C: Clock, T: Trace<Gossip>, S: Sockets>(
    seed: GossipSeed,
    (clock, trace, network): (C, T, Peers<S>),
    inbound: &mut Inbound,
    load: Gauges,
    stopped: Follower<Option<Ended>>,
    known: bool,
) -> std::io::Result<(Gossiping, oneshot::Receiver<()>)> {
    let nobody = Members { own: seed.disk, cluster: seed.cluster, all: Vec::new() };
    let membership = Signal::new(Arc::new(Membership::nobody(nobody)));
    let (verdicts, retired) = (Signal::new(Arc::default()), Signal::new(Arc::default()));
    let (leaves, registered) = (Signal::new(false), Signal::new(false));
    let (bye, farewell) = oneshot::channel();
    let gossiping = Gossiping {
        membership: membership.follow(),
        verdicts: verdicts.follow(),
        retired: retired.clone(),
        leaves: leaves.clone(),
        registered: registered.clone(),
    };
    let mut inbox = gossip::Inbox {
        datagrams: inbound.datagrams(),
        asked: inbound.lane(Lane::Gossip),
        me: network.identity(),
        retired: retired.follow(),
        leaves: leaves.follow(),
        load,
        stopped,
    };
    let seeds = seed.contacts.clone();
    let shown = gossip::Shown { membership, verdicts };
    let hands = (clock, trace, network);
    let mut may_speak = registered.follow();
    spawn("sprawl-gossip".to_owned(), async move {
        if known {
            inbox.keep_silent(&mut may_speak).await;
        }
        let gossip = Gossip::new(seed, hands.0.now());
        GossipLoop::new(gossip, inbox, hands, seeds, shown).run().await;
        // Whoever waits for it hears that it is dropped.
        drop(bye);
    })?;
    Ok((gossiping, farewell))
}
