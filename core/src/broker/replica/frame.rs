//! What goes to the replicas of another node at once: messages, and behind them the entries, which
//! whoever receives them does not copy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::leader::APPEND_BYTES_MAX;
use super::message::ReplicaMessage;
use super::{EPOCHS_MAX, RECORD_BYTES_MAX};
use crate::ids::PartitionId;
use crate::wire::{self, BadFrame};

/// About how many bytes are sent at once.
pub const FRAME_BYTES: usize = APPEND_BYTES_MAX;
/// How many bytes a frame has at most: so many as are sent at once, and a message more.
pub const FRAME_BYTES_MAX: usize = 2 * FRAME_BYTES + RECORD_BYTES_MAX + 64 * EPOCHS_MAX;

/// A message without its entries, and how long each of these is.
#[derive(Serialize, Deserialize)]
struct Head {
    partition: PartitionId,
    message: ReplicaMessage,
    lengths: Vec<u32>,
}

/// How many bytes a message takes, about.
#[must_use]
pub fn bytes_about(message: &ReplicaMessage) -> usize {
    match message {
        ReplicaMessage::Append { records, .. } | ReplicaMessage::Older { records, .. } => {
            32 + records.iter().map(|record| record.len() + 4).sum::<usize>()
        }
        ReplicaMessage::Match { starts, .. } => 16 + 18 * starts.len(),
        ReplicaMessage::Install { piece, .. } => 32 + piece.len(),
        ReplicaMessage::MatchAnswer { .. }
        | ReplicaMessage::AppendAnswer { .. }
        | ReplicaMessage::Lacks { .. }
        | ReplicaMessage::InstallAnswer { .. }
        | ReplicaMessage::Unmatched { .. }
        | ReplicaMessage::Stale { .. } => 32,
    }
}

/// Encodes messages as one frame.
#[must_use]
pub fn encode(messages: Vec<(PartitionId, ReplicaMessage)>) -> Bytes {
    let (mut heads, mut bodies) = (Vec::with_capacity(messages.len()), Vec::new());
    for (partition, mut message) in messages {
        let mut lengths = Vec::new();
        if let ReplicaMessage::Append { records, .. } | ReplicaMessage::Older { records, .. } =
            &mut message
        {
            lengths.extend(records.iter().map(|record| record.len() as u32));
            bodies.append(records);
        }
        heads.push(Head { partition, message, lengths });
    }
    let heads = wire::encode(&heads);
    let body: usize = bodies.iter().map(Bytes::len).sum();
    let mut frame = BytesMut::with_capacity(4 + heads.len() + body);
    frame.put_u32_le(heads.len() as u32);
    frame.put_slice(&heads);
    bodies.iter().for_each(|record| frame.put_slice(record));
    frame.freeze()
}

/// Decodes a frame.
///
/// # Errors
///
/// [`BadFrame`]: nothing of it was used.
pub fn decode(mut frame: Bytes) -> Result<Vec<(PartitionId, ReplicaMessage)>, BadFrame> {
    let malformed = |what: &str| BadFrame::Malformed(what.to_owned());
    if frame.len() < 4 {
        return Err(BadFrame::Empty);
    }
    let length = frame.get_u32_le() as usize;
    if length > frame.len() {
        return Err(malformed("the heads of the messages are not whole"));
    }
    let heads: Vec<Head> = wire::decode(&frame.split_to(length))?;
    let mut messages = Vec::with_capacity(heads.len());
    for Head { partition, mut message, lengths } in heads {
        match &mut message {
            ReplicaMessage::Append { records, .. } | ReplicaMessage::Older { records, .. }
                if records.is_empty() =>
            {
                for length in lengths {
                    if length as usize > frame.len() {
                        return Err(malformed("an entry is not whole"));
                    }
                    records.push(frame.split_to(length as usize));
                }
            }
            ReplicaMessage::Append { .. } | ReplicaMessage::Older { .. } => {
                return Err(malformed("entries stand where none are"));
            }
            ReplicaMessage::Match { .. }
            | ReplicaMessage::MatchAnswer { .. }
            | ReplicaMessage::AppendAnswer { .. }
            | ReplicaMessage::Lacks { .. }
            | ReplicaMessage::Install { .. }
            | ReplicaMessage::InstallAnswer { .. }
            | ReplicaMessage::Unmatched { .. }
            | ReplicaMessage::Stale { .. } => {
                if !lengths.is_empty() {
                    return Err(malformed("this message has no entries"));
                }
            }
        }
        messages.push((partition, message));
    }
    if frame.is_empty() { Ok(messages) } else { Err(malformed("bytes follow the last entry")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::replica::message::Place;
    use crate::ids::{EntryIndex, Epoch};

    fn append(records: &[&'static [u8]]) -> ReplicaMessage {
        ReplicaMessage::Append {
            epoch: Epoch(3),
            round: 1,
            previous: Place { epoch: Epoch(2), index: EntryIndex(7) },
            records: records.iter().map(|record| Bytes::from_static(record)).collect(),
            commit: EntryIndex(5),
        }
    }

    fn older(records: &[&'static [u8]]) -> ReplicaMessage {
        let records = records.iter().map(|record| Bytes::from_static(record)).collect();
        ReplicaMessage::Older { from: EntryIndex(4), records }
    }

    #[test]
    fn what_is_sent_at_once_arrives_and_entries_are_not_copied() {
        let messages = vec![
            (PartitionId(1), append(&[b"one", b"", b"three"])),
            (PartitionId(2), ReplicaMessage::Unmatched { epoch: Epoch(1), round: 1 }),
            (PartitionId(3), append(&[])),
            (PartitionId(1), older(&[b"four", b"five"])),
        ];
        let frame = encode(messages.clone());
        assert!(frame.len() <= messages.iter().map(|(_, one)| 8 + bytes_about(one)).sum());
        let found = decode(frame.clone()).expect("a frame");
        assert_eq!(found, messages);
        let ReplicaMessage::Append { records, .. } = &found[0].1 else { panic!("{found:?}") };
        assert!(frame.as_ptr_range().contains(&records[0].as_ptr()));
    }

    #[test]
    fn bytes_that_are_no_frame_do_no_harm() {
        let frame = encode(vec![(PartitionId(1), append(&[b"one", b"two"]))]);
        for length in 0..frame.len() {
            assert!(decode(frame.slice(..length)).is_err(), "{length} bytes");
        }
        let longer: Vec<u8> = frame.iter().copied().chain([0]).collect();
        assert!(decode(longer.into()).is_err());
        assert!(decode(Bytes::from_static(&[255; 64])).is_err());
    }
}
