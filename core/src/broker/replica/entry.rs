//! One entry of a partition's log, and the bytes it is stored and sent as.
//!
//! ```text
//! 0      1     2        6        14       22       30      38    46       54        55
//! format kind  CRC32C   epoch    index    offset   time    due   expires  priority  body …
//! ```
//!
//! Numbers are little-endian. The CRC covers the partition and everything but itself, so that an
//! entry that lies in the wrong place is as bad as one with a wrong bit. A message's body is the
//! frame of its envelope, preceded by its length in four bytes, and then the payload as it came:
//! reading slices it out without copying.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::ids::{
    BadNumber, Boot, ChangeIndex, DiskId, EntryIndex, Epoch, MessageId, Offset, PartitionId,
};
use crate::ids::{NUMBER_MAX, Priority, Sequence, Source, SubscriptionId, TopicName};
use crate::machine::WallTime;
use crate::wire::{self, BadFrame};

/// The largest payload, in bytes; a server may be configured for less.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// The largest encoded entry: a payload, its envelope and the header.
pub const RECORD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (1 << 20);
/// The length of an entry's header, in bytes.
pub const HEADER_BYTES: usize = 55;

/// What an entry in memory takes beside its bytes: its header, its handles, the allocator's part.
const FOOTPRINT_BYTES: usize = 176;

/// What a note takes in memory while it is written, about.
const NOTE_BYTES_ABOUT: usize = 128;
/// What the frame of an envelope has beside its texts, at most: its version, lengths, numbers, and
/// for each header two lengths.
const ENVELOPE_BYTES: usize = 48;

const FORMAT: u8 = 1;
const KIND_MESSAGE: u8 = 1;
const KIND_NOTE: u8 = 2;

/// A message as a client hands it in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Draft {
    /// What names the message and makes it idempotent, and what it carries beside the payload.
    pub envelope: Envelope,
    /// The payload; empty is legal.
    pub payload: Bytes,
}

impl Draft {
    /// How many bytes its entry takes, at most about.
    pub(crate) fn bytes_about(&self) -> usize {
        let Envelope { id, key, sequence, content_type, headers } = &self.envelope;
        let texts = [key, content_type].into_iter().flatten().map(String::len).sum::<usize>();
        let producer = sequence.as_ref().map_or(0, |one| one.producer.as_str().len());
        let of = |(name, value): &(String, String)| name.len() + value.len() + 10;
        let envelope = id.as_str().len() + texts + producer + headers.iter().map(of).sum::<usize>();
        HEADER_BYTES + 4 + ENVELOPE_BYTES + envelope + self.payload.len()
    }
}

/// On which terms a message is to be stored and delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// After how long it is not delivered any more; `None` is the topic's own.
    pub ttl: Option<Duration>,
    /// For how long subscriptions do not receive it.
    pub delay: Duration,
    /// How urgent it is to subscriptions.
    pub priority: Priority,
    /// The only offset at which it is to be stored, if there is one.
    pub expected: Option<Offset>,
}

/// A message with where it is to go, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Submission {
    /// Who hands it in.
    pub source: Source,
    /// The topic; it is made when it does not exist.
    pub topic: TopicName,
    /// The message.
    pub draft: Draft,
    /// The terms.
    pub terms: Terms,
}

/// Everything of a message but its payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The same id again, within the window, is the same message.
    pub id: MessageId,
    /// Messages of one key stay in order; without a key the producer decides the partition, and
    /// without one the id.
    pub key: Option<String>,
    /// Its number, where its producer numbers its messages: the same again is the same message.
    pub sequence: Option<Sequence>,
    /// The media type of the payload, where the client said one.
    pub content_type: Option<String>,
    /// Headers in the order in which they came.
    pub headers: Vec<(String, String)>,
}

