//! Everything between the core and the world: what happened comes in, what to do goes out.
//!
//! Each machine takes one input at a time and writes the effects it wants into a list. The
//! driver obeys them in order and decides nothing. A new variant here breaks every match, on
//! purpose: nowhere is there a catch-all arm over these enums.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::delivery::{AckToken, Delivered};
use crate::broker::replica::{Checkpoint, Draft, Record};
use crate::cluster::metadata::{Change, StartFrom, View};
use crate::ids::{ChangeIndex, EntryIndex, Offset, PartitionId, ReadId, RequestId, ShardId};
use crate::ids::{SubscriptionId, TopicName};

/// A moment on the node's monotone clock: microseconds since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Time {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A moment that a clock on the wall shows: milliseconds since 1970 in UTC. It may jump.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct WallTime(pub u64);

/// The time of an input, by both clocks of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// Monotone; timers and ages are measured by it.
    pub since_start: Time,
    /// May jump either way; read once at the start, never compared with another node's.
    pub wall: WallTime,
}

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

/// What happened to the control machine.
#[derive(Clone, Debug, Hash)]
pub enum ControlInput {
    /// A client asks for something that the metadata must agree to.
    Requested {
        /// Names the request in the reply.
        id: RequestId,
        /// What is asked.
        request: ControlRequest,
    },
    /// The metadata log committed a change; they come in the log's order, each once.
    Decided {
        /// Its position in the log.
        index: ChangeIndex,
        /// What was agreed.
        change: Change,
    },
    /// A shard says something.
    Reported {
        /// Which shard.
        from: ShardId,
        /// What it says.
        report: Report,
    },
    /// The disk began or ceased to take writes.
    DiskSpace(DiskSpace),
    /// A sync failed. It is the last input: nothing is answered after it.
    DiskFailed,
    /// The time that `wakeup` named has come.
    Woke,
}

/// What the control machine wants done.
#[derive(Clone, Debug, Hash)]
pub enum ControlEffect {
    /// Have this change agreed and stored; it comes back as `Decided`.
    Propose(Change),
    /// Show all shards, and whoever else reads it, the newest view.
    Show(Arc<View>),
    /// Answer a request.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        response: ControlResponse,
    },
}

/// What a client asks of the metadata.
#[derive(Clone, Debug, Hash)]
pub enum ControlRequest {
    /// Make a durable subscription, and the topics that it names and that do not exist.
    Subscribe {
        /// Its id; the same id again is the same subscription.
        id: SubscriptionId,
        /// The topics, by plain name.
        topics: Vec<TopicName>,
        /// Where it begins in partitions that already exist.
        from: StartFrom,
        /// How long a delivered message may stay unacknowledged.
        ack_wait: Duration,
    },
}

/// What became of a [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ControlResponse {
    /// The subscription exists, and each of its partitions has committed where it begins.
    Subscribed {
        /// The topics of the subscription.
        topics: Vec<TopicName>,
    },
    /// It did not happen and will not.
    Refused(Refused),
    /// It may have happened; the same request again finds out.
    Unknown,
}

/// What a shard tells control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// A message waits for a topic that the view does not have.
    TopicWanted(TopicName),
    /// A partition has committed where a subscription begins.
    CursorFixed {
        /// The subscription.
        subscription: SubscriptionId,
        /// The partition.
        partition: PartitionId,
    },
}

