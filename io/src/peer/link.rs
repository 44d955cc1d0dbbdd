//! One connection that this node makes, for as long as there is something to send: dialed, served,
//! and dialed again when it broke.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sprawl_core::ids::DiskId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::calls::{Calls, Outcome};
use super::frame::{Frame, Kind};
use super::hello::Failed;
use super::hub::Hub;
use super::outbox::{Item, NotTaken, Outbox};
use super::pump::{self, Ended, FrameReader};
use super::sockets::Halves;
use super::{CallError, Class, Lane, NotDelivered, PeerIdentity, Sockets, Unknown};
use crate::alarm::Alarm;
use crate::signal::Follower;

/// A request on its way: its number, and where its outcome comes.
pub(super) type Asked = (u64, oneshot::Receiver<Outcome>);

/// The way to one address, for the lanes of one class.
pub(super) struct Link {
    pub(super) address: SocketAddr,
    pub(super) class: Class,
    pub(super) outbox: Outbox,
    pub(super) calls: Calls,
    /// Counts frames in both directions, but for signs of life.
    used: AtomicU64,
}

impl Link {
    pub(super) fn new(address: SocketAddr, class: Class) -> Self {
        let outbox = Outbox::new(class.queue_bytes_max());
        Self { address, class, outbox, calls: Calls::default(), used: AtomicU64::new(0) }
    }

    pub(super) fn ask(
        &self,
        lane: Lane,
        body: Bytes,
        only: Option<DiskId>,
    ) -> Result<Asked, NotTaken> {
        let (id, told) = self.calls.enter().ok_or(NotTaken::Full)?;
        let frame = Frame { kind: Kind::Ask, lane, id, body };
        if let Err(not_taken) = self.outbox.push(Item { frame, only }) {
            self.calls.give_up(id);
            return Err(not_taken);
        }
        Ok((id, told))
    }

    pub(super) fn tell(
        &self,
        lane: Lane,
        body: Bytes,
        only: Option<DiskId>,
    ) -> Result<(), NotTaken> {
        let frame = Frame { kind: Kind::Tell, lane, id: 0, body };
        self.outbox.push(Item { frame, only })
    }

    /// What waits is not delivered, and what was sent is unknown; nothing more is taken.
    pub(super) fn end(&self) {
        for item in self.outbox.close() {
            self.calls.resolve(item.frame.id, Err(NotDelivered::Closed.into()));
        }
        self.calls.broken();
    }

    /// Whether a frame is to be written to this peer; a request is taken for sent from then on.
    fn wanted(&self, item: &Item, peer: &PeerIdentity, dropped: &super::Counter) -> bool {
        self.used.fetch_add(1, Ordering::Relaxed);
        let asks = item.frame.kind == Kind::Ask;
        if item.only.is_some_and(|disk| disk != peer.disk) {
            if asks {
                let other = NotDelivered::OtherNode(peer.disk);
                self.calls.resolve(item.frame.id, Err(other.into()));
            } else {
                dropped.more();
            }
            return false;
        }
        !asks || self.calls.sending(item.frame.id)
    }