/// An entry that is not a message: what the partition's own log says about the partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Note {
    /// A leader's first entry in its epoch; until it is committed nothing is acknowledged.
    Start {
        /// The leader.
        leader: DiskId,
        /// The run of it.
        boot: Boot,
    },
    /// Where a subscription begins in this partition.
    CursorFixed {
        /// The subscription.
        subscription: SubscriptionId,
        /// The change that made it.
        created: ChangeIndex,
        /// The first offset that it is to receive.
        at: Offset,
    },
    /// A subscription is gone, and its cursor with it.
    CursorDropped {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// What a subscription has acknowledged since the last time.
    Progress {
        /// The subscription.
        subscription: SubscriptionId,
        /// Runs of messages, ascending, each from its first to before its last.
        acked: Vec<(Offset, Offset)>,
    },
    /// Messages that will be delivered again, committed before they are.
    Attempts {
        /// The subscription.
        subscription: SubscriptionId,
        /// The messages.
        attempts: Vec<Attempt>,
    },
    /// The oldest messages are gone.
    Trim {
        /// The first offset that stays.
        below: Offset,
    },
}

/// A message that will be delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The message.
    pub offset: Offset,
    /// The number of the delivery that follows: 2 or more.
    pub number: u32,
    /// Cluster time before which it does not come.
    pub due: WallTime,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A message.
    Message(Draft),
    /// Something about the partition.
    Note(Note),
}

/// Where and when an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The epoch of the leader that made it.
    pub epoch: Epoch,
    /// Its position in the log.
    pub index: EntryIndex,
    /// A message's offset; for a note, the offset that the next message will have.
    pub offset: Offset,
    /// Cluster time when it was made, never less than the entry before.
    pub time: WallTime,
    /// Whether it is a message.
    pub is_message: bool,
    /// What decides when a message is delivered; a note has the defaults.
    pub timing: Timing,
}

/// What decides when a message is delivered, in cluster time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Subscriptions do not receive it before.
    pub due: WallTime,
    /// Nobody receives it from then on.
    pub expires: Option<WallTime>,
    /// How urgent it is.
    pub priority: Priority,
}

impl Timing {
    /// The timing of a message that is stored at `time`, on these terms in a topic with this TTL.
    #[must_use]
    pub fn of(terms: &Terms, topic_ttl: Option<Duration>, time: WallTime) -> Self {
        let after = |span: Duration| {
            let millis = u64::try_from(span.as_millis()).unwrap_or(NUMBER_MAX);
            WallTime(time.0.saturating_add(millis).min(NUMBER_MAX))
        };
        let due = if terms.delay.is_zero() { WallTime(0) } else { after(terms.delay) };
        Self { due, expires: terms.ttl.or(topic_ttl).map(after), priority: terms.priority }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: WallTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Why bytes are not the entry that should stand there. They are not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Fewer bytes than a header, or more than [`RECORD_BYTES_MAX`].
    #[error("an entry of {0} bytes")]
    Length(usize),
    /// A newer version of the program wrote it.
    #[error("entry format {0}; this build reads up to format {FORMAT}")]
    Format(u8),
    /// The checksum over partition, place and bytes does not match.
    #[error("checksum mismatch: the bytes are not the ones that were written here")]
    Checksum,
    /// An unknown kind, a number beyond [`NUMBER_MAX`](crate::ids::NUMBER_MAX), or a body that
    /// does not spell one.
    #[error("malformed body: {0}")]
    Malformed(String),
}

impl From<BadNumber> for BadEntry {
    fn from(error: BadNumber) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<BadFrame> for BadEntry {
    fn from(error: BadFrame) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// An entry in its encoded form: sealed once, then shared by disk, memory and readers.
///
/// Invariants, checked by [`Record::open`] on every path from the disk: the header is that of the
/// bytes, and the checksum holds for the partition that it was sealed for or opened under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    header: Header,
    bytes: Bytes,
}

impl Record {
    /// Encodes an entry for its place and seals it with the checksum. The one copy of a payload.
    ///
    /// # Panics
    ///
    /// When the entry exceeds [`RECORD_BYTES_MAX`]: requests are bounded long before.
    #[must_use]
    pub fn seal(partition: PartitionId, header: Header, body: &Body) -> Self {
        Self::seal_in(&mut BytesMut::new(), partition, header, body)
    }

