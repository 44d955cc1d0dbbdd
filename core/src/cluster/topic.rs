//! A topic: how it is kept, and into what it is divided.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NAME_BYTES_MAX, PartitionId, TopicName};

/// How many partitions a topic has at most.
pub const PARTITIONS_MAX: u32 = 1_024;
/// How long messages are retained when the topic does not say.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// When a publish is acknowledged. What is committed, and so read, is durable on every member of
/// the set that counts, whatever the level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// When it is committed: nothing acknowledged is lost while one member of the set keeps its
    /// disk.
    #[default]
    Fsync,
    /// When every member of the set has received it: what is not synced yet is lost when all of
    /// them end without order before they have.
    Replicated,
    /// When the leader has appended it: what the next leader has not received is lost.
    Leader,
}

impl Durability {
    /// All levels, by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("fsync", Self::Fsync), ("replicated", Self::Replicated), ("leader", Self::Leader)];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, level)| *level == self);
        known.expect("every level has a name").0
    }
}

/// How a topic is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Into how many ranges of the key-hash space it is divided, 1 or more.
    pub partitions: u32,
    /// How many nodes are to hold each partition; in effect the lesser of it and their number.
    pub replication: u32,
    /// When a publish is acknowledged.
    pub durability: Durability,
    /// How long a message is retained at least; `None` is for ever.
    pub retention: Option<Duration>,
    /// How many bytes of entries a partition retains, about; `None` is without bound.
    pub retention_bytes: Option<u64>,
    /// After how long a message that does not say itself is not delivered any more.
    pub ttl: Option<Duration>,
    /// The largest payload, in bytes, where it is less than what nodes take.
    pub message_bytes_max: Option<u32>,
    /// Where messages go that cannot be delivered; `None` is [`dead_letters`]' choice.
    pub dead_letter_topic: Option<TopicName>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            replication: 3,
            durability: Durability::default(),
            retention: Some(RETENTION_DEFAULT),
            retention_bytes: None,
            ttl: None,
            message_bytes_max: None,
            dead_letter_topic: None,
        }
    }
}

/// What is to change in a configuration; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigPatch {
    /// See [`TopicConfig::partitions`]; it is fixed when the topic is made.
    pub partitions: Option<u32>,
    /// See [`TopicConfig::replication`].
    pub replication: Option<u32>,
    /// See [`TopicConfig::durability`]. A higher level holds for what is published when the leaders
    /// know of it.
    pub durability: Option<Durability>,
    /// See [`TopicConfig::retention`].
    pub retention: Option<Option<Duration>>,
    /// See [`TopicConfig::retention_bytes`].
    pub retention_bytes: Option<Option<u64>>,
    /// See [`TopicConfig::ttl`].
    pub ttl: Option<Option<Duration>>,
    /// See [`TopicConfig::message_bytes_max`].
    pub message_bytes_max: Option<Option<u32>>,
    /// See [`TopicConfig::dead_letter_topic`].
    pub dead_letter_topic: Option<Option<TopicName>>,
}

impl ConfigPatch {
    /// The configuration that follows from `before`.
    #[must_use]
    pub fn apply(&self, before: &TopicConfig) -> TopicConfig {
        TopicConfig {
            partitions: self.partitions.unwrap_or(before.partitions),
            replication: self.replication.unwrap_or(before.replication),
            durability: self.durability.unwrap_or(before.durability),
            retention: self.retention.unwrap_or(before.retention),
            retention_bytes: self.retention_bytes.unwrap_or(before.retention_bytes),
            ttl: self.ttl.unwrap_or(before.ttl),
            message_bytes_max: self.message_bytes_max.unwrap_or(before.message_bytes_max),
            dead_letter_topic: (self.dead_letter_topic.clone())
                .unwrap_or_else(|| before.dead_letter_topic.clone()),
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its configuration.
    pub config: TopicConfig,
    /// Its partitions by number; each begins its range of the key-hash space at `slot`.
    pub partitions: Vec<Range>,
}

/// A partition's share of the key-hash space: from `slot` to before the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The first slot of the range.
    pub slot: u64,
    /// The partition.
    pub partition: PartitionId,
}

/// The first level of the topics that take dead letters.
pub const DEAD_LETTERS: &str = "_dead";

/// Where a topic's messages go that cannot be delivered, unless its configuration says otherwise.
/// Dead letters themselves go nowhere: `None`.
#[must_use]
pub fn dead_letters(topic: &TopicName) -> Option<TopicName> {
    if topic.as_str().split('.').next() == Some(DEAD_LETTERS) {
        return None;
    }
    let name = format!("{DEAD_LETTERS}.{topic}");
    let short = name.get(..NAME_BYTES_MAX).unwrap_or(&name).trim_end_matches('.');
    Some(short.parse().expect("a name with a level before it is a name"))
}
