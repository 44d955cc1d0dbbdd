//! What a partition's committed entries have led to, and how it is stored.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::entry::{Note, Record};
use super::window::Window;
use crate::ids::{EntryIndex, Epoch, IdHash, Offset, PartitionId, SubscriptionId};
use crate::machine::{Digest, WallTime};
use crate::wire::{self, BadFrame};

/// A partition's state in its stored form, with a checksum of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The last entry whose consequences it contains.
    pub applied: EntryIndex,
    /// The stored form.
    pub bytes: Bytes,
}

/// What an entry does to the state when it is committed; made without the payload, so that the
/// entries that wait for their commit cost little.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) index: EntryIndex,
    pub(crate) epoch: Epoch,
    pub(crate) offset: Offset,
    pub(crate) time: WallTime,
    pub(crate) checksum: u32,
    pub(crate) what: What,
}

/// The part of a [`Step`] that differs between messages and notes.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Message(IdHash),
    Note(Note),
}

impl Step {
    /// The step of a sealed entry.
    pub(crate) fn of(record: &Record, what: What) -> Self {
        let header = record.header();
        Self {
            index: header.index,
            epoch: header.epoch,
            offset: header.offset,
            time: header.time,
            checksum: record.checksum(),
            what,
        }
    }
}

/// The state of a partition: changed by committed entries alone, each once, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) applied: EntryIndex,
    pub(crate) epoch: Epoch,
    pub(crate) time: WallTime,
    /// The offset that the next message gets.
    pub(crate) end: Offset,
    /// The hash chain over all entries up to `applied`.
    pub(crate) chain: u64,
    pub(crate) cursors: BTreeMap<SubscriptionId, Cursor>,
    pub(crate) window: Window,
}

/// The stored form of [`State`]: all but the window, which is read back from the log.
#[derive(Serialize, Deserialize)]
struct Stored {
    applied: EntryIndex,
    epoch: Epoch,
    time: WallTime,
    end: Offset,
    chain: u64,
    cursors: BTreeMap<SubscriptionId, Cursor>,
    window_first: Option<EntryIndex>,
}

impl State {
    /// Applies the next committed entry.
    pub(crate) fn apply(&mut self, step: &Step) {
        assert_eq!(step.index, self.applied.next(), "entries are applied in order");
        assert!(step.epoch >= self.epoch, "epochs do not fall: {step:?} after {}", self.epoch);
        assert_eq!(step.offset, self.end, "offsets are dense: {step:?}");
        self.applied = step.index;
        self.epoch = step.epoch;
        self.time = step.time;
        let mut chain = Digest::default();
        (self.chain, step.epoch, step.index, step.checksum).hash(&mut chain);
        self.chain = chain.finish();
        match &step.what {
            What::Message(id) => {
                self.end = step.offset.next();
                self.window.insert(*id, step.offset, step.time, step.index);
            }
            What::Note(note) => {
                self.window.advance(step.time);
                self.note(note);
            }
        }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Start { .. } => {}
            Note::CursorFixed { subscription, at } => {
                self.cursors.entry(subscription.clone()).or_insert_with(|| Cursor::at(*at));
            }
            Note::Progress { subscription, floor, above } => {
                if let Some(cursor) = self.cursors.get_mut(subscription) {
                    cursor.progress(*floor, above);
                }
            }
            Note::Attempts { subscription, attempts } => {
                if let Some(cursor) = self.cursors.get_mut(subscription) {
                    attempts.iter().for_each(|&(offset, number)| cursor.attempt(offset, number));
                }
            }
        }
    }

    /// The stored form, sealed for its partition.
    pub(crate) fn checkpoint(&self, partition: PartitionId) -> Checkpoint {
        let stored = Stored {
            applied: self.applied,
            epoch: self.epoch,
            time: self.time,
            end: self.end,
            chain: self.chain,
            cursors: self.cursors.clone(),
            window_first: self.window.first(),
        };
        let mut bytes = wire::encode(&stored);
        let checksum = checksum(partition, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Checkpoint { applied: self.applied, bytes: bytes.into() }
    }

    /// Reads a stored form back, and from which entry on the log completes it.
    pub(crate) fn open(
        partition: PartitionId,
        bytes: &[u8],
    ) -> Result<(Self, EntryIndex), BadCheckpoint> {
        let (frame, sealed) = bytes.split_last_chunk::<4>().ok_or(BadCheckpoint::Checksum)?;
        if u32::from_le_bytes(*sealed) != checksum(partition, frame) {
            return Err(BadCheckpoint::Checksum);
        }
        let stored: Stored = wire::decode(frame)?;
        let from = stored.window_first.unwrap_or(stored.applied.next());
        let state = Self {
            applied: stored.applied,
            epoch: stored.epoch,
            time: stored.time,
            end: stored.end,
            chain: stored.chain,
            cursors: stored.cursors,
            window: Window::default(),
        };
        Ok((state, from))
    }

    pub(crate) fn digest(&self, hash: &mut Digest) {
        (self.applied, self.epoch, self.time, self.end, self.chain).hash(hash);
        self.cursors.hash(hash);
        self.window.len().hash(hash);
    }
}

/// Why stored bytes are not a partition's state. The log replaces it where it is whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCheckpoint {
    #[error("checksum mismatch: the state is not the one that was stored")]
    Checksum,
    #[error(transparent)]
    Frame(#[from] BadFrame),
}

fn checksum(partition: PartitionId, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&partition.0.to_le_bytes()), frame)
}
