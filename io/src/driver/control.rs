//! The loop of the control machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use sprawl_core::cluster::message::{AskLogEnds, ControlMessage};
use sprawl_core::cluster::metadata::View;
use sprawl_core::cluster::verdicts::Verdicts;
use sprawl_core::cluster::{ClusterClock, Control};
use sprawl_core::ids::{Boot, DiskId, ShardId};
use sprawl_core::machine::{
    ControlEffect, ControlInput, ControlRequest, ControlResponse, Halt, Report,
};
use sprawl_core::wire;
use tokio::sync::{mpsc, oneshot};

use super::{Awaited, Driven};
use crate::clock::Clock;
use crate::handle::{Asked, Ended};
use crate::peer::{Answerer, Incoming, Lane, Network, Runs};
use crate::raft::{Decision, Group, Visitor};
use crate::signal::{Follower, Signal};
use crate::trace::Trace;
use crate::writer::WriterHandle;

/// How many nodes at the door wait for their answers at most, and how many strangers get one.
const VISITORS_MAX: usize = 64;

/// Where control's inputs come from.
pub(crate) struct Inbox {
    pub(crate) reports: mpsc::UnboundedReceiver<(ShardId, Report)>,
    pub(crate) requests: mpsc::Receiver<Asked<ControlRequest, ControlResponse>>,
    /// What the control machines of other nodes send.
    pub(crate) peers: mpsc::Receiver<Incoming>,
    /// What gossip says of nodes.
    pub(crate) verdicts: Follower<Arc<Verdicts>>,
    pub(crate) stopped: Follower<Option<Ended>>,
}

/// What control tells a shard.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    View(Arc<View>),
    Time(ClusterClock),
    /// A controller asks what logs end with.
    Asked {
        by: DiskId,
        ask: AskLogEnds,
    },
}

/// Where a new view is shown: to each shard, to gossip, and to whoever serves clients.
pub(crate) struct Shown {
    pub(crate) shards: Vec<mpsc::UnboundedSender<Told>>,
    pub(crate) face: Arc<RwLock<Arc<View>>>,
    /// The identities that never come back.
    pub(crate) retired: Signal<Arc<BTreeSet<DiskId>>>,
    /// Whether this node's is among them.
    pub(crate) leaves: Signal<bool>,
    /// Whether this run is registered.
    pub(crate) registered: Signal<bool>,
    /// Why no later start from this directory may go on either.
    pub(crate) fence: Signal<Option<String>>,
}

/// The control machine and its hands.
pub(crate) struct ControlLoop<C, T, N> {
    driven: Driven<Control, C, T>,
    inbox: Inbox,
    group: Group,
    network: N,
    /// Nodes of no cluster that asked to be registered, each with the way back.
    visitors: BTreeMap<DiskId, Answerer>,
    /// Where runs listen that the metadata do not know (any more) and that said something: the
    /// answer tells them how they stand.
    strangers: BTreeMap<(DiskId, Boot), SocketAddr>,
    /// The registered runs, as the network has them.
    runs: Runs,
    stop: Signal<Option<Ended>>,
    writer: WriterHandle,
    shown: Shown,
    awaited: Awaited<oneshot::Sender<ControlResponse>>,
}

impl<C: Clock, T: Trace<Control>, N: Network> ControlLoop<C, T, N> {
    pub(crate) fn new(
        control: Control,
        inbox: Inbox,
        (clock, trace, group, network): (C, T, Group, N),
        stop: Signal<Option<Ended>>,
        writer: WriterHandle,
        shown: Shown,
    ) -> Self {
        let driven = Driven::new(control, clock, trace);
        let (visitors, awaited) = (BTreeMap::new(), Awaited::new());
        let (strangers, runs) = (BTreeMap::new(), Runs::default());
        Self {
            driven,
            inbox,
            group,
            network,
            visitors,
            strangers,
            runs,
            stop,
            writer,
            shown,
            awaited,
        }
    }

    /// Runs until the node ends.
    pub(crate) async fn run(mut self) {
        self.introduce();
        loop {
            self.driven.set_alarm();
            let input = tokio::select! {
                biased;
                reason = self.inbox.stopped.until(Option::is_some) => return self.end(reason),
                Some(decision) = self.group.decisions.recv() => Some(match decision {
                    Decision::Change { index, change, view } => {
                        ControlInput::Decided { index, change, view }
                    }
                    Decision::Installed(view) => ControlInput::Installed { view },
                }),
                status = self.group.status.changed() => Some(ControlInput::Raft(status)),
                Some(incoming) = self.inbox.peers.recv() => self.heard(&incoming),
                verdicts = self.inbox.verdicts.changed() => Some(ControlInput::Judged(verdicts)),
                Some(visitor) = self.group.visitors.recv() => Some(self.visited(visitor)),
                Some((from, report)) = self.inbox.reports.recv() => {
                    Some(ControlInput::Reported { from, report })
                }
                space = self.writer.space.changed() => Some(ControlInput::DiskSpace(space)),
                asked = self.inbox.requests.recv() => match asked {
                    Some(Asked { request, answer }) => {
                        let id = self.awaited.insert(answer);
                        Some(ControlInput::Requested { id, request })
                    }
                    None => return,
                },
                () = &mut self.driven.alarm => None,
            };
            if let Some(input) = input {
                let now = self.driven.clock.now();
                self.driven.handle(now, input);
            }
            self.driven.wake_if_due(ControlInput::Woke);
            self.perform();
        }
    }

