//! The loop of one shard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sprawl_core::broker::Shard;
use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::broker::replica::{Record, frame};
use sprawl_core::broker::routing::{Answer, Ask, CallFailed, wire};
use sprawl_core::ids::{DiskId, EntryIndex, Offset, PartitionId, ReadId, RequestId, ShardId};
use sprawl_core::machine::{
    Message, Report, Request, Response, ShardEffect, ShardInput, Store, Unreadable, WallTime,
};
use tokio::sync::{mpsc, oneshot};

use super::control::Told;
use super::data::FromReplicas;
use super::{Awaited, Driven, INPUTS_MAX};
use crate::clock::Clock;
use crate::handle::{Asked, Ended};
use crate::load::Gauge;
use crate::peer::{Answerer, CallError, Counters, Lane, Network};
use crate::signal::Follower;
use crate::storage::{ReadError, ReadRange, Storage};
use crate::trace::Trace;
use crate::transport::Transport;
use crate::writer::{Job, WriterHandle};

/// What the world answers to a shard's own effects. As many as the shard has under way.
pub(crate) enum Completion {
    /// What was to be stored is durable, per partition up to the number named.
    Stored(Vec<(PartitionId, u64)>),
    /// A read ended.
    Read(ReadId, Result<Vec<Record>, Unreadable>),
    /// A search ended.
    Sought(ReadId, Result<Option<Offset>, Unreadable>),
    /// Another node answered, or did not.
    Called(RequestId, Result<Answer, CallFailed>),
}

/// What another node asks, with the way back.
pub(crate) struct FromPeer {
    pub(crate) from: DiskId,
    pub(crate) ask: Ask,
    pub(crate) answer: Answerer,
}

/// Where a shard's inputs come from.
pub(crate) struct Inbox {
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    pub(crate) completions: mpsc::UnboundedReceiver<Completion>,
    pub(crate) neighbours: mpsc::UnboundedReceiver<(ShardId, Message)>,
    pub(crate) requests: mpsc::Receiver<Asked<Request, Response>>,
    /// What other nodes ask.
    pub(crate) peers: mpsc::Receiver<FromPeer>,
    /// What the replicas of other nodes say.
    pub(crate) replicas: mpsc::UnboundedReceiver<FromReplicas>,
    pub(crate) stopped: Follower<Option<Ended>>,
}

/// Where a shard says what it has done.
pub(crate) struct Outbox {
    pub(crate) reports: mpsc::UnboundedSender<(ShardId, Report)>,
    /// The other end of its own inbox's, for whoever works for it.
    pub(crate) completions: mpsc::UnboundedSender<Completion>,
    pub(crate) gauge: Arc<Gauge>,
}

/// How a shard reaches other shards, of this node and of others.
#[derive(Clone)]
pub(crate) struct Reach<N, P> {
    pub(crate) transport: N,
    pub(crate) network: P,
    /// Where it is counted what nobody understands.
    pub(crate) traffic: Arc<Counters>,
}

/// One shard and its hands.
pub(crate) struct ShardLoop<S, C, T, N, P> {
    driven: Driven<Shard, C, T>,
    me: ShardId,
    inbox: Inbox,
    storage: S,
    writer: WriterHandle,
    reach: Reach<N, P>,
    outbox: Outbox,
    awaited: Awaited<oneshot::Sender<Response>>,
    awaited_by_peers: Awaited<Answerer>,
    stores: Vec<Store>,
    erased: Vec<PartitionId>,
    /// What this shard's replicas say to those of each other node.
    told: BTreeMap<(SocketAddr, DiskId), Words>,
}

/// Messages to the replicas of one node, and how many bytes they take.
#[derive(Default)]
struct Words {
    messages: Vec<(PartitionId, ReplicaMessage)>,
    bytes: usize,
}

