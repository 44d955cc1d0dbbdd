//! The loop of the gossip machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::cluster::gossip::{
    EXCHANGE_WAIT, Gossip, MemberEvent, MemberEventKind, MemberState, Members,
};
use sprawl_core::cluster::verdicts::{Verdict, Verdicts};
use sprawl_core::ids::{DiskId, ExchangeId, RequestId};
use sprawl_core::machine::{GossipEffect, GossipInput, Machine};
use tokio::sync::mpsc;

use super::{Driven, INPUTS_MAX};
use crate::clock::Clock;
use crate::handle::Ended;
use crate::load::Gauges;
use crate::membership::{EVENTS_MAX, Membership};
use crate::peer::{Answerer, Datagram, Incoming, Lane, Network, PeerIdentity};
use crate::signal::{Follower, Signal};
use crate::trace::Trace;

/// How long a node that leaves for good tells the others so, at most.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Where gossip's inputs come from.
pub(crate) struct Inbox {
    pub(crate) datagrams: mpsc::Receiver<Datagram>,
    /// What peers ask over streams.
    pub(crate) asked: mpsc::Receiver<Incoming>,
    /// Who this node is to others: its cluster, once it has one.
    pub(crate) me: Follower<PeerIdentity>,
    /// The identities that the metadata have retired.
    pub(crate) retired: Follower<Arc<BTreeSet<DiskId>>>,
    /// Whether this node leaves its cluster for good.
    pub(crate) leaves: Follower<bool>,
    /// How much the shards have to do.
    pub(crate) load: Gauges,
    pub(crate) stopped: Follower<Option<Ended>>,
}

impl Inbox {
    /// Takes what comes and says nothing, until it may speak or the node ends.
    pub(crate) async fn keep_silent(&mut self, may_speak: &mut Follower<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = self.stopped.until(Option::is_some) => return,
                _ = may_speak.until(|may| *may) => return,
                // Dropped, it tells the asker that there is no answer.
                Some(_) = self.asked.recv() => {}
                Some(_) = self.datagrams.recv() => {}
            }
        }
    }
}

/// Where gossip shows what it knows.
pub(crate) struct Shown {
    pub(crate) membership: Signal<Arc<Membership>>,
    /// For control; set when a verdict differs.
    pub(crate) verdicts: Signal<Arc<Verdicts>>,
}

/// The gossip machine and its hands.
pub(crate) struct GossipLoop<C, T, N> {
    driven: Driven<Gossip, C, T>,
    inbox: Inbox,
    network: N,
    shown: Shown,
    /// Where to look for others once there is a cluster to look for.
    seeds: Vec<SocketAddr>,
    /// The ways back of exchanges that are being handled; the machine answers at once or never.
    ways: BTreeMap<RequestId, Answerer>,
    next: RequestId,
    /// How exchanges ended: one each, and the machine bounds how many there are.
    answers: mpsc::UnboundedReceiver<(ExchangeId, Option<Bytes>)>,
    answered: mpsc::UnboundedSender<(ExchangeId, Option<Bytes>)>,
    /// Of which retired identities the machine has heard.
    retired: Arc<BTreeSet<DiskId>>,
    departed: bool,
}

impl<C: Clock, T: Trace<Gossip>, N: Network> GossipLoop<C, T, N> {
    pub(crate) fn new(
        gossip: Gossip,
        inbox: Inbox,
        (clock, trace, network): (C, T, N),
        seeds: Vec<SocketAddr>,
        shown: Shown,
    ) -> Self {
        // Answers are bounded by the exchanges that the machine has under way.
        let (answered, answers) = mpsc::unbounded_channel();
        Self {
            driven: Driven::new(gossip, clock, trace),
            inbox,
            network,
            shown,
            seeds,
            ways: BTreeMap::new(),
            next: RequestId(0),
            answers,
            answered,
            retired: Arc::default(),
            departed: false,
        }
    }

    /// Runs until the node ends; one that leaves for good says so before.
    pub(crate) async fn run(mut self) {
        let retired = self.inbox.retired.get();
        let first = retire(&mut self.retired, retired);
        self.handle(first);
        loop {
            self.driven.set_alarm();
            let input = tokio::select! {
                biased;
                _ = self.inbox.stopped.until(Option::is_some) => break,
                me = self.inbox.me.changed() => {
                    self.join(&me);
                    None
                }
                all = self.inbox.retired.changed() => Some(retire(&mut self.retired, all)),
                Some((exchange, answer)) = self.answers.recv() => {
                    Some(GossipInput::Answered { exchange, answer })
                }
                Some(incoming) = self.inbox.asked.recv() => self.asked(incoming),
                Some(Datagram { from, body }) = self.inbox.datagrams.recv() => {
                    Some(GossipInput::Received { from, datagram: body })
                }
                () = &mut self.driven.alarm => None,
            };
            if let Some(input) = input {
                self.handle(input);
            }
            // Whatever has come is heard before silence is judged.
            for _ in 0..INPUTS_MAX {
                let Some(input) = self.arrived() else { break };
                self.handle(input);
            }
            self.tell_load();
            self.driven.wake_if_due(GossipInput::Woke);
            self.perform();
        }
        if self.inbox.leaves.get() {
            self.depart().await;
        }
    }

    fn handle(&mut self, input: GossipInput) {
        let now = self.driven.clock.now();
        self.driven.handle(now, input);
    }

