//! From a topic and a key to the partition that answers, and the requests that are on their way.
//!
//! A message without key goes to the partition of its id, so that a repeat finds the first one.
//! Every request ends as answered, refused or unknown: whatever waits here has a deadline.

pub(super) mod asked;
mod awaits;
pub(super) mod breaker;
mod calls;
mod dice;
pub(super) mod errands;
mod tries;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use calls::{Answer, Ask, CallFailed, HOPS_MAX, Hops, ROUTES_TOLD_MAX, Told};
pub use errands::{PAUSE_MAX, PAUSE_MIN, READ_WAIT, ROUTE_WAIT};

use self::errands::Trip;
use super::delivery::AckToken;
use super::desk::ReplyTo;
use super::replica::{Envelope, Submission};
use crate::cluster::metadata::View;
use crate::ids::{ChangeIndex, DiskId, IdHash, PartitionId, RequestId, ShardId};
use crate::ids::{SubscriptionId, TopicName};
use crate::machine::{Refused, Request, Response, Time};

/// How long a message waits for its topic to be made.
pub const TOPIC_WAIT: Duration = Duration::from_secs(5);
/// How many messages wait for topics to be made, at most.
pub const WANTED_MAX: usize = 4_096;
/// How many bytes of payload they hold, at most.
pub const WANTED_BYTES_MAX: usize = 64 << 20;
/// How many pulls wait in a shard at most.
pub const PULLS_MAX: usize = 4_096;
/// How many batches of messages wait for their answers at most.
pub const BATCHES_MAX: usize = 4_096;
/// How many requests with verdicts wait for their answers at most.
pub const VERDICTS_MAX: usize = 16_384;
/// How many messages a batch has at most.
pub const BATCH_ITEMS_MAX: usize = 10_000;
/// How many requests forwarded to other shards wait for their answers at most.
pub const FORWARDS_MAX: usize = 16_384;

/// The partition whose shard a request is for; `None` when any shard will do.
#[must_use]
pub fn target(view: &View, request: &Request) -> Option<PartitionId> {
    match request {
        Request::Publish(submission) => target_of(view, submission),
        Request::PublishBatch(items, _) => items.first().and_then(|item| target_of(view, item)),
        Request::Fetch { topic, partition, .. } | Request::Trim { topic, partition, .. } => {
            view.partition_number(topic, *partition).map(|partition| partition.id)
        }
        Request::Pull { subscription, .. } | Request::Await { subscription, .. } => {
            let subscription = view.subscriptions.get(subscription)?;
            view.partitions_of(subscription).next().map(|partition| partition.id)
        }
        Request::Settle { tokens, .. } => tokens.first().map(|token| token.partition),
        Request::Describe => None,
    }
}

/// Where the messages of a batch go, by one version of the view: who has the same need not look
/// again. By default, nobody has looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Routed {
    /// The version.
    pub version: ChangeIndex,
    /// The partition of each message; `None` where its topic does not exist.
    pub partitions: Vec<Option<PartitionId>>,
}

impl Routed {
    /// Where these messages go by this view. A topic of one partition is looked up once for as many
    /// messages as follow one another to it.
    #[must_use]
    pub fn by(view: &View, items: &[Submission]) -> Self {
        let mut last: Option<(&TopicName, PartitionId)> = None;
        let partitions = items.iter().map(|item| {
            let Submission { topic, draft, .. } = item;
            if let Some((same, partition)) = last
                && same == topic
            {
                return Some(partition);
            }
            let mut by_slot = false;
            let partition = view.partition_at(topic, || {
                by_slot = true;
                slot(&draft.envelope)
            })?;
            last = (!by_slot).then_some((topic, partition));
            Some(partition)
        });
        Self { version: view.version, partitions: partitions.collect() }
    }

    /// The partition of the message at this place, where the view is the one that was looked at.
    pub(crate) fn of(&self, view: &View, at: u32) -> Option<PartitionId> {
        let partitions = (self.version == view.version).then_some(&self.partitions)?;
        partitions.get(at as usize).copied().flatten()
    }
}

