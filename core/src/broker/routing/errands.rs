//! What a shard has on its way to other nodes: each request, what its answer is for, how far it has
//! come, and when to go on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::asked::AskedBy;
use super::breaker::Breakers;
use super::calls::Hops;
use super::dice::Dice;
use super::wire::MESSAGES_BYTES_MAX;
use crate::broker::desk::ReplyTo;
use crate::broker::replica::Submission;
use crate::cluster::dht::Dht;
use crate::ids::{DiskId, Epoch, PartitionId, RequestId, SubscriptionId};
use crate::machine::{Request, Response, Time, Verdict};

/// How long it is tried to hand a request to the node that leads its partition.
pub const ROUTE_WAIT: Duration = Duration::from_secs(10);
/// The same of what only reads, and would not wait longer itself.
pub const READ_WAIT: Duration = Duration::from_secs(5);
/// How much longer than a request waits at another node its answer is waited for.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The pause before the second try; each further one doubles it.
pub const PAUSE_MIN: Duration = Duration::from_millis(25);
/// The longest pause between two tries.
pub const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How many requests a shard has on their way to other nodes at most.
pub(crate) const ERRANDS_MAX: usize = 16_384;
/// How many bytes their messages hold at most; one request there may always be.
pub(crate) const ERRANDS_BYTES_MAX: usize = 64 << 20;

/// What the answer to a request to another node is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// It is the answer to this.
    Whole(ReplyTo),
    /// It is the answer of some messages of a batch, at these places of it.
    Items(RequestId, Vec<u32>),
    /// It is a part of these verdicts' answer.
    Tokens(RequestId),
    /// It is what a pull gets there.
    Pull(RequestId),
    /// It says when there is something of a subscription to pull at this node.
    Await(SubscriptionId, DiskId),
}

/// How far a request has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    /// When to give it up.
    pub(crate) deadline: Time,
    /// How often it was handed on before it came here.
    pub(crate) hops: Hops,
    /// The last pause; none before the second try.
    pub(crate) pause: Duration,
    /// Whether another node handed it on: then that one tries again, and this one does not.
    pub(crate) is_peers: bool,
    /// Whether there was a try of unknown outcome.
    pub(crate) doubtful: bool,
    pub(super) tries: u32,
}

impl Trip {
    /// One that begins here.
    pub(crate) fn new(deadline: Time) -> Self {
        let (hops, pause) = (Hops::NONE, Duration::ZERO);
        Self { deadline, hops, pause, is_peers: false, doubtful: false, tries: 0 }
    }

    /// One that another node began.
    pub(crate) fn of(asked: &AskedBy) -> Self {
        Self { hops: asked.hops, is_peers: true, ..Self::new(asked.deadline) }
    }
}

/// A request on its way to another node, or in a pause before its next try.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) purpose: Purpose,
    pub(crate) request: Arc<Request>,
    pub(crate) trip: Trip,
    /// Which node is asked; none in a pause, and while the request is served here.
    pub(crate) to: Option<DiskId>,
    pub(super) bytes: usize,
    /// Until when a reader waits for its first message.
    pub(super) until: Time,
}

impl Errand {
    /// One that was not tried yet.
    pub(crate) fn idle(purpose: Purpose, request: Arc<Request>, trip: Trip) -> Self {
        Self { purpose, request, trip, to: None, bytes: 0, until: Time(0) }
    }
}

/// The node that leads a partition, and what is believed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) disk: DiskId,
    pub(crate) believed: Vec<(PartitionId, Epoch)>,
}

/// What a shard has with other nodes.
#[derive(Debug)]
pub(crate) struct Errands {
    pub(crate) dht: Dht,
    pub(crate) breakers: Breakers,
    pub(crate) under_way: BTreeMap<RequestId, Errand>,
    /// When to go on with what is in a pause.
    pauses: BTreeSet<(Time, RequestId)>,
    bytes: usize,
    dice: Dice,
    /// What other nodes have asked and is not answered.
    pub(crate) asked: BTreeMap<RequestId, AskedBy>,
    /// Which nodes are asked to say when there is something of which subscription, and by which
    /// call.
    pub(crate) awaits: BTreeMap<(SubscriptionId, DiskId), RequestId>,
    /// A request that was handed on more often than was counted.
    pub(crate) uncounted: Option<Hops>,
}

