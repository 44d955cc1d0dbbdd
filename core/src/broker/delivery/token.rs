//! What a client gives back to acknowledge a message.

use std::fmt;
use std::str::FromStr;

use crate::broker::replica::Record;
use crate::ids::{Offset, PartitionId, TopicName};

/// Names one delivery of one message; to clients it is opaque text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckToken {
    /// The partition that holds the message.
    pub partition: PartitionId,
    /// The message.
    pub offset: Offset,
    /// Which delivery of it, from 1.
    pub attempt: u32,
}

/// A message on its way to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivered {
    /// The topic.
    pub topic: TopicName,
    /// The number of the partition within the topic.
    pub partition: u32,
    /// The message.
    pub record: Record,
    /// What acknowledges it.
    pub token: AckToken,
}

/// The text is no token that a node gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ack_token: give back, unaltered, the one that came with the message")]
pub struct BadToken;

impl fmt::Display for AckToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.partition.0, self.offset.0, self.attempt)
    }
}

impl FromStr for AckToken {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.split('-').map(|part| {
            let plain = part.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u64::from_str_radix(part, 16).map_err(|_| BadToken) } else { Err(BadToken) }
        });
        let mut part = || parts.next().ok_or(BadToken)?;
        let token = Self {
            partition: PartitionId(part()?),
            offset: Offset(part()?),
            attempt: u32::try_from(part()?).map_err(|_| BadToken)?,
        };
        if parts.next().is_some() { Err(BadToken) } else { Ok(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_nothing_else_is_one() {
        let token =
            AckToken { partition: PartitionId(7), offset: Offset(u64::MAX), attempt: u32::MAX };
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in ["", "1-2", "1-2-3-4", "1-2-x", "+1-2-3", "1--3", "1-2-100000000"] {
            assert_eq!(bad.parse::<AckToken>(), Err(BadToken), "{bad:?}");
        }
    }
}
