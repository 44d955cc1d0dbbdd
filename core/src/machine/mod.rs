//! Everything between the core and the world: what happened comes in, what to do goes out.
//!
//! Each machine takes one input at a time and writes the effects it wants into a list. The
//! driver obeys them in order and decides nothing. A new variant here breaks every match, on
//! purpose: nowhere is there a catch-all arm over these enums.

mod control;
mod digest;
mod gossip;
mod status;
mod time;

use core::net::SocketAddr;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use control::{ControlEffect, ControlInput, ControlRequest, ControlResponse, Halt, Report};
pub use digest::Digest;
pub use gossip::{GossipEffect, GossipInput};
pub use status::{
    AdmissionStatus, ControlStatus, Counters, FollowerStatus, LoadLevel, PartitionStatus,
    SessionStatus, ShardStatus,
};
pub use time::{Now, Time, WallTime};

use crate::broker::delivery::{AckToken, Delivered};
use crate::broker::replica::message::ReplicaMessage;
use crate::broker::replica::{Checkpoint, Record, Submission};
use crate::broker::routing::{Answer, Ask, CallFailed, Routed};
use crate::cluster::ClusterClock;
use crate::cluster::message::AskLogEnds;
use crate::cluster::metadata::View;
use crate::ids::{Boot, DiskId, EntryIndex, Epoch, Offset, PartitionId, ReadId, RequestId};
use crate::ids::{MessageId, ShardId, SubscriptionId, TopicName};

/// A pure state machine: no clock, no entropy, no socket, no failure.
pub trait Machine {
    /// What can happen to it.
    type Input: Hash + fmt::Debug;
    /// What it can ask for.
    type Effect: Hash + fmt::Debug;