    /// Does the same in memory that entries share which are made together, and go together: as
    /// long as one of them is held, so is the memory of all. What does not fit has its own.
    pub(crate) fn seal_in(
        room: &mut BytesMut,
        partition: PartitionId,
        header: Header,
        body: &Body,
    ) -> Self {
        let about = match body {
            Body::Message(draft) => draft.bytes_about(),
            Body::Note(_) => NOTE_BYTES_ABOUT,
        };
        let shared = room.capacity() >= about;
        let mut own = if shared { BytesMut::new() } else { BytesMut::with_capacity(about) };
        let bytes = if shared { room } else { &mut own };
        Self::write(bytes, partition, &header, body);
        Self { header, bytes: bytes.split().freeze() }
    }

    /// Writes an entry into memory that holds nothing else.
    fn write(bytes: &mut BytesMut, partition: PartitionId, header: &Header, body: &Body) {
        let kind = if header.is_message { KIND_MESSAGE } else { KIND_NOTE };
        bytes.extend_from_slice(&[FORMAT, kind, 0, 0, 0, 0]);
        let Timing { due, expires, priority } = header.timing;
        let expires = expires.unwrap_or_default();
        let Header { epoch, index, offset, time, .. } = header;
        for number in [epoch.0, index.0, offset.0, time.0, due.0, expires.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[priority.number()]);
        bytes.extend_from_slice(&[0; 4]);
        match body {
            Body::Message(draft) => wire::encode_behind(&draft.envelope, bytes),
            Body::Note(note) => wire::encode_behind(note, bytes),
        }
        let frame_bytes = bytes.len() - HEADER_BYTES - 4;
        let frame_bytes = u32::try_from(frame_bytes).expect("a frame is shorter than 4 GiB");
        bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&frame_bytes.to_le_bytes());
        match body {
            Body::Message(draft) => {
                assert!(header.is_message, "the header is that of the body");
                bytes.extend_from_slice(&draft.payload);
            }
            Body::Note(_) => assert!(!header.is_message, "the header is that of the body"),
        }
        assert!(bytes.len() <= RECORD_BYTES_MAX, "an entry of {} bytes", bytes.len());
        let checksum = checksum(partition, bytes);
        bytes[2..6].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Checks bytes that claim to be an entry of `partition`.
    ///
    /// # Errors
    ///
    /// [`BadEntry`]; whatever the bytes are, it does not panic and believes none of them before
    /// the checksum holds.
    pub fn open(partition: PartitionId, bytes: Bytes) -> Result<Self, BadEntry> {
        if !(HEADER_BYTES + 4..=RECORD_BYTES_MAX).contains(&bytes.len()) {
            return Err(BadEntry::Length(bytes.len()));
        }
        if bytes[0] != FORMAT {
            return Err(BadEntry::Format(bytes[0]));
        }
        let sealed = u32::from_le_bytes(array(&bytes, 2));
        if sealed != checksum(partition, &bytes)
            && !crate::zoo::planted(crate::zoo::Bug::ChecksumUnverified)
        {
            return Err(BadEntry::Checksum);
        }
        let is_message = match bytes[1] {
            KIND_MESSAGE => true,
            KIND_NOTE => false,
            other => return Err(BadEntry::Malformed(format!("kind {other}"))),
        };
        let number = |at| u64::from_le_bytes(array(&bytes, at));
        let time = |at| WallTime::try_from(number(at));
        let priority = Priority::new(bytes[54])
            .ok_or_else(|| BadEntry::Malformed(format!("priority {}", bytes[54])))?;
        let expires = Some(time(46)?).filter(|at| at.0 > 0);
        let header = Header {
            epoch: number(6).try_into()?,
            index: number(14).try_into()?,
            offset: number(22).try_into()?,
            time: time(30)?,
            is_message,
            timing: Timing { due: time(38)?, expires, priority },
        };
        Ok(Self { header, bytes })
    }

    /// Where and when the entry stands.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The encoded entry.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many bytes the entry takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// About how many bytes of memory the entry takes, with what keeps it there.
    pub(crate) fn footprint(&self) -> usize {
        self.bytes.len() + FOOTPRINT_BYTES
    }