impl Errands {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dht: Dht::default(),
            breakers: Breakers::default(),
            under_way: BTreeMap::new(),
            pauses: BTreeSet::new(),
            bytes: 0,
            dice: Dice::new(seed),
            asked: BTreeMap::new(),
            awaits: BTreeMap::new(),
            uncounted: None,
        }
    }

    /// When to go on with something.
    pub(crate) fn wakeup(&self) -> Option<Time> {
        self.pauses.first().map(|&(at, _)| at)
    }

    /// What is to go on by now.
    pub(crate) fn due(&mut self, now: Time) -> Option<RequestId> {
        let &(at, id) = self.pauses.first()?;
        (at <= now).then(|| self.pauses.pop_first())?;
        Some(id)
    }

    /// Whether there is room for another one of so many bytes.
    fn has_room(&self, bytes: usize) -> bool {
        let is_light = self.bytes == 0 || self.bytes + bytes <= ERRANDS_BYTES_MAX;
        self.under_way.len() < ERRANDS_MAX && is_light
    }

    /// Enters one, or hands it back: there is no room for it.
    pub(crate) fn put(&mut self, id: RequestId, errand: Errand) -> Result<(), Box<Errand>> {
        if !self.has_room(errand.bytes) {
            return Err(Box::new(errand));
        }
        self.bytes += errand.bytes;
        self.under_way.insert(id, errand);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Errand> {
        let errand = self.under_way.remove(&id)?;
        self.bytes -= errand.bytes;
        Some(errand)
    }

    /// Puts something off by a pause; whether that ends before its deadline.
    pub(crate) fn rest(&mut self, id: RequestId, at_once: bool, now: Time) -> bool {
        let Some(errand) = self.under_way.get_mut(&id) else { return false };
        errand.to = None;
        let trip = &mut errand.trip;
        let mut at = now;
        if !at_once {
            trip.pause = (trip.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            at = now + self.dice.jitter(trip.pause);
        }
        let fits = at < trip.deadline;
        if fits {
            self.pauses.insert((at, id));
        }
        fits
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let bounds = [
            ("requests to other nodes", self.under_way.len(), ERRANDS_MAX),
            ("pauses", self.pauses.len(), self.under_way.len()),
            ("subscriptions awaited", self.awaits.len(), self.under_way.len()),
            ("requests of other nodes", self.asked.len(), super::asked::ASKED_MAX),
        ];
        if let Some((what, len, max)) = bounds.iter().find(|(_, len, max)| len > max) {
            return Err(format!("{len} {what}, the bound is {max}"));
        }
        let bytes: usize = self.under_way.values().map(|errand| errand.bytes).sum();
        if bytes != self.bytes || bytes > ERRANDS_BYTES_MAX.max(MESSAGES_BYTES_MAX) {
            return Err(format!("{bytes} bytes on their way to other nodes, {} said", self.bytes));
        }
        self.breakers.check()?;
        self.dht.check()
    }
}

/// How many bytes the messages of a request take, about, and how many of them their envelopes.
pub(super) fn bytes_of(request: &Request) -> (usize, usize) {
    let of = |items: &[Submission]| {
        items.iter().fold((0, 0), |(all, heads), item| {
            let bytes = item.draft.bytes_about();
            (all + bytes, heads + bytes - item.draft.payload.len())
        })
    };
    match request {
        Request::Publish(submission) => of(std::slice::from_ref(submission)),
        Request::PublishBatch(items, _) => of(items),
        Request::Fetch { .. }
        | Request::Trim { .. }
        | Request::Pull { .. }
        | Request::Settle { .. }
        | Request::Await { .. }
        | Request::Describe => (0, 0),
    }
}

/// Whether the same request again, when the first one had its effect, changes nothing more and is
/// answered as well.
pub(super) fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Publish(_)
        | Request::PublishBatch(..)
        | Request::Fetch { .. }
        | Request::Trim { .. }
        | Request::Settle { verdict: Verdict::Ack, .. } => true,
        Request::Settle { verdict: Verdict::Nack { .. } | Verdict::Extend { .. }, .. }
        | Request::Pull { .. }
        | Request::Await { .. }
        | Request::Describe => false,
    }
}

/// Whether this is an answer to such a request. Another one is nonsense: what became of the request
/// is not known.
pub(super) fn answers(request: &Request, response: &Response) -> bool {
    match response {
        Response::Published { .. } => matches!(request, Request::Publish(_)),
        Response::Batch(_) => matches!(request, Request::PublishBatch(..)),
        Response::Fetched { .. } => matches!(request, Request::Fetch { .. }),
        Response::Trimmed { .. } => matches!(request, Request::Trim { .. }),
        Response::Pulled(_) => matches!(request, Request::Pull { .. }),
        Response::Settled { .. } => matches!(request, Request::Settle { .. }),
        Response::Available(_) => matches!(request, Request::Await { .. }),
        Response::Refused(_) | Response::Unknown => true,
        Response::Described(_) => false,
    }
}

/// What a request waits by itself for, once it is where it is served.
pub(super) fn wait_of(request: &Request) -> Duration {
    match request {
        Request::Fetch { wait, .. } => *wait,
        Request::Await { lasts, .. } => *lasts,
        Request::Publish(_)
        | Request::PublishBatch(..)
        | Request::Trim { .. }
        | Request::Pull { .. }
        | Request::Settle { .. }
        | Request::Describe => Duration::ZERO,
    }
}
