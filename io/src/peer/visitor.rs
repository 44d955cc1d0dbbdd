//! Connections that others make to this node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sprawl_core::ids::DiskId;
use tokio::time::timeout;

use super::answer::Answerer;
use super::frame::{Frame, Kind};
use super::handshake::{Caller, turn_away};
use super::hello::Failed;
use super::hub::Hub;
use super::outbox::Outbox;
use super::pump::{self, Ended, FrameReader};
use super::sockets::Halves;
use super::{Class, Lane, PeerIdentity, Runs, Sockets, lock};
use crate::signal::{Follower, Signal};

/// How long to wait when the system has no room for another connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// One connection of a caller: which of its links it is.
type Key = (DiskId, u64, SocketAddr, Class);

struct Place {
    peer: PeerIdentity,
    /// Counts the connections, in the order in which they came.
    serial: u64,
    leave: Signal<bool>,
}

#[derive(Default)]
struct Table {
    places: BTreeMap<Key, Place>,
    last: u64,
}

/// Who is connected: one connection per link of a caller. Bounded by how many connections a node
/// takes.
#[derive(Default)]
pub(super) struct Visitors(Mutex<Table>);

fn key(caller: &Caller) -> Key {
    (caller.peer.disk, caller.peer.run, caller.dialed, caller.class)
}

impl Visitors {
    /// A caller takes its place; whoever had it is told to leave.
    fn enter(&self, caller: &Caller) -> (u64, Follower<bool>) {
        let mut table = lock(&self.0);
        table.last += 1;
        let serial = table.last;
        let leave = Signal::new(false);
        let told = leave.follow();
        let place = Place { peer: caller.peer.clone(), serial, leave };
        if let Some(before) = table.places.insert(key(caller), place) {
            before.leave.set(true);
        }
        (serial, told)
    }

    fn leave(&self, caller: &Caller, serial: u64) {
        let mut table = lock(&self.0);
        if table.places.get(&key(caller)).is_some_and(|place| place.serial == serial) {
            table.places.remove(&key(caller));
        }
    }

    /// Tells callers to leave.
    pub(super) fn dismiss(&self, whom: impl Fn(&PeerIdentity) -> bool) {
        let table = lock(&self.0);
        for place in table.places.values().filter(|place| whom(&place.peer)) {
            place.leave.set(true);
        }
    }

    /// Whether another run of the caller's directory is connected that has registered, or was here
    /// before it.
    fn is_second(&self, peer: &PeerIdentity, runs: &Runs) -> bool {
        let table = lock(&self.0);
        let from = (peer.disk, 0, SocketAddr::from(([0; 4], 0)), Class::Raft);
        let same = table.places.range(from..).take_while(|(key, _)| key.0 == peer.disk);
        let (own, others): (Vec<&Place>, Vec<&Place>) =
            same.map(|(_, place)| place).partition(|place| place.peer.run == peer.run);
        let first = own.iter().map(|place| place.serial).min();
        let is_before = |other: &Place| first.is_some_and(|first| other.serial < first);
        others.iter().any(|other| runs.is_registered(&other.peer) || is_before(other))
    }
}

/// What a caller may say, as far as that is settled.
enum Standing {
    /// Its run has registered: everything.
    Registered,
    /// It has not, or not that this node knew.
    Unsettled,
}

impl Standing {
    /// Whether a run may use a lane. Of two runs of one directory one alone has votes and entries
    /// of the group: the registered one, or else the one that came first. The other may ask to be
    /// registered, and hear why not; so may one whose directory was retired.
    fn admits<S: Sockets>(&mut self, lane: Lane, peer: &PeerIdentity, hub: &Hub<S>) -> bool {
        match (&self, lane) {
            (Self::Registered, _) | (Self::Unsettled, Lane::Join | Lane::Control) => true,
            (
                Self::Unsettled,
                Lane::Raft | Lane::Snapshot | Lane::Gossip | Lane::Data | Lane::Replica,
            ) => {
                let runs = hub.runs();
                if runs.is_registered(peer) {
                    *self = Self::Registered;
                    return true;
                }
                !runs.retired.contains(&peer.disk) && !hub.visitors.is_second(peer, &runs)
            }
        }
    }
}