    /// Whether the entry takes no bytes: never, it has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The checksum, which stands for the content in the hash chain.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        u32::from_le_bytes(array(&self.bytes, 2))
    }

    /// Reads what the entry says; a payload is a slice of the entry's own bytes.
    ///
    /// # Errors
    ///
    /// [`BadEntry::Malformed`] when a sealed entry was not made by [`Record::seal`].
    pub fn body(&self) -> Result<Body, BadEntry> {
        let frame_bytes = u32::from_le_bytes(array(&self.bytes, HEADER_BYTES)) as usize;
        let frame_start = HEADER_BYTES + 4;
        let frame_end = frame_start.saturating_add(frame_bytes);
        let frame = self
            .bytes
            .get(frame_start..frame_end)
            .ok_or_else(|| BadEntry::Malformed(format!("a frame of {frame_bytes} bytes")))?;
        if self.header.is_message {
            let payload = self.bytes.slice(frame_end..);
            Ok(Body::Message(Draft { envelope: wire::decode(frame)?, payload }))
        } else {
            Ok(Body::Note(wire::decode(frame)?))
        }
    }
}

/// Where a message's offset stands in an encoded entry, for stores that seek by offset.
///
/// `None` when the bytes cannot be an entry; the caller then reads it as damaged.
#[must_use]
pub fn peek_offset(bytes: &[u8]) -> Option<Offset> {
    let field = bytes.get(22..30)?;
    u64::from_le_bytes(field.try_into().ok()?).try_into().ok()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the length was checked")
}

fn checksum(partition: PartitionId, bytes: &[u8]) -> u32 {
    if crate::zoo::planted(crate::zoo::Bug::PlaceNotSealed) {
        // Without the partition, and without the index at 14.
        let head = crc32c::crc32c_append(crc32c::crc32c(&bytes[..2]), &bytes[6..14]);
        return crc32c::crc32c_append(head, &bytes[22..]);
    }
    let place = crc32c::crc32c(&partition.0.to_le_bytes());
    let head = crc32c::crc32c_append(place, &bytes[..2]);
    crc32c::crc32c_append(head, &bytes[6..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(7);

    fn sealed() -> Record {
        let header = Header {
            epoch: Epoch(1),
            index: EntryIndex(2),
            offset: Offset(3),
            time: WallTime(4),
            is_message: false,
            timing: Timing::default(),
        };
        Record::seal(PARTITION, header, &Body::Note(Note::Trim { below: Offset(3) }))
    }

    #[test]
    fn a_number_that_is_never_reached_is_damage_whatever_the_checksum_says() {
        for (at, number) in [6, 14, 22, 30, 38, 46].map(|at| (at, NUMBER_MAX + 1)) {
            let mut bytes = sealed().bytes().to_vec();
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            let good = checksum(PARTITION, &bytes);
            bytes[2..6].copy_from_slice(&good.to_le_bytes());
            let opened = Record::open(PARTITION, bytes.clone().into());
            assert_eq!(opened, Err(BadNumber(number).into()), "at {at}");
            assert_eq!(peek_offset(&bytes), (at != 22).then_some(Offset(3)), "at {at}");
        }
    }

    #[test]
    fn a_note_holds_no_such_number() {
        let header = *sealed().header();
        for bad in [u64::MAX, NUMBER_MAX + 1] {
            let note = Body::Note(Note::Trim { below: Offset(bad) });
            let body = Record::seal(PARTITION, header, &note).body();
            assert!(matches!(body, Err(BadEntry::Malformed(_))), "{body:?}");
        }
        let most = Body::Note(Note::Trim { below: Offset(NUMBER_MAX) });
        assert_eq!(Record::seal(PARTITION, header, &most).body(), Ok(most));
    }

    #[test]
    fn no_span_reaches_beyond_the_last_moment() {
        let terms = Terms { ttl: Some(Duration::MAX), delay: Duration::MAX, ..Terms::default() };
        let timing = Timing::of(&terms, None, WallTime(NUMBER_MAX - 1));
        assert_eq!(timing.due, WallTime(NUMBER_MAX));
        assert_eq!(timing.expires, Some(WallTime(NUMBER_MAX)));
    }
}