    /// Has the others told how much this node has to do. What wakes this loop, probes among it, is
    /// often enough.
    fn tell_load(&mut self) {
        let now = self.driven.clock.now().since_start;
        if let Some(load) = self.inbox.load.read(now) {
            self.handle(GossipInput::Loaded(load));
        }
    }

    /// The next input that is there already.
    fn arrived(&mut self) -> Option<GossipInput> {
        if let Ok((exchange, answer)) = self.answers.try_recv() {
            return Some(GossipInput::Answered { exchange, answer });
        }
        while let Ok(incoming) = self.inbox.asked.try_recv() {
            if let Some(input) = self.asked(incoming) {
                return Some(input);
            }
        }
        let Datagram { from, body } = self.inbox.datagrams.try_recv().ok()?;
        Some(GossipInput::Received { from, datagram: body })
    }

    /// The node belongs to a cluster: only now do others exchange views with it.
    fn join(&mut self, me: &PeerIdentity) {
        if let Some(cluster) = me.cluster {
            self.handle(GossipInput::Cluster(cluster));
            self.handle(GossipInput::Join { addresses: self.seeds.clone() });
        }
    }

    fn asked(&mut self, incoming: Incoming) -> Option<GossipInput> {
        // A message without a way back is nothing that a gossip machine sends.
        let way = incoming.answer?;
        self.next = self.next.next();
        self.ways.insert(self.next, way);
        Some(GossipInput::Asked { id: self.next, request: incoming.body })
    }

    fn perform(&mut self) {
        let effects = std::mem::take(&mut self.driven.effects);
        for effect in effects {
            match effect {
                GossipEffect::Send { to, datagram } => self.network.datagram(to, datagram),
                GossipEffect::Exchange { exchange, to, request } => {
                    self.exchange(exchange, to, request);
                }
                GossipEffect::Answer { id, answer } => {
                    if let Some(way) = self.ways.remove(&id) {
                        way.answer(answer);
                    }
                }
                GossipEffect::Show(members) => self.show(members),
                GossipEffect::Event(event) => self.tell(event),
                GossipEffect::Departed => self.departed = true,
            }
        }
        // Dropped, they tell the askers that there is no answer.
        self.ways.clear();
    }

    /// Asks a peer over a stream. Streams are for members of one cluster.
    fn exchange(&self, exchange: ExchangeId, to: SocketAddr, request: Bytes) {
        let answered = self.answered.clone();
        if self.inbox.me.get().cluster.is_none() {
            // This loop holds the other end.
            let _ = answered.send((exchange, None));
            return;
        }
        let network = self.network.clone();
        tokio::spawn(async move {
            let answer = network.call(to, Lane::Gossip, request, EXCHANGE_WAIT).await;
            // The loop has ended, or it hears it.
            let _ = answered.send((exchange, answer.ok()));
        });
    }

    fn show(&self, members: Arc<Members>) {
        let machine = &self.driven.machine;
        self.shown.verdicts.set(Arc::new(verdicts(&members)));
        let before = self.shown.membership.follow().get();
        let (counters, slowness) = (machine.counters().clone(), machine.health());
        let events = before.events.clone();
        self.shown.membership.set(Arc::new(Membership { members, events, counters, slowness }));
    }

    fn tell(&self, event: MemberEvent) {
        let member = self.driven.machine.member(event.member);
        let name = member.map_or("", |member| member.about.name.as_str());
        match event.kind {
            MemberEventKind::Failed => tracing::warn!(name, "a member does not answer: failed"),
            MemberEventKind::Joined | MemberEventKind::Restarted | MemberEventKind::Left => {
                tracing::info!(name, kind = ?event.kind, "a member")
            }
            MemberEventKind::Suspected | MemberEventKind::Refuted => {
                tracing::debug!(name, kind = ?event.kind, "a member");
            }
        }
        let mut next = Membership::clone(&self.shown.membership.follow().get());
        let events = Arc::make_mut(&mut next.events);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back((self.driven.clock.now().wall, event));
        self.shown.membership.set(Arc::new(next));
    }

    /// Tells the others that this node leaves for good.
    async fn depart(mut self) {
        let until = self.driven.clock.now().since_start + FAREWELL_MAX;
        self.handle(GossipInput::Leave);
        self.perform();
        while !self.departed {
            let wakeup = self.driven.machine.wakeup().map_or(until, |at| at.min(until));
            tokio::time::sleep_until(self.driven.clock.moment(wakeup)).await;
            if self.driven.clock.now().since_start >= until {
                return;
            }
            self.driven.wake_if_due(GossipInput::Woke);
            self.perform();
        }
    }
}

/// What the machine has not heard yet of the identities that are retired.
fn retire(known: &mut Arc<BTreeSet<DiskId>>, all: Arc<BTreeSet<DiskId>>) -> GossipInput {
    let new = all.difference(known).copied().collect();
    *known = all;
    GossipInput::Retired(new)
}

/// What control is told of the members.
fn verdicts(members: &Members) -> Verdicts {
    let judged = members.all.iter().map(|member| {
        let verdict = match member.state() {
            MemberState::Healthy => Verdict::Live,
            MemberState::Suspect => Verdict::Suspect,
            MemberState::Failed | MemberState::Left => Verdict::Failed,
        };
        (member.disk, verdict)
    });
    Verdicts(judged.collect())
}