/// What happened to a shard.
#[derive(Clone, Debug, Hash)]
pub enum ShardInput {
    /// Control shows a newer view of the metadata.
    Viewed(Arc<View>),
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
    /// Entries of a partition are on the disk, synced, up to and including this one.
    Persisted {
        /// The partition.
        partition: PartitionId,
        /// The last of them.
        index: EntryIndex,
    },
    /// A read that was asked for ended.
    ReadDone {
        /// The read.
        read: ReadId,
        /// What the disk gave.
        result: Result<Vec<Record>, Unreadable>,
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
    /// Write this to the disk and sync it; `Persisted` answers.
    Append(Append),
    /// Read messages from the disk; `ReadDone` answers.
    Read {
        /// Names the read in the answer.
        read: ReadId,
        /// The partition.
        partition: PartitionId,
        /// The first message wanted; the read begins at the first one not below it.
        from: Offset,
        /// Nothing at or above this index is wanted.
        below: EntryIndex,
        /// How many messages at most.
        count_max: usize,
        /// How many bytes at most, but always one message.
        bytes_max: usize,
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
    /// Tell control.
    Report(Report),
}

/// Entries for one partition's log and, in the same batch, the state that they lead to.
#[derive(Clone, Debug, Hash)]
pub struct Append {
    /// The partition.
    pub partition: PartitionId,
    /// Consecutive entries, sealed; may be empty when only state is stored.
    pub records: Vec<Record>,
    /// The state at its applied index, from time to time.
    pub checkpoint: Option<Checkpoint>,
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
    /// The entry.
    pub index: EntryIndex,
    /// What is wrong with it.
    pub reason: String,
}

/// What a client asks of a shard.
#[derive(Clone, Debug, Hash)]
pub enum Request {
    /// Store one message.
    Publish {
        /// The topic; it is made when it does not exist.
        topic: TopicName,
        /// The message.
        draft: Draft,
    },
    /// Read messages without a subscription.
    Fetch {
        /// The topic.
        topic: TopicName,
        /// The number of the partition within the topic.
        partition: u32,
        /// The first offset wanted.
        from: Offset,
        /// How many messages at most.
        count_max: usize,
        /// How long to wait for the first one.
        wait: Duration,
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
    /// Acknowledge messages of a subscription.
    Acknowledge {
        /// The subscription.
        subscription: SubscriptionId,
        /// The tokens that came with the messages.
        tokens: Vec<AckToken>,
    },
    /// Tell what the shard holds and has counted.
    Describe,
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
    /// Committed messages, ascending.
    Fetched {
        /// The number of the partition within the topic.
        partition: u32,
        /// The messages.
        records: Vec<Record>,
        /// Where to go on.
        next: Offset,
        /// The offset that the next committed message will have.
        end: Offset,
    },
    /// Messages of a subscription, each leased; none when the wait ended without any.
    Pulled(Vec<Delivered>),
    /// Acknowledgements were taken.
    Acknowledged {
        /// How many messages are acknowledged now.
        acked: u32,
        /// Tokens that name no message of this subscription.
        expired: Vec<AckToken>,
    },
    /// What the shard holds and has counted.
    Described(ShardStatus),
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
    /// The subscription exists with other topics.
    #[error("subscription '{0}' exists with other topics; delete it first or choose another id")]
    SubscriptionDiffers(SubscriptionId),
    /// More is waiting than the node takes on; try again after a pause.
    #[error("the node is overloaded: {0}")]
    Overloaded(&'static str),
    /// The partition has no leader that may answer yet; try again after a pause.
    #[error("the partition has no leader yet")]
    NotReady,
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

/// What a shard holds and has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardStatus {
    /// The version of the view that it acts by.
    pub view: ChangeIndex,
    /// Whether the disk takes writes.
    pub disk: DiskSpace,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// Its counters.
    pub counters: Counters,
    /// Bytes of entries that wait for the disk.
    pub in_flight_bytes: u64,
    /// Bytes of entries held in memory for reading.
    pub cached_bytes: u64,
}

/// One partition, as its replica sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Its topic.
    pub topic: TopicName,
    /// Its number within the topic.
    pub number: u32,
    /// The epoch in which it acts.
    pub epoch: crate::ids::Epoch,
    /// Whether it leads and its Start entry is committed.
    pub serving: bool,
    /// The last committed entry.
    pub commit: EntryIndex,
    /// The offset that the next committed message will have.
    pub end: Offset,
    /// How many committed messages it retains.
    pub messages: u64,
    /// How many ids its dedup window holds.
    pub window_ids: u64,
    /// The hash chain over its committed entries.
    pub chain: u64,
    /// What is wrong with its log, if anything is.
    pub damaged: Option<Unreadable>,
}

/// What a shard has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Messages committed for a client.
    pub published: u64,
    /// Bytes of their payloads.
    pub published_bytes: u64,
    /// Publishes that found their id in the window.
    pub duplicates: u64,
    /// Messages given to readers without subscription.
    pub fetched: u64,
    /// Messages given to subscribers, repeats included.
    pub delivered: u64,
    /// Deliveries beyond a message's first.
    pub redelivered: u64,
    /// Acknowledgements taken.
    pub acknowledged: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests that ended unknown.
    pub unknown: u64,
    /// Requests handed to another shard.
    pub forwarded: u64,
    /// Reads that memory answered.
    pub cache_hits: u64,
    /// Reads that went to the disk.
    pub cache_misses: u64,
}

/// A fast, fixed 64-bit hash for traces: the same input gives the same hash in every process.
///
/// It folds eight bytes at a time by multiplication; it resists accidents, not adversaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Digest {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xa076_1d64_78bd_642f_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(32);
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.fold(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn finish(&self) -> u64 {
        let mut end = *self;
        end.fold(0x2545_f491_4f6c_dd1d);
        end.0
    }
}