    /// Takes one input; appends what is to be done to `effects`.
    fn handle(&mut self, now: Now, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// When to wake it with `Woke`, if nothing else happens before.
    fn wakeup(&self) -> Option<Time>;

    /// Folds its state into a trace hash.
    fn digest(&self, hash: &mut Digest);

    /// Checks its own invariants and bounds; simulation calls it after each step.
    ///
    /// # Errors
    ///
    /// [`Broken`] names the invariant and shows the values that break it.
    fn check(&self) -> Result<(), Broken>;
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, as in docs/ARCHITECTURE.md.
    pub invariant: &'static str,
    /// The values that break it.
    pub detail: String,
}

/// What happened to a shard.
#[derive(Clone, Debug, Hash)]
pub enum ShardInput {
    /// Control shows a newer view of the metadata.
    Viewed(Arc<View>),
    /// Cluster time goes on like this.
    Timed(ClusterClock),
    /// A client asks for something.
    Requested {
        /// Names the request in the reply.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// Another shard sent something.
    Received {
        /// Which shard.
        from: ShardId,
        /// What it sent.
        message: Message,
    },
    /// Another node asks for something, for one of its clients.
    Asked {
        /// Names the request in the answer.
        id: RequestId,
        /// Which node.
        from: DiskId,
        /// What it asks.
        ask: Ask,
    },
    /// What another node was asked has its outcome.
    Called {
        /// The call.
        call: RequestId,
        /// What the node answered, or why there is no answer.
        result: Result<Answer, CallFailed>,
    },
    /// The replicas of another node say something to those of this one.
    Replicated {
        /// Which run of which node.
        from: (DiskId, Boot),
        /// What, to which partition.
        messages: Vec<(PartitionId, ReplicaMessage)>,
    },
    /// The controller asks what logs end with; a report of this shard's answers.
    LogEndsAsked {
        /// Where the controller is.
        by: DiskId,
        /// The question, about partitions of any shard.
        ask: AskLogEnds,
    },
    /// What was to be stored of these partitions is on the disk, synced, up to and including the
    /// number named.
    Stored(Vec<(PartitionId, u64)>),
    /// A read that was asked for ended.
    ReadDone {
        /// The read.
        read: ReadId,
        /// What the disk gave.
        result: Result<Vec<Record>, Unreadable>,
    },
    /// A search that was asked for ended.
    Sought {
        /// The search.
        read: ReadId,
        /// The offset of the first message that is not older; `None` where all are.
        result: Result<Option<Offset>, Unreadable>,
    },
    /// The disk began or ceased to take writes.
    DiskSpace(DiskSpace),
    /// A sync failed. It is the last input: nothing is answered after it.
    DiskFailed,
    /// The time that `wakeup` named has come.
    Woke,
}

/// What a shard wants done.
#[derive(Clone, Debug, Hash)]
pub enum ShardEffect {
    /// Write this to the disk and sync it; `Stored` answers.
    Store(Store),
    /// Read messages from the disk; `ReadDone` answers.
    Read {
        /// Names the read in the answer.
        read: ReadId,
        /// The partition.
        partition: PartitionId,
        /// The first message wanted; the read begins at the first one not below it.
        from: Offset,
        /// Nothing below this index is there any more.
        first: EntryIndex,
        /// Nothing at or above this index is wanted.
        below: EntryIndex,
        /// How many messages at most.
        count_max: usize,
        /// How many bytes at most, but always one message.
        bytes_max: usize,
    },
    /// Read entries from the disk as they are stored, for a follower; `ReadDone` answers.
    Scan {
        /// Names the read in the answer.
        read: ReadId,
        /// The partition.
        partition: PartitionId,
        /// The first entry.
        from: EntryIndex,
        /// How many bytes at most, but always one entry.
        bytes_max: usize,
    },
    /// Find the first message that is not older than a time; `Sought` answers.
    Seek {
        /// Names the search in the answer.
        read: ReadId,
        /// The partition.
        partition: PartitionId,
        /// The time.
        at: WallTime,
        /// Nothing below this index is there any more.
        first: EntryIndex,
        /// Nothing at or above this index is wanted.
        below: EntryIndex,
    },
    /// Forget a partition: its entries and its state.
    Erase {
        /// The partition.
        partition: PartitionId,
    },
    /// Carry a message to another shard, in order per pair of shards.
    Send {
        /// To whom.
        to: ShardId,
        /// What.
        message: Message,
    },
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Answer what another node asked.
    Answer {
        /// The request.
        id: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Ask another node; `Called` answers, once, and not much later than `wait` from now.
    Call {
        /// Names the call in the answer.
        call: RequestId,
        /// Which node.
        to: DiskId,
        /// Where it is reached.
        address: SocketAddr,
        /// What it is asked.
        ask: Ask,
        /// How long to wait for the answer.
        wait: Duration,
    },
    /// Carry a message to the same partition's replica on another node, or lose it.
    Tell {
        /// Which node.
        to: DiskId,
        /// Where it is reached.
        address: SocketAddr,
        /// The partition.
        partition: PartitionId,
        /// What.
        message: ReplicaMessage,
    },
    /// Tell control.
    Report(Report),
}

/// What is to be written for one partition, in one batch and in the order of these.
#[derive(Clone, Debug, Hash)]
pub struct Store {
    /// The partition.
    pub partition: PartitionId,
    /// Rises by one with each of the partition's; nothing is durable before what has a lower one.
    pub number: u64,
    /// The highest epoch that the replica has accepted, if that is new.
    pub accepted: Option<Epoch>,
    /// Entries behind this one are gone.
    pub cut_after: Option<EntryIndex>,
    /// Consecutive entries, sealed; may be empty when only state is stored.
    pub records: Vec<Record>,
    /// The state at its applied index, from time to time.
    pub checkpoint: Option<Checkpoint>,
    /// Entries below this index are not wanted any more; only beside a state that does not need
    /// them.
    pub cut: Option<EntryIndex>,
}

impl Store {
    /// One that stores nothing.
    #[must_use]
    pub fn of(partition: PartitionId) -> Self {
        Self {
            partition,
            number: 0,
            accepted: None,
            cut_after: None,
            records: Vec::new(),
            checkpoint: None,
            cut: None,
        }
    }
}

/// Whether the disk takes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DiskSpace {
    /// It does.
    #[default]
    Free,
    /// It is at its bound or full: publishes are refused, reads go on.
    Full,
}

/// A stored entry that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("partition {partition}, entry {index}: {reason}")]
pub struct Unreadable {
    /// The partition.
    pub partition: PartitionId,
    /// The entry; 0 where the disk did not read, which says nothing of any.
    pub index: EntryIndex,
    /// What is wrong with it.
    pub reason: String,
}

/// What a client asks of a shard.
#[derive(Clone, Debug, Hash)]
pub enum Request {
    /// Store one message.
    Publish(Submission),
    /// Store several messages, each as if it had come alone; one answer for all of them.
    PublishBatch(Vec<Submission>, Routed),
    /// Read messages without a subscription.
    Fetch {
        /// The topic.
        topic: TopicName,
        /// The number of the partition within the topic.
        partition: u32,
        /// Where to begin.
        from: FetchFrom,
        /// How many messages at most.
        count_max: usize,
        /// How long to wait for the first one.
        wait: Duration,
    },
    /// Remove the oldest messages of a partition.
    Trim {
        /// The topic.
        topic: TopicName,
        /// The number of the partition within the topic.
        partition: u32,
        /// The first offset that stays.
        below: Offset,
    },
    /// Take messages of a subscription; each is leased until its acknowledgement deadline.
    Pull {
        /// The subscription.
        subscription: SubscriptionId,
        /// How many messages at most.
        count_max: usize,
        /// How long to wait for the first one.
        wait: Duration,
    },
    /// Say what is to become of delivered messages.
    Settle {
        /// The subscription.
        subscription: SubscriptionId,
        /// The tokens that came with the messages.
        tokens: Vec<AckToken>,
        /// What is to become of them.
        verdict: Verdict,
    },
    /// Say when there is something of a subscription in the partitions that this node leads. Nodes
    /// ask one another; clients pull.
    Await {
        /// The subscription.
        subscription: SubscriptionId,
        /// How long to wait for it.
        lasts: Duration,
    },
    /// Tell what the shard holds and has counted.
    Describe,
}

/// Where a fetch begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchFrom {
    /// At this offset, or at the first one that is retained.
    Offset(Offset),
    /// At the first message stored at this time or later.
    Time(WallTime),
    /// At the message with this id, which the window must remember.
    Id(MessageId),
}

/// What is to become of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is done: it does not come again.
    Ack,
    /// It is not done: it comes again, after a pause.
    Nack {
        /// The pause; `None` is the subscription's own.
        delay: Option<Duration>,
        /// It does not come again but becomes a dead letter.
        dead_letter: bool,
    },
    /// It is being worked on: its deadline moves.
    Extend {
        /// The time from now to the deadline; `None` is the subscription's own.
        by: Option<Duration>,
    },
}