/// The partition that a message is for, if its topic exists.
#[must_use]
pub fn target_of(view: &View, submission: &Submission) -> Option<PartitionId> {
    let Submission { topic, draft, .. } = submission;
    view.partition_at(topic, || slot(&draft.envelope))
}

/// Where a message falls in the key-hash space: by its key, without one by its producer, so that
/// all of a producer's numbers meet, and without either by its id.
#[must_use]
pub fn slot(envelope: &Envelope) -> u64 {
    match (&envelope.key, &envelope.sequence) {
        (Some(key), _) => IdHash::of(key.as_bytes()).slot(),
        (None, Some(sequence)) => IdHash::of(sequence.producer.as_str().as_bytes()).slot(),
        (None, None) => envelope.id.hash().slot(),
    }
}

/// A message that waits for its topic.
#[derive(Debug)]
pub(crate) struct Wanting {
    pub(crate) reply: ReplyTo,
    pub(crate) submission: Submission,
    /// When to refuse it.
    pub(crate) deadline: Time,
}

/// Where a subscription has partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In a shard of this node.
    Shard(ShardId),
    /// At another node.
    Node(DiskId),
}

/// A pull that asks the places of its subscription, one after the other, and then waits for one
/// of them to call.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) reply: ReplyTo,
    pub(crate) subscription: SubscriptionId,
    pub(crate) count_max: usize,
    /// When to answer with nothing.
    pub(crate) deadline: Time,
    /// Places still to be asked in this round; empty while it waits for a call.
    pub(crate) to_ask: VecDeque<Place>,
    /// Whether a place is being asked right now.
    pub(crate) asking: bool,
    /// Whether it is another node's, and so about this node's partitions alone.
    pub(crate) own: bool,
    /// Whether it says that there is something, and takes nothing.
    pub(crate) tells: bool,
    /// Whether a place has said that it has nothing.
    pub(crate) heard_nothing: bool,
    /// Whether a place could not say.
    pub(crate) heard_unready: bool,
}

impl Pull {
    /// One that has asked nobody.
    pub(crate) fn new(
        reply: ReplyTo,
        subscription: SubscriptionId,
        count_max: usize,
        deadline: Time,
    ) -> Self {
        Self {
            reply,
            subscription,
            count_max,
            deadline,
            to_ask: VecDeque::new(),
            asking: false,
            own: matches!(reply, ReplyTo::Peer(_)),
            tells: false,
            heard_nothing: false,
            heard_unready: false,
        }
    }

    /// What it is answered when nothing came.
    pub(crate) fn nothing(&self) -> Response {
        if self.tells {
            Response::Available(false)
        } else if self.heard_unready && !self.heard_nothing {
            Response::Refused(Refused::NotReady)
        } else {
            Response::Pulled(Vec::new())
        }
    }
}

/// What the answer to a forwarded request is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forwarded {
    /// It is the answer.
    Request(ReplyTo),
    /// It is a part of these verdicts' answer.
    Verdicts(RequestId),
    /// It is the answer of some messages of this batch.
    Part(RequestId),
}

/// A batch of messages, of which other partitions and shards have taken parts.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) reply: ReplyTo,
    /// What became of each message, as far as it is known.
    pub(crate) outcomes: Vec<Option<Response>>,
    pub(crate) missing: usize,
    /// Which messages other shards took, by this shard's name for the part.
    pub(crate) parts: BTreeMap<RequestId, Vec<u32>>,
    /// How far its messages have come that other nodes are to take.
    pub(crate) trip: Trip,
    /// Messages with a try of unknown outcome: none of them is refused any more.
    pub(crate) doubtful: BTreeSet<u32>,
}

impl Batch {
    /// What became of the message at this place.
    pub(crate) fn fill(&mut self, at: u32, response: Response) {
        let is_refused = matches!(response, Response::Refused(_));
        if let Some(place @ None) = self.outcomes.get_mut(at as usize) {
            let in_doubt = is_refused && self.doubtful.contains(&at);
            *place = Some(if in_doubt { Response::Unknown } else { response });
            self.missing -= 1;
        }
    }
}

