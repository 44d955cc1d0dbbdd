//! The names of things: every identifier is a type of its own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The longest topic or subscription name, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// The longest message id that a client may give, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;

/// The largest number that is stored or sent, 2⁶³ − 1: a node that made a thousand million a second
/// would get there in three centuries. What claims to be more is damaged, and so whatever was read
/// has one after it.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

/// A number above [`NUMBER_MAX`]. It was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no number of anything: {NUMBER_MAX} is the largest")]
pub struct BadNumber(pub u64);

/// A number as it was read.
///
/// # Errors
///
/// [`BadNumber`] for what no node counts up to.
pub(crate) fn plausible(number: u64) -> Result<u64, BadNumber> {
    if number <= NUMBER_MAX { Ok(number) } else { Err(BadNumber(number)) }
}

/// Declares an integer identifier: `Copy`, ordered, printed as the bare number.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        #[serde(try_from = "u64")]
        pub struct $name(pub u64);

        impl TryFrom<u64> for $name {
            type Error = BadNumber;
            fn try_from(number: u64) -> Result<Self, BadNumber> {
                plausible(number).map(Self)
            }
        }

        impl $name {
            /// The one after this; what is read is below 2⁶³, and counting does not get there.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// How often a node has started from its data directory; raised durably before anything else.
    Boot
}
number! {
    /// The position of a change in the metadata log, and so the version of the view it leads to.
    ChangeIndex
}
number! {
    /// A node in the metadata: the index of the change that registered it, 0 for the founder.
    NodeId
}
number! {
    /// A partition, unique in its cluster for ever; its number within its topic is another thing.
    PartitionId
}
number! {
    /// Whose requests share one part of what a node takes on: a number that stands for a client's
    /// address.
    Source
}
number! {
    /// The reign of one leader over a partition: it belongs to one run of one process.
    Epoch
}
number! {
    /// The position of an entry in a partition's log, from 1, without holes.
    EntryIndex
}
number! {
    /// The position of a message in its partition, from 0, dense when assigned.
    Offset
}
number! {
    /// A request that waits for its response, unique within one run of one driver.
    RequestId
}
number! {
    /// An exchange of members that waits for its answer, unique within one run of one node.
    ExchangeId
}
number! {
    /// A read of the disk that waits for its records, unique within one run of one shard.
    ReadId
}

/// One of the shards of a node; a partition lives in exactly one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The random 128 bits that a data directory is born with: a node's identity, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskId(pub u128);

/// The random 128 bits that a cluster is founded with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

macro_rules! hexadecimal {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
    };
}
hexadecimal!(DiskId);
hexadecimal!(ClusterId);

/// Why a text is not a name. Nothing was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It has no character, or more than [`NAME_BYTES_MAX`].
    #[error("a name has 1 to {NAME_BYTES_MAX} characters")]
    Length,
    /// It has a character outside `[A-Za-z0-9_.-]`.
    #[error("a name consists of letters, digits, '_', '.' and '-' (all ASCII)")]
    Character,
    /// A level between two dots is empty, or the whole is only dots.
    #[error("a name has no empty level: not '.', not '..', no dot at either end, no two in a row")]
    EmptyLevel,
}

/// Checks the rules that topic and subscription names share.
fn check_name(text: &str) -> Result<(), BadName> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(BadName::Length);
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(BadName::Character);
    }
    if text.split('.').any(str::is_empty) {
        return Err(BadName::EmptyLevel);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        /// As a text, without a copy of it.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A topic: 1–249 of `[A-Za-z0-9_.-]`, levels separated by dots, none of them empty.
    TopicName
}
impl TopicName {
    /// Whether the topic is the system's own: clients read it, and do not publish to it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl Source {
    /// The node itself, which does not wait for its turn.
    pub const NODE: Self = Self(0);
}

name! {
    /// A durable subscription, named under the same rules as a topic.
    SubscriptionId
}

name! {
    /// Who numbers its messages: a name under the same rules as a topic's, of the client's choice.
    ProducerId
}

/// The number of a message among those of its producer; they rise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sequence {
    /// The producer.
    pub producer: ProducerId,
    /// The number.
    pub number: u64,
}

/// How urgent a message is: 0 to 9, and 4 where nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(9);
    /// What a message has that does not say.
    pub const NORMAL: Self = Self(4);

    /// The priority of this number; `None` above 9.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// A message's id: any text of 1–256 bytes; the same id again is the same message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the id is known by in the dedup window and, without a key, routed by.
    #[must_use]
    pub fn hash(&self) -> IdHash {
        IdHash::of(self.0.as_bytes())
    }
}

/// Why a text is not a message id. Nothing was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 1 to {MESSAGE_ID_BYTES_MAX} bytes and no control characters")]
pub struct BadMessageId;

impl FromStr for MessageId {
    type Err = BadMessageId;
    fn from_str(text: &str) -> Result<Self, BadMessageId> {
        let fits = (1..=MESSAGE_ID_BYTES_MAX).contains(&text.len());
        if !fits || text.chars().any(char::is_control) {
            return Err(BadMessageId);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for MessageId {
    type Error = BadMessageId;
    fn try_from(text: String) -> Result<Self, BadMessageId> {
        text.parse()
    }
}

/// As a text, without a copy of it.
impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first 128 bits of a SHA-256: long enough that two messages never meet in one by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdHash(pub u128);

impl IdHash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let (first, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
        Self(u128::from_be_bytes(*first))
    }

    /// Where the hash falls in the key-hash space that partitions divide among themselves.
    #[must_use]
    pub fn slot(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_rules() {
        for good in ["a", "orders.eu.paid", "A-b_c.9", "x_", "_system", &"n".repeat(249)] {
            assert_eq!(good.parse::<TopicName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", BadName::Length),
            (&"n".repeat(250), BadName::Length),
            ("a b", BadName::Character),
            ("a/b", BadName::Character),
            ("ü", BadName::Character),
            (".", BadName::EmptyLevel),
            ("..", BadName::EmptyLevel),
            ("a..b", BadName::EmptyLevel),
            (".a", BadName::EmptyLevel),
            ("a.", BadName::EmptyLevel),
        ] {
            assert_eq!(bad.parse::<TopicName>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn message_ids_are_bounded_text() {
        assert!("é 1".parse::<MessageId>().is_ok());
        assert_eq!("".parse::<MessageId>(), Err(BadMessageId));
        assert_eq!("a\nb".parse::<MessageId>(), Err(BadMessageId));
        assert_eq!("x".repeat(257).parse::<MessageId>(), Err(BadMessageId));
    }

    #[test]
    fn the_slot_is_the_head_of_the_sha_256() {
        // SHA-256("abc") = ba7816bf 8f01cfea 414140de 5dae2223 …
        assert_eq!(IdHash::of(b"abc").0, 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223);
        assert_eq!(IdHash::of(b"abc").slot(), 0xba78_16bf_8f01_cfea);
    }
}
