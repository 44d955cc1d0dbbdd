//! What a shard tells of itself.

use std::time::Duration;

use super::{DiskSpace, Time, Unreadable, WallTime};
use crate::cluster::consensus::RaftStatus;
use crate::cluster::dht::Lookups;
use crate::ids::{Boot, ChangeIndex, DiskId, EntryIndex, Epoch, Offset, PartitionId, TopicName};

/// How the control plane stands, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControlStatus {
    /// Whether this run is registered.
    pub is_registered: bool,
    /// Whether this node decides for the cluster.
    pub acts: bool,
    /// The Raft group of the metadata.
    pub raft: RaftStatus,
    /// Cluster time.
    pub time: WallTime,
    /// By how much this node's wall clock differs from it, if that is too much.
    pub clock_off: Option<Duration>,
    /// Who is heard, on a voter; nobody elsewhere.
    pub sessions: Vec<SessionStatus>,
    /// Messages of other nodes that made no sense, or came too late to matter.
    pub ignored: u64,
}

/// A node as its heartbeats show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionStatus {
    /// The node.
    pub disk: DiskId,
    /// Its registered run.
    pub boot: Boot,
    /// For how long it has been silent.
    pub silent: Duration,
    /// How far it has applied the metadata.
    pub applied: ChangeIndex,
    /// What its wall clock showed last, and when by this node's monotone clock; `None` while it
    /// has not been heard.
    pub wall: Option<(WallTime, Time)>,
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
    /// What its lookups of other nodes' partitions came to.
    pub lookups: Lookups,
    /// Bytes of entries that the disk has before it.
    pub in_flight_bytes: u64,
    /// What it takes on, and who waits.
    pub admission: AdmissionStatus,
    /// Bytes of entries held in memory for reading.
    pub cached_bytes: u64,
}

/// How much more is asked of a shard than it takes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadLevel {
    /// Nobody waits for a turn.
    #[default]
    Calm,
    /// Less than half of the room for those who wait is taken.
    Elevated,
    /// Half of it or more is: one client at least is sent away.
    High,
    /// Seven eighths or more are.
    Severe,
}

impl LoadLevel {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Severe => "severe",
        }
    }
}

/// What a shard's gate lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdmissionStatus {
    /// How much more is asked than that.
    pub level: LoadLevel,
    /// Bytes of publishes that wait for their turn.
    pub waiting_bytes: u64,
    /// How many clients they are of.
    pub waiting_clients: u64,
    /// How many bytes the disk may have before it.
    pub window_bytes: u64,
    /// How long a commit takes, smoothed.
    pub commit_latency: Duration,
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
    pub epoch: Epoch,
    /// Whether it leads and its Start entry is committed.
    pub serving: bool,
    /// The last entry of the log that this node's disk holds, committed or not.
    pub persisted: EntryIndex,
    /// The last committed entry.
    pub commit: EntryIndex,
    /// The offset that the next committed message will have.
    pub end: Offset,
    /// The first offset that it retains.
    pub start: Offset,
    /// How many committed messages it retains.
    pub messages: u64,
    /// How many bytes of committed entries it retains, about.
    pub bytes: u64,
    /// How many messages are not due yet.
    pub delayed: u64,
    /// How many ids its dedup window holds.
    pub window_ids: u64,
    /// The hash chain over its committed entries.
    pub chain: u64,
    /// What is wrong with its log, if anything is.
    pub damaged: Option<Unreadable>,
    /// Where it leads: the other replicas.
    pub followers: Vec<FollowerStatus>,
}

/// How far a follower is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FollowerStatus {
    /// The node.
    pub disk: DiskId,
    /// The last entry that it holds durably.
    pub held: EntryIndex,
    /// Whether it receives what is appended: not while the two logs are compared, or where they do
    /// not go together.
    pub is_streaming: bool,
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
    /// Messages given back by their subscribers.
    pub given_back: u64,
    /// Leases made longer.
    pub extended: u64,
    /// Messages not delivered because their time was over.
    pub expired: u64,
    /// Messages not delivered because a filter did not want them.
    pub filtered: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Messages that retention removed, or a client.
    pub trimmed: u64,
    /// Reads that met an entry which is damaged.
    pub unreadable: u64,
    /// Publishes that had to wait for their turn.
    pub queued: u64,
    /// Publishes refused for the load, of clients that had their share waiting and of others.
    pub shed: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests that ended unknown.
    pub unknown: u64,
    /// Requests handed to another shard.
    pub forwarded: u64,
    /// Requests handed to another node, each try of them.
    pub calls: u64,
    /// Of them, those after the first try.
    pub call_retries: u64,
    /// Requests taken from other nodes.
    pub asked: u64,
    /// How often the breaker of another node opened.
    pub breakers_opened: u64,
    /// Reads that memory answered.
    pub cache_hits: u64,
    /// Reads that went to the disk.
    pub cache_misses: u64,
}