/// What became of a [`Request`]: exactly one of these, for every request.
#[derive(Clone, Debug, Hash)]
pub enum Response {
    /// The message is committed: every member of the set that counts has it durably.
    Published {
        /// The number of the partition within the topic.
        partition: u32,
        /// Its offset there.
        offset: Offset,
        /// Whether the id was known, so that this is the first one's offset.
        duplicate: bool,
    },
    /// What became of each message of a batch, in their order: published, refused or unknown.
    Batch(Vec<Response>),
    /// Committed messages, ascending.
    Fetched {
        /// The partition.
        of: PartitionId,
        /// The number of the partition within the topic.
        partition: u32,
        /// The messages.
        records: Vec<Record>,
        /// Where to go on.
        next: Offset,
        /// The first offset that is retained.
        start: Offset,
        /// The offset that the next committed message will have.
        end: Offset,
    },
    /// The oldest messages are gone.
    Trimmed {
        /// The first offset that is retained.
        start: Offset,
    },
    /// Messages of a subscription, each leased; none when the wait ended without any.
    Pulled(Vec<Delivered>),
    /// Verdicts were taken.
    Settled {
        /// Of how many messages.
        count: u32,
        /// Tokens that name no message of this subscription, or none that is leased any more.
        expired: Vec<AckToken>,
    },
    /// Whether there is something of the subscription.
    Available(bool),
    /// What the shard holds and has counted.
    Described(Box<ShardStatus>),
    /// It did not happen and will not.
    Refused(Refused),
    /// It may have happened or may yet; the same request again, under the same id, finds out.
    Unknown,
}