    /// Passes on what became of requests.
    async fn hear<R>(&self, mut frames: FrameReader<'_, R>) -> Ended
    where
        R: tokio::io::AsyncRead + Unpin,
    {
        loop {
            let frame = match frames.next().await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            self.used.fetch_add(1, Ordering::Relaxed);
            let outcome: Outcome = match frame.kind {
                Kind::Answer => Ok(frame.body),
                Kind::Unanswered => Err(Unknown::Unanswered.into()),
                Kind::Unheard => Err(NotDelivered::NobodyListens.into()),
                Kind::Outsider => Err(NotDelivered::Outsider.into()),
                Kind::Tell | Kind::Ask | Kind::Alive => {
                    return Ended::Nonsense("a request where answers come".to_owned());
                }
            };
            // Late answers find nobody.
            self.calls.resolve(frame.id, outcome);
        }
    }

    /// Returns when nothing was sent or answered for so long, and nothing waits for an answer.
    async fn idle(&self, idle_max: std::time::Duration) {
        let mut alarm = Alarm::default();
        loop {
            let before = self.used.load(Ordering::Relaxed);
            alarm.set(Some(Instant::now() + idle_max));
            (&mut alarm).await;
            if self.used.load(Ordering::Relaxed) == before && self.calls.is_empty() {
                return;
            }
        }
    }
}

/// Serves a link until nothing is sent over it for long, or the network ends.
pub(super) async fn serve<S: Sockets>(hub: Arc<Hub<S>>, link: Arc<Link>) {
    let mut stopped = hub.stop.follow();
    tokio::select! {
        biased;
        _ = stopped.until(|stop| *stop) => {}
        () = connect_again(&hub, &link) => {}
    }
    link.end();
}

async fn connect_again<S: Sockets>(hub: &Hub<S>, link: &Link) {
    let mut backoff = Backoff::new(hub.pace.retry_delay_min, hub.pace.retry_delay_max);
    let mut said = Said::default();
    loop {
        if timeout(hub.pace.idle_max, link.outbox.filled()).await.is_err() {
            if hub.retire(link) {
                return;
            }
            continue;
        }
        let mut renewed = hub.me.follow();
        match meet(hub, link).await {
            Ok((halves, peer)) => {
                said.connected(link, &peer);
                let began = Instant::now();
                let ended = carry(hub, link, halves, &peer, &mut renewed).await;
                link.calls.broken();
                ended.count(&hub.counters);
                tracing::debug!(to = %link.address, class = ?link.class, ?ended, "disconnected");
                match ended {
                    Ended::Idle | Ended::Renewed => continue,
                    Ended::Closed
                    | Ended::Broken(_)
                    | Ended::Silent
                    | Ended::Nonsense(_)
                    | Ended::Replaced
                    | Ended::OtherCluster => {}
                }
                if began.elapsed() >= hub.pace.retry_delay_max {
                    backoff.reset();
                }
            }
            Err(why) => {
                said.failed(link, &why);
                fail(hub, link, &why);
            }
        }
        sleep(backoff.wait(&hub.dice)).await;
    }
}

/// Connects and shakes hands, within the time for both.
async fn meet<S: Sockets>(
    hub: &Hub<S>,
    link: &Link,
) -> Result<(Halves<S>, PeerIdentity), NotDelivered> {
    let meeting = async {
        let (mut reader, mut writer) = hub.sockets.connect(link.address).await?;
        let halves = (&mut reader, &mut writer);
        let peer = hub.side().dial(halves, link.class, link.address).await?;
        Ok(((reader, writer), peer))
    };
    let failed = match timeout(hub.pace.connect_max, meeting).await {
        Ok(Ok(met)) => return Ok(met),
        Ok(Err(failed)) => failed,
        Err(_) => {
            hub.counters.connect_failures.more();
            let why = format!("no answer within {:?}", hub.pace.connect_max);
            return Err(NotDelivered::Unreachable(why));
        }
    };
    Err(match failed {
        Failed::Io(error) => {
            hub.counters.connect_failures.more();
            NotDelivered::Unreachable(error.to_string())
        }
        Failed::Nonsense(what) => {
            hub.counters.nonsense.more();
            NotDelivered::Unreachable(what.to_owned())
        }
        Failed::Refused(refusal) => {
            hub.fence(refusal);
            hub.counters.refused.more();
            NotDelivered::Refused(refusal)
        }
        Failed::SentAway(refusal) => {
            hub.counters.refused.more();
            NotDelivered::Refused(refusal)
        }
    })
}

/// What waited for an attempt that failed is not delivered.
fn fail<S: Sockets>(hub: &Hub<S>, link: &Link, why: &NotDelivered) {
    for item in link.outbox.drain() {
        let outcome = Err(CallError::NotDelivered(why.clone()));
        if item.frame.kind == Kind::Ask {
            link.calls.resolve(item.frame.id, outcome);
        } else {
            hub.counters.dropped_unreachable.more();
        }
    }
}

async fn carry<S: Sockets>(
    hub: &Hub<S>,
    link: &Link,
    (reader, mut writer): Halves<S>,
    peer: &PeerIdentity,
    renewed: &mut Follower<PeerIdentity>,
) -> Ended {
    let _held = hub.counters.outbound.held();
    let frames = FrameReader::new(reader, &hub.pace, &hub.counters);
    let wanted = |item: &Item| link.wanted(item, peer, &hub.counters.dropped_unreachable);
    tokio::select! {
        biased;
        _ = renewed.changed() => Ended::Renewed,
        ended = link.hear(frames) => ended,
        ended = pump::write(&link.outbox, &mut writer, &hub.pace, &hub.counters, wanted) => ended,
        () = link.idle(hub.pace.idle_max) => Ended::Idle,
    }
}

/// What was logged last about a link: a line comes only when it changes.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    fn connected(&mut self, link: &Link, peer: &PeerIdentity) {
        if self.0.take().is_some() {
            let Link { address, class, .. } = link;
            tracing::info!(to = %address, ?class, node = %peer.disk, "a node is reached again");
        }
    }

    fn failed(&mut self, link: &Link, why: &NotDelivered) {
        let why = why.to_string();
        if self.0.as_ref() != Some(&why) {
            tracing::warn!(to = %link.address, class = ?link.class, why, "a node is not reached");
            self.0 = Some(why);
        }
    }
}