impl<S, C, T, N, P> ShardLoop<S, C, T, N, P>
where
    S: Storage,
    C: Clock,
    T: Trace<Shard>,
    N: Transport,
    P: Network,
{
    pub(crate) fn new(
        shard: Shard,
        me: ShardId,
        inbox: Inbox,
        (storage, clock, trace, reach): (S, C, T, Reach<N, P>),
        writer: WriterHandle,
        outbox: Outbox,
    ) -> Self {
        let driven = Driven::new(shard, clock, trace);
        let (awaited, stores) = (Awaited::new(), Vec::new());
        Self {
            driven,
            me,
            inbox,
            storage,
            writer,
            reach,
            outbox,
            awaited,
            awaited_by_peers: Awaited::new(),
            stores,
            erased: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Runs until the node ends.
    pub(crate) async fn run(mut self) {
        loop {
            self.driven.set_alarm();
            let mut completions = Vec::new();
            let (mut requests, mut peers) = (Vec::new(), Vec::new());
            tokio::select! {
                biased;
                reason = self.inbox.stopped.until(Option::is_some) => return self.end(reason),
                Some(told) = self.inbox.told.recv() => self.handle(match told {
                    Told::View(view) => ShardInput::Viewed(view),
                    Told::Time(clock) => ShardInput::Timed(clock),
                    Told::Asked { by, ask } => ShardInput::LogEndsAsked { by, ask },
                }),
                _ = self.inbox.completions.recv_many(&mut completions, INPUTS_MAX) => {}
                Some((from, message)) = self.inbox.neighbours.recv() => {
                    self.handle(ShardInput::Received { from, message });
                }
                space = self.writer.space.changed() => self.handle(ShardInput::DiskSpace(space)),
                count = self.inbox.requests.recv_many(&mut requests, INPUTS_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                Some(said) = self.inbox.replicas.recv() => self.replicated(said),
                Some(asked) = self.inbox.peers.recv() => peers.push(asked),
                () = &mut self.driven.alarm => {}
            }
            let began = self.driven.clock.now().since_start;
            // What is there already is taken too, so that its effects share a batch.
            while requests.len() < INPUTS_MAX
                && let Ok(asked) = self.inbox.requests.try_recv()
            {
                requests.push(asked);
            }
            completions.into_iter().for_each(|completion| self.complete(completion));
            while let Ok((from, message)) = self.inbox.neighbours.try_recv() {
                self.handle(ShardInput::Received { from, message });
            }
            for _ in 0..INPUTS_MAX {
                let Ok(said) = self.inbox.replicas.try_recv() else { break };
                self.replicated(said);
            }
            for Asked { request, answer } in requests {
                let id = self.awaited.insert(answer);
                self.handle(ShardInput::Requested { id, request });
            }
            while peers.len() < INPUTS_MAX
                && let Ok(asked) = self.inbox.peers.try_recv()
            {
                peers.push(asked);
            }
            for FromPeer { from, ask, answer } in peers {
                let id = self.awaited_by_peers.insert(answer);
                self.handle(ShardInput::Asked { id, from, ask });
            }
            self.driven.wake_if_due(ShardInput::Woke);
            self.perform().await;
            let worked = self.driven.clock.now().since_start.since(began);
            self.outbox.gauge.note(worked, self.driven.machine.waiting_bytes() as u64);
        }
    }

    fn handle(&mut self, input: ShardInput) {
        let now = self.driven.clock.now();
        self.driven.handle(now, input);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            // A batch that only erased stored nothing.
            Completion::Stored(parts) if parts.is_empty() => {}
            Completion::Stored(parts) => self.handle(ShardInput::Stored(parts)),
            Completion::Read(read, result) => {
                self.handle(ShardInput::ReadDone { read, result });
            }
            Completion::Sought(read, result) => {
                self.handle(ShardInput::Sought { read, result });
            }
            Completion::Called(call, result) => self.handle(ShardInput::Called { call, result }),
        }
    }

    /// The node ends: when the disk has failed, the machine is told; it answers nothing more.
    fn end(mut self, reason: Option<Ended>) {
        if let Some(Ended::DiskFailed(_)) = reason {
            self.handle(ShardInput::DiskFailed);
        }
    }

    async fn perform(&mut self) {
        let effects = std::mem::take(&mut self.driven.effects);
        for effect in effects {
            match effect {
                ShardEffect::Store(store) => {
                    if self.erased.contains(&store.partition) {
                        // What is erased and begins anew: in this order.
                        self.store().await;
                    }
                    self.stores.push(store);
                }
                ShardEffect::Tell { to, address, partition, message } => {
                    self.tell((address, to), partition, message);
                }
                ShardEffect::Scan { read, partition, from, bytes_max } => {
                    self.scan(read, partition, from, bytes_max);
                }
                ShardEffect::Read { read, partition, from, first, below, count_max, bytes_max } => {
                    let range = ReadRange { partition, from, first, below, count_max, bytes_max };
                    self.read(read, range);
                }
                ShardEffect::Seek { read, partition, at, first, below } => {
                    self.seek(read, partition, at, (first, below));
                }
                ShardEffect::Erase { partition } => self.erased.push(partition),
                ShardEffect::Send { to, message } => {
                    self.reach.transport.send(self.me, to, message);
                }
                ShardEffect::Reply { id, response } => self.awaited.answer(id, response),
                ShardEffect::Answer { id, answer } => {
                    self.awaited_by_peers.take(id).answer(wire::encode_answer(&answer));
                }
                ShardEffect::Call { call, to, address, ask, wait } => {
                    self.call(call, (address, to), &ask, wait);
                }
                ShardEffect::Report(report) => {
                    // Control is gone only when the node has ended.
                    let _ = self.outbox.reports.send((self.me, report));
                }
            }
        }
        for (to, words) in std::mem::take(&mut self.told) {
            self.reach.network.tell(to, Lane::Replica, frame::encode(words.messages));
        }
        if !self.stores.is_empty() || !self.erased.is_empty() {
            self.store().await;
        }
    }

    fn replicated(&mut self, said: FromReplicas) {
        let FromReplicas { from, messages, .. } = said;
        self.handle(ShardInput::Replicated { from, messages });
    }

    /// Gathers what goes to one node; sends it when that is enough.
    fn tell(&mut self, to: (SocketAddr, DiskId), partition: PartitionId, message: ReplicaMessage) {
        let words = self.told.entry(to).or_default();
        words.bytes += frame::bytes_about(&message);
        words.messages.push((partition, message));
        if words.bytes >= frame::FRAME_BYTES {
            let Words { messages, .. } = std::mem::take(words);
            self.reach.network.tell(to, Lane::Replica, frame::encode(messages));
        }
    }

    async fn store(&mut self) {
        let stores = std::mem::take(&mut self.stores);
        let erased = std::mem::take(&mut self.erased);
        let numbers: BTreeMap<PartitionId, u64> =
            stores.iter().map(|store| (store.partition, store.number)).collect();
        let completions = self.outbox.completions.clone();
        let done = Box::new(move || {
            // The shard is gone only when the node has ended.
            let _ = completions.send(Completion::Stored(numbers.into_iter().collect()));
        });
        // The writer is gone only when the disk has failed; then nothing is answered.
        let _ = self.writer.jobs.send(Job { stores, erased, metadata: Vec::new(), done }).await;
    }

    /// Asks another node.
    fn call(&self, call: RequestId, to: (SocketAddr, DiskId), ask: &Ask, wait: Duration) {
        let (network, completions) = (self.reach.network.clone(), self.outbox.completions.clone());
        let (traffic, body) = (self.reach.traffic.clone(), wire::encode_ask(ask));
        tokio::spawn(async move {
            let result = match network.call(to, Lane::Data, body, wait).await {
                Ok(answer) => wire::decode_answer(answer).map_err(|error| {
                    traffic.not_understood.more();
                    tracing::debug!(%error, node = %to.1, "an answer that nobody understands");
                    CallFailed::Unknown
                }),
                Err(CallError::NotDelivered(why)) => {
                    tracing::debug!(%why, node = %to.1, "a request was not delivered");
                    Err(CallFailed::NotDelivered)
                }
                Err(CallError::Unknown(why)) => {
                    tracing::debug!(%why, node = %to.1, "the outcome of a request is unknown");
                    Err(CallFailed::Unknown)
                }
            };
            // The shard is gone only when the node has ended.
            let _ = completions.send(Completion::Called(call, result));
        });
    }

    fn read(&self, read: ReadId, range: ReadRange) {
        let (storage, completions) = (self.storage.clone(), self.outbox.completions.clone());
        tokio::spawn(async move {
            let result = storage.read(range).await;
            let result = result.map_err(|error| unreadable(range.partition, error));
            // The shard is gone only when the node has ended.
            let _ = completions.send(Completion::Read(read, result));
        });
    }

    /// Reads entries for a follower.
    fn scan(&self, read: ReadId, partition: PartitionId, from: EntryIndex, bytes_max: usize) {
        let (storage, completions) = (self.storage.clone(), self.outbox.completions.clone());
        tokio::spawn(async move {
            let result = storage.scan(partition, from, bytes_max).await;
            let result = result.map_err(|error| unreadable(partition, error));
            let result = result.and_then(|entries| {
                let open = |(index, bytes)| {
                    let damage = |reason| Unreadable { partition, index, reason };
                    Record::open(partition, bytes).map_err(|error| damage(error.to_string()))
                };
                entries.into_iter().map(open).collect()
            });
            // The shard is gone only when the node has ended.
            let _ = completions.send(Completion::Read(read, result));
        });
    }

    fn seek(
        &self,
        read: ReadId,
        partition: PartitionId,
        at: WallTime,
        (first, below): (EntryIndex, EntryIndex),
    ) {
        let (storage, completions) = (self.storage.clone(), self.outbox.completions.clone());
        tokio::spawn(async move {
            let result = storage.seek(partition, at, first, below).await;
            let result = result.map_err(|error| unreadable(partition, error));
            // The shard is gone only when the node has ended.
            let _ = completions.send(Completion::Sought(read, result));
        });
    }
}

/// A read that failed, as the core is told: a disk that does not read is damage too.
fn unreadable(partition: PartitionId, error: ReadError) -> Unreadable {
    match error {
        ReadError::Unreadable(unreadable) => unreadable,
        ReadError::Failed(reason) => Unreadable { partition, index: EntryIndex(0), reason },
    }
}