    fn end(mut self, reason: Option<Ended>) {
        if let Some(Ended::DiskFailed(_)) = reason {
            let now = self.driven.clock.now();
            self.driven.handle(now, ControlInput::DiskFailed);
        }
    }

    fn perform(&mut self) {
        let effects = std::mem::take(&mut self.driven.effects);
        for effect in effects {
            match effect {
                ControlEffect::Propose(change) => self.group.propose(change, false),
                ControlEffect::Decide(change) => self.group.propose(change, true),
                ControlEffect::Send { to, run, message } => self.send((to, run), &message),
                ControlEffect::AskShards { asker, ask } => {
                    self.tell(&Told::Asked { by: asker, ask });
                }
                ControlEffect::Reconfigure(change) => self.group.reconfigure(change),
                ControlEffect::Joined(joined) => {
                    tracing::info!(node = joined.node.0, cluster = %joined.cluster, "registered");
                    self.shown.registered.set(true);
                }
                ControlEffect::Tell(clock) => self.tell(&Told::Time(clock)),
                ControlEffect::Halt(why) => {
                    tracing::error!(%why, "the node may not go on");
                    self.shown.leaves.set(why == Halt::Retired);
                    self.shown.fence.set(why.is_final().then(|| why.to_string()));
                    let ended = Ended::Halted(why.to_string());
                    self.stop.set_where(Option::is_none, Some(ended));
                }
                ControlEffect::Show(view) => {
                    self.tell(&Told::View(view.clone()));
                    self.meet(view);
                }
                ControlEffect::Meet(view) => self.meet(view),
                ControlEffect::Reply { id, response } => self.awaited.answer(id, response),
            }
        }
    }

    /// A node of no cluster asks to be registered; the answer goes back by the way it came.
    fn visited(&mut self, visitor: Visitor) -> ControlInput {
        let Visitor { said, answer } = visitor;
        let from = (said.disk, said.boot);
        if self.visitors.len() >= VISITORS_MAX {
            // Whoever has waited longest asks again.
            self.visitors.pop_first();
        }
        self.visitors.insert(said.disk, answer);
        let message = ControlMessage::Join { said, cluster: None, via: None };
        ControlInput::Heard { from, message }
    }

    /// Sends a message to another node's control machine, or answers who waits at the door.
    fn send(&mut self, (to, run): (DiskId, Option<Boot>), message: &ControlMessage) {
        if let ControlMessage::JoinAnswer { disk, answer, .. } = message
            && *disk == to
            && let Some(visitor) = self.visitors.remove(&to)
        {
            return visitor.answer(wire::encode(answer).into());
        }
        let view = self.shown.face.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = view.nodes.get(&to);
        let known = known.filter(|node| run.is_none_or(|run| node.boot == run));
        let known = known.map(|node| node.address);
        // An answer goes to the run that asked: a copy's never to the node that it was copied from.
        let stranger = run.and_then(|run| self.strangers.remove(&(to, run)));
        match known.or(stranger) {
            Some(address) => {
                let message = wire::encode(message).into();
                self.network.tell((address, to), Lane::Control, message);
            }
            None => tracing::debug!(%to, "a message to a node that is not known is lost"),
        }
    }

    /// What another node's control machine says; nothing, when nobody understands it.
    fn heard(&mut self, incoming: &Incoming) -> Option<ControlInput> {
        let from = (incoming.from.disk, incoming.from.boot);
        let face = &self.shown.face;
        let view = face.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !view.has_registered(from.0, from.1) {
            if self.strangers.len() >= VISITORS_MAX {
                self.strangers.pop_first();
            }
            self.strangers.insert(from, incoming.from.address);
        }
        match wire::decode(&incoming.body) {
            Ok(message) => Some(ControlInput::Heard { from, message }),
            Err(error) => {
                tracing::debug!(%error, node = %from.0, "a message that nobody understands");
                None
            }
        }
    }

    fn tell(&self, told: &Told) {
        for shard in &self.shown.shards {
            // A shard is gone only when the node has ended.
            let _ = shard.send(told.clone());
        }
    }

    /// Tells the network which runs are registered, where that is news.
    fn introduce(&mut self) {
        let view = self.shown.face.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(runs) = self.runs.other(&view) {
            self.runs = runs.clone();
            self.network.know(runs);
        }
    }

    fn meet(&mut self, view: Arc<View>) {
        // Identities are only ever added to the retired ones.
        if view.retired.len() != self.shown.retired.follow().get().len() {
            self.shown.retired.set(Arc::new(view.retired.keys().copied().collect()));
        }
        let mut face = self.shown.face.write().unwrap_or_else(PoisonError::into_inner);
        *face = view;
        drop(face);
        self.introduce();
    }
}