/// Takes connections until the network ends.
pub(super) async fn receive<S: Sockets>(hub: Arc<Hub<S>>) {
    let mut stopped = hub.stop.follow();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.until(|stop| *stop) => return,
            accepted = hub.sockets.accept() => accepted,
        };
        match accepted {
            Ok((from, halves)) => take_in(&hub, from, halves).await,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn take_in<S: Sockets>(hub: &Arc<Hub<S>>, from: SocketAddr, halves: Halves<S>) {
    let room = hub.room.clone().try_acquire_owned();
    let greeting = hub.greetings.clone().try_acquire_owned();
    let (Ok(room), Ok(greeting)) = (room, greeting) else {
        hub.counters.turned_away.more();
        if hub.complain(from.ip(), "full") {
            tracing::warn!(%from, "too many connections: a caller is turned away");
        }
        let mut writer = halves.1;
        // A few bytes fit into what the system buffers; whoever does not get them learns from the
        // end of the connection.
        let _ = timeout(ACCEPT_RETRY, turn_away(&mut writer)).await;
        return;
    };
    let hub = hub.clone();
    tokio::spawn(async move {
        let mut stopped = hub.stop.follow();
        tokio::select! {
            biased;
            _ = stopped.until(|stop| *stop) => {}
            () = attend(&hub, from, halves, greeting) => {}
        }
        drop(room);
    });
}

async fn attend<S: Sockets>(
    hub: &Hub<S>,
    from: SocketAddr,
    mut halves: Halves<S>,
    greeting: tokio::sync::OwnedSemaphorePermit,
) {
    let side = hub.side();
    let greeted = side.greet((&mut halves.0, &mut halves.1));
    let caller = match timeout(hub.pace.connect_max, greeted).await {
        Ok(Ok(caller)) => caller,
        Ok(Err(failed)) => return complain(hub, from, &failed),
        Err(_) => return complain(hub, from, &Failed::Nonsense("no handshake in time")),
    };
    drop(greeting);
    hub.content(from.ip());
    let (serial, mut told) = hub.visitors.enter(&caller);
    if hub.runs().judge(&caller.peer).is_err() {
        // It was overtaken just now, when it had no place yet from which to be told to leave.
        return hub.visitors.leave(&caller, serial);
    }
    let held = hub.counters.inbound.held();
    let outbox = Arc::new(Outbox::new(caller.class.queue_bytes_max()));
    let frames = FrameReader::new(halves.0, &hub.pace, &hub.counters);
    let wanted = |_: &_| true;
    let ended = tokio::select! {
        biased;
        _ = told.until(|leave| *leave) => Ended::Replaced,
        ended = listen(hub, &caller, frames, &outbox) => ended,
        ended = pump::write(&outbox, &mut halves.1, &hub.pace, &hub.counters, wanted) => ended,
    };
    drop(held);
    hub.visitors.leave(&caller, serial);
    hub.counters.answers_dropped.add(outbox.close().len());
    ended.count(&hub.counters);
    let class = caller.class;
    tracing::debug!(%from, node = %caller.peer.disk, ?class, ?ended, "a caller left");
}

/// One line for each new reason why a caller is sent away.
fn complain<S: Sockets>(hub: &Hub<S>, from: SocketAddr, failed: &Failed) {
    let why = match failed {
        Failed::Refused(refusal) => {
            hub.fence(*refusal);
            hub.counters.refused.more();
            refusal.to_string()
        }
        Failed::SentAway(refusal) => {
            hub.counters.refused.more();
            refusal.to_string()
        }
        Failed::Nonsense(what) => {
            hub.counters.nonsense.more();
            (*what).to_owned()
        }
        Failed::Io(error) => {
            hub.counters.broken.more();
            error.to_string()
        }
    };
    if hub.complain(from.ip(), &why) {
        tracing::warn!(%from, why, "a caller is sent away");
    }
}

/// Hands on what a caller sends.
async fn listen<S, R>(
    hub: &Hub<S>,
    caller: &Caller,
    mut frames: FrameReader<'_, R>,
    outbox: &Arc<Outbox>,
) -> Ended
where
    S: Sockets,
    R: tokio::io::AsyncRead + Unpin,
{
    let from = Arc::new(caller.peer.clone());
    let mut standing = Standing::Unsettled;
    loop {
        let Frame { kind, lane, id, body } = match frames.next().await {
            Ok(frame) => frame,
            Err(ended) => return ended,
        };
        let answer = match kind {
            Kind::Ask => Some(Answerer::new(outbox.clone(), hub.counters.clone(), (lane, id))),
            Kind::Tell => None,
            Kind::Answer | Kind::Unanswered | Kind::Unheard | Kind::Outsider | Kind::Alive => {
                return Ended::Nonsense("an answer where requests come".to_owned());
            }
        };
        if lane.class() != caller.class {
            return Ended::Nonsense(format!("lane {lane:?} on a connection for another"));
        }
        let (mine, theirs) = (hub.cluster(), caller.peer.cluster);
        if mine.is_some() && theirs.is_some() && mine != theirs {
            return Ended::OtherCluster;
        }
        let is_stranger = lane != Lane::Join && (mine.is_none() || theirs.is_none());
        let declined = if is_stranger || !standing.admits(lane, &caller.peer, hub) {
            Some(Kind::Outsider)
        } else {
            (!hub.inboxes.is_heard(lane)).then_some(Kind::Unheard)
        };
        match declined {
            None => hub.inboxes.deliver(lane, from.clone(), body, answer).await,
            Some(why) => {
                hub.counters.declined.more();
                if let Some(answer) = answer {
                    answer.decline(why);
                }
            }
        }
    }
}