/// Why something did not happen, and will not. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// There is no such topic.
    #[error("there is no topic '{0}'")]
    NoTopic(TopicName),
    /// The topic has no such partition.
    #[error("topic '{0}' has no partition {1}")]
    NoPartition(TopicName, u32),
    /// There is no such subscription.
    #[error("there is no subscription '{0}'")]
    NoSubscription(SubscriptionId),
    /// The subscription exists otherwise.
    #[error("subscription '{0}' exists with other {1}; delete it first or choose another id")]
    SubscriptionDiffers(SubscriptionId, &'static str),
    /// The number of partitions is fixed when a topic is made.
    #[error("topic '{0}' has {1} partitions, and their number is fixed when a topic is made")]
    PartitionsFixed(TopicName, u32),
    /// The message was to be stored only at another offset.
    #[error("the next offset is {end}, not {expected} as expected")]
    OffsetMoved {
        /// Where it was to stand.
        expected: Offset,
        /// Where it would have stood.
        end: Offset,
    },
    /// The producer has gone on: whether this message was stored, nobody remembers.
    #[error("the producer's number {number} comes after its {newest}: it was stored or left out")]
    NumberPassed {
        /// The message's number.
        number: u64,
        /// The newest one of its producer.
        newest: u64,
    },
    /// The topic takes smaller payloads only.
    #[error("topic '{0}' takes payloads of at most {1} bytes")]
    PayloadTooLarge(TopicName, u32),
    /// The message would expire before it is due.
    #[error("its ttl ends before its delay: it would never be delivered")]
    ExpiresBeforeDue,
    /// The window does not remember a message of this id.
    #[error("there is no message '{0}', or its partition does not remember it any more")]
    NoMessage(MessageId),
    /// There is no node of this identity.
    #[error("there is no node {0}")]
    NoNode(DiskId),
    /// Without this node nobody would be left who stays.
    #[error("the last node of a cluster does not leave it")]
    LastNode,
    /// More is waiting than the node takes on; try again after a pause.
    #[error("the node is overloaded: {0}")]
    Overloaded(&'static str),
    /// The node is overloaded, and this client has its share of it waiting.
    #[error("the node is overloaded, and this client has as much waiting as is its share")]
    OverShare {
        /// When it will have less waiting, as far as can be told.
        retry_after: Duration,
    },
    /// The disk is behind, and as much waits for it as there is room for.
    #[error("the node is overloaded: too many bytes wait for the disk")]
    Busy {
        /// When less will be waiting, as far as can be told.
        retry_after: Duration,
    },
    /// The partition has no leader that may answer yet; try again after a pause.
    #[error("the partition has no leader yet")]
    NotReady,
    /// The partition's set waits for a member that is down, and cannot do without it.
    #[error(
        "too few of the partition's replicas live: it takes messages again when one that is down \
         is back, or another one has its copy"
    )]
    Frozen,
    /// Another node leads the partition, and the request is larger than what nodes hand on.
    #[error("the request is too large to be handed on to the node that leads the partition")]
    TooLargeToForward,
    /// The disk is full or at its bound; reads go on.
    #[error("the disk takes no more writes: it is full or at its configured bound")]
    DiskFull,
    /// A stored entry is damaged and there is no other copy.
    #[error("stored data is damaged: {0}")]
    Damaged(Unreadable),
}

/// What shards send one another.
#[derive(Clone, Debug, Hash)]
pub enum Message {
    /// A request that belongs to the receiver; it answers with `Answer` under the same id.
    Forward {
        /// The sender's name for it.
        id: RequestId,
        /// The request, as the client made it.
        request: Request,
    },
    /// What became of a forwarded request.
    Answer {
        /// The receiver's name for it.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Tell me, once, when this subscription has something to deliver.
    Watch {
        /// The sender's name for the wait.
        id: RequestId,
        /// The subscription.
        subscription: SubscriptionId,
        /// How long the sender will wait, counted from the arrival.
        lasts: Duration,
    },
    /// The watched subscription has something to deliver.
    Ready {
        /// The receiver's name for the wait.
        id: RequestId,
    },
}