/// One request with verdicts, of which other shards and nodes have taken parts.
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) reply: ReplyTo,
    /// How many of them have yet to answer.
    pub(crate) missing: usize,
    pub(crate) count: u32,
    pub(crate) expired: Vec<AckToken>,
    /// Whether a part of it ended otherwise, so that nobody knows about its tokens.
    pub(crate) unknown: bool,
    /// Why a part of it was refused; the answer, when no other part was taken.
    pub(crate) refused: Option<Refused>,
}

/// What is on its way in one shard.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Messages that wait for their topic, in the order of their deadlines.
    pub(crate) wanting: VecDeque<Wanting>,
    pub(crate) wanting_bytes: usize,
    /// Pulls that this shard is the door of, by their own name.
    pub(crate) pulls: BTreeMap<RequestId, Pull>,
    /// When to end a pull.
    pub(crate) pull_deadlines: BTreeMap<(Time, RequestId), ()>,
    /// What the answer of a forwarded request is for.
    pub(crate) forwards: BTreeMap<RequestId, Forwarded>,
    /// Verdicts that several shards take, by their own name.
    pub(crate) verdicts: BTreeMap<RequestId, Verdicts>,
    /// Batches that are not answered, by their own name.
    pub(crate) batches: BTreeMap<RequestId, Batch>,
    next: RequestId,
}

impl Routes {
    /// A name for something that another shard will answer.
    pub(crate) fn name(&mut self) -> RequestId {
        self.next = self.next.next();
        self.next
    }

    /// Whether so much is forwarded that nothing more is.
    pub(crate) fn is_forwarding_enough(&self) -> bool {
        self.forwards.len() >= FORWARDS_MAX
    }

    /// When to give something up.
    pub(crate) fn wakeup(&self) -> Option<Time> {
        let wanting = self.wanting.front().map(|wanting| wanting.deadline);
        let pull = self.pull_deadlines.first_key_value().map(|(&(at, _), ())| at);
        [wanting, pull].into_iter().flatten().min()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let bounds = [
            ("messages waiting for topics", self.wanting.len(), WANTED_MAX),
            ("pulls", self.pulls.len(), PULLS_MAX),
            ("forwards", self.forwards.len(), FORWARDS_MAX),
            ("verdicts under way", self.verdicts.len(), VERDICTS_MAX),
            ("batches", self.batches.len(), BATCHES_MAX),
            ("pull deadlines", self.pull_deadlines.len(), self.pulls.len()),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(format!("{len} {what}, the bound is {max}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::replica::{Draft, Terms};
    use super::*;
    use crate::cluster::metadata::{Change, founded};
    use crate::cluster::topic::TopicConfig;
    use crate::ids::Source;

    fn view(topics: &[(&str, u32)]) -> View {
        let mut view = founded();
        for &(name, partitions) in topics {
            let config = TopicConfig { partitions, ..TopicConfig::default() };
            let change = Change::CreateTopic { name: name.parse().expect("a name"), config };
            view.apply(view.version.next(), &change);
        }
        view
    }

    fn submission((number, topic): (usize, &str)) -> Submission {
        let id = number.to_string().parse().expect("an id");
        let envelope =
            Envelope { id, key: None, sequence: None, content_type: None, headers: Vec::new() };
        let draft = Draft { envelope, payload: Bytes::new() };
        let topic = topic.parse().expect("a name");
        Submission { source: Source(1), topic, draft, terms: Terms::default() }
    }

    #[test]
    fn a_batch_is_routed_as_its_messages_are_one_by_one() {
        let view = view(&[("one", 1), ("other", 1), ("many", 16)]);
        let topics = ["one", "one", "many", "many", "many", "one", "none", "one", "other", "other"];
        let topics = topics.into_iter().chain(["many"; 50]);
        let items: Vec<Submission> = topics.enumerate().map(submission).collect();
        let wanted: Vec<_> = items.iter().map(|item| target_of(&view, item)).collect();
        let routed = Routed::by(&view, &items);
        assert_eq!(routed.partitions, wanted);
        assert!((0..).zip(wanted).all(|(at, one)| routed.of(&view, at) == one));
        let mut newer = view;
        newer.version = newer.version.next();
        assert!((0..60).all(|at| routed.of(&newer, at).is_none()), "another view is asked anew");
    }
}
