//! What a partition's committed entries have led to, and how it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::cursor::Cursor;
use super::entry::{BadEntry, Body, Note, Record, Timing};
use super::epochs::Epochs;
use super::producers::{Newest, PRODUCERS_MAX, Producers};
use super::window::Window;
use crate::ids::{
    EntryIndex, Epoch, IdHash, Offset, PartitionId, Priority, ProducerId, Sequence, SubscriptionId,
};
use crate::machine::{Digest, WallTime};
use crate::wire::{self, BadFrame};

/// How many messages of a partition wait for their delay at most; publishes beyond are refused.
pub const DELAYED_MAX: usize = 1_000_000;
/// How many messages a partition knows the priority of; beyond, the oldest are as any other.
pub const RANKED_MAX: usize = 100_000;

/// A partition's state in its stored form, with a checksum of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The last entry whose consequences it contains.
    pub applied: EntryIndex,
    /// The first entry that recovery wants beside it.
    pub from: EntryIndex,
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
    pub(crate) bytes: u32,
    pub(crate) what: What,
}

/// The part of a [`Step`] that differs between messages and notes.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Message(IdHash, Timing, Option<Sequence>),
    Note(Note),
}

impl Step {
    /// The step of an entry that came from a disk or from another node.
    pub(crate) fn read(record: &Record) -> Result<Self, BadEntry> {
        let what = match record.body()? {
            Body::Message(draft) => {
                let (id, sequence) = (draft.envelope.id.hash(), draft.envelope.sequence);
                What::Message(id, record.header().timing, sequence)
            }
            Body::Note(note) => What::Note(note),
        };
        Ok(Self::of(record, what))
    }

    /// The offset that the message after this entry gets.
    pub(crate) fn end(&self) -> Offset {
        match self.what {
            What::Message(..) => self.offset.next(),
            What::Note(_) => self.offset,
        }
    }

    /// The step of a sealed entry.
    pub(crate) fn of(record: &Record, what: What) -> Self {
        let header = record.header();
        Self {
            index: header.index,
            epoch: header.epoch,
            offset: header.offset,
            time: header.time,
            checksum: record.checksum(),
            bytes: record.len() as u32,
            what,
        }
    }
}

/// The state of a partition: changed by committed entries alone, each once, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) applied: EntryIndex,
    pub(crate) epoch: Epoch,
    /// Where each reign begins, up to `applied`.
    pub(crate) epochs: Epochs,
    pub(crate) time: WallTime,
    /// The first offset that is retained.
    pub(crate) start: Offset,
    /// The offset that the next message gets.
    pub(crate) end: Offset,
    /// The hash chain over all entries up to `applied`.
    pub(crate) chain: u64,
    pub(crate) cursors: BTreeMap<SubscriptionId, Cursor>,
    pub(crate) window: Window,
    pub(crate) producers: Producers,
    /// Messages that are not due at `time`, by the time when they are.
    pub(crate) delayed: BTreeSet<(WallTime, Offset)>,
    /// Messages that are not of normal priority, and that some cursor has yet to pass.
    pub(crate) ranked: BTreeMap<Offset, Priority>,
    pub(crate) blocks: Blocks,
    /// Entries that it was made from are missing in the log: it was given to this replica before
    /// them.
    pub(crate) is_hollow: bool,
}

/// The stored form of [`State`]: all but the window, which is read back from the log.
#[derive(Serialize, Deserialize)]
struct Stored {
    applied: EntryIndex,
    epoch: Epoch,
    epochs: Epochs,
    time: WallTime,
    start: Offset,
    end: Offset,
    chain: u64,
    cursors: BTreeMap<SubscriptionId, Cursor>,
    window_first: Option<EntryIndex>,
    producers: BTreeMap<ProducerId, Newest>,
    delayed: BTreeSet<(WallTime, Offset)>,
    ranked: BTreeMap<Offset, Priority>,
    blocks: Blocks,
}

/// What stands behind a stored state: whether its log may lack entries that it was made from. The
/// log alone does not say, so this is to be read even where the state does not verify.
const MARK_WHOLE: [u8; 8] = [0; 8];
const MARK_HOLLOW: [u8; 8] = [0xff; 8];

/// Splits a stored state into what its checksum is of, the mark at its end, and the checksum.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8; 8], u32)> {
    let (sealed, checksum) = bytes.split_last_chunk::<4>()?;
    let (_, mark) = sealed.split_last_chunk::<8>()?;
    Some((sealed, mark, u32::from_le_bytes(*checksum)))
}

/// Whether a state that does not verify was most likely stored as a hollow one, by most of the bits
/// of its mark.
pub(super) fn seems_hollow(bytes: &[u8]) -> bool {
    let ones = |mark: &[u8; 8]| u64::from_le_bytes(*mark).count_ones();
    split(bytes).is_none_or(|(_, mark, _)| ones(mark) > 32)
}

impl Stored {
    /// The first entry that recovery wants.
    fn from(&self) -> EntryIndex {
        self.window_first.unwrap_or(self.applied.next())
    }

    /// Checks what the rest of the program relies on and would end at, were it not so.
    fn check(&self) -> Result<(), String> {
        let begins = [self.window_first, self.blocks.first(), self.epochs.first()];
        let is_there = |index: &EntryIndex| (EntryIndex(1)..=self.applied).contains(index);
        if self.start > self.end || !begins.iter().flatten().all(is_there) {
            let Self { start, end, applied, .. } = self;
            return Err(format!("{start}..{end}, from entries {begins:?} to {applied}"));
        }
        let offsets = self.producers.values().map(|newest| newest.offset);
        let distinct: BTreeSet<Offset> = offsets.filter(|offset| *offset < self.end).collect();
        if distinct.len() != self.producers.len() || distinct.len() > PRODUCERS_MAX {
            return Err(format!("{} producers at {}", self.producers.len(), distinct.len()));
        }
        self.epochs.check()?;
        self.blocks.check()?;
        self.cursors.values().try_for_each(Cursor::check)
    }
}

impl State {
    /// Applies the next committed entry.
    pub(crate) fn apply(&mut self, step: &Step) {
        assert_eq!(step.index, self.applied.next(), "entries are applied in order");
        assert!(step.epoch >= self.epoch, "epochs do not fall: {step:?} after {}", self.epoch);
        assert_eq!(step.offset, self.end, "offsets are dense: {step:?}");
        self.applied = step.index;
        if step.epoch > self.epoch {
            self.epoch = step.epoch;
            self.epochs.push(step.epoch, step.index);
        }
        self.time = step.time;
        let mut chain = Digest::default();
        (self.chain, step.epoch, step.index, step.checksum).hash(&mut chain);
        self.chain = chain.finish();
        self.blocks.add(step.index, step.offset, step.time, step.bytes.into());
        self.window.remember(step);
        match &step.what {
            What::Message(_, timing, sequence) => {
                self.end = step.offset.next();
                sequence.iter().for_each(|one| self.producers.insert(one, step.offset));
                self.producers.forget();
                self.schedule(step.offset, timing);
            }
            What::Note(note) => self.note(note),
        }
        while self.delayed.first().is_some_and(|&(due, _)| due <= step.time) {
            self.delayed.pop_first();
        }
    }

    fn schedule(&mut self, offset: Offset, timing: &Timing) {
        if timing.due > self.time {
            self.delayed.insert((timing.due, offset));
        }
        if timing.priority != Priority::NORMAL {
            self.ranked.insert(offset, timing.priority);
            if self.ranked.len() > RANKED_MAX {
                self.ranked.pop_first();
            }
        }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Start { .. } => {}
            Note::CursorFixed { subscription, created, at } => {
                // What it was to begin with may have been removed before this was committed.
                let fixed = || Cursor::at(*created, (*at).max(self.start));
                let cursor = self.cursors.entry(subscription.clone()).or_insert_with(fixed);
                if cursor.created() < *created {
                    *cursor = fixed();
                }
            }
            Note::CursorDropped { subscription } => {
                self.cursors.remove(subscription);
            }
            Note::Progress { subscription, acked } => {
                if let Some(cursor) = self.cursors.get_mut(subscription) {
                    acked.iter().for_each(|&(first, end)| cursor.cover(first, end));
                }
                self.unrank();
            }
            Note::Attempts { subscription, attempts } => {
                if let Some(cursor) = self.cursors.get_mut(subscription) {
                    attempts.iter().for_each(|attempt| cursor.attempt(attempt));
                }
            }
            Note::Trim { below } => self.trim(*below),
        }
    }

    fn trim(&mut self, below: Offset) {
        let below = below.min(self.end);
        if below <= self.start {
            return;
        }
        self.start = below;
        self.blocks.trim(below);
        self.delayed.retain(|&(_, offset)| offset >= below);
        self.cursors.values_mut().for_each(|cursor| cursor.cover(Offset(0), below));
        self.ranked = self.ranked.split_off(&below);
    }

    /// Forgets the priority of what every cursor has passed.
    fn unrank(&mut self) {
        if let Some(floor) = self.cursors.values().map(Cursor::floor).min()
            && self.ranked.first_key_value().is_some_and(|(&offset, _)| offset < floor)
        {
            self.ranked = self.ranked.split_off(&floor);
        }
    }

    /// The stored form, sealed for its partition.
    pub(crate) fn checkpoint(&self, partition: PartitionId) -> Checkpoint {
        self.sealed(partition, self.is_hollow)
    }

    /// The stored form for a replica that has no entry of it yet.
    pub(crate) fn hollow(&self, partition: PartitionId) -> Checkpoint {
        self.sealed(partition, true)
    }

    /// The first entry that a replica has that lacks nothing: what is retained, and what the window
    /// is read back from.
    pub(crate) fn begins(&self) -> EntryIndex {
        let first = [self.blocks.first(), self.window.first()].into_iter().flatten().min();
        first.unwrap_or(self.applied.next())
    }

    fn sealed(&self, partition: PartitionId, is_hollow: bool) -> Checkpoint {
        let stored = Stored {
            applied: self.applied,
            epoch: self.epoch,
            epochs: self.epochs.clone(),
            time: self.time,
            start: self.start,
            end: self.end,
            chain: self.chain,
            cursors: self.cursors.clone(),
            window_first: self.window.first(),
            producers: self.producers.to_stored(),
            delayed: self.delayed.clone(),
            ranked: self.ranked.clone(),
            blocks: self.blocks.clone(),
        };
        let from = stored.from();
        let mut bytes = wire::encode(&stored);
        bytes.extend_from_slice(if is_hollow { &MARK_HOLLOW } else { &MARK_WHOLE });
        let checksum = checksum(partition, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Checkpoint { applied: self.applied, from, bytes: bytes.into() }
    }

    /// Reads a stored form back, and from which entry on the log completes it: that is where the
    /// window begins, and where it is to be seen what is missing, the first one that is retained.
    pub(crate) fn open(
        partition: PartitionId,
        bytes: &[u8],
    ) -> Result<(Self, EntryIndex), BadCheckpoint> {
        let (sealed, mark, sum) = split(bytes).ok_or(BadCheckpoint::Checksum)?;
        if sum != checksum(partition, sealed) {
            return Err(BadCheckpoint::Checksum);
        }
        let is_hollow = match *mark {
            MARK_HOLLOW => true,
            MARK_WHOLE => false,
            mark => return Err(BadCheckpoint::Contradiction(format!("the mark {mark:?}"))),
        };
        let stored: Stored = wire::decode(&sealed[..sealed.len() - mark.len()])?;
        stored.check().map_err(BadCheckpoint::Contradiction)?;
        let retained = stored.blocks.first().filter(|_| is_hollow);
        let from = retained.map_or(stored.from(), |retained| retained.min(stored.from()));
        let state = Self {
            applied: stored.applied,
            epoch: stored.epoch,
            epochs: stored.epochs,
            time: stored.time,
            start: stored.start,
            end: stored.end,
            chain: stored.chain,
            cursors: stored.cursors,
            window: Window::default(),
            producers: Producers::from_stored(stored.producers),
            delayed: stored.delayed,
            ranked: stored.ranked,
            blocks: stored.blocks,
            is_hollow,
        };
        Ok((state, from))
    }

    pub(crate) fn digest(&self, hash: &mut Digest) {
        (self.applied, self.epoch, self.time, self.start, self.end, self.chain).hash(hash);
        self.cursors.hash(hash);
        (self.delayed.len(), self.ranked.len(), self.blocks.bytes()).hash(hash);
        (self.window.len(), self.producers.len()).hash(hash);
    }
}

/// Why stored bytes are not a partition's state. The log replaces it where it is whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCheckpoint {
    #[error("checksum mismatch: the state is not the one that was stored")]
    Checksum,
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("the state contradicts itself: {0}")]
    Contradiction(String),
}

fn checksum(partition: PartitionId, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&partition.0.to_le_bytes()), frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChangeIndex, NUMBER_MAX};

    const PARTITION: PartitionId = PartitionId(7);

    #[track_caller]
    fn refused(change: impl FnOnce(&mut State)) -> BadCheckpoint {
        let mut state = State::default();
        change(&mut state);
        let stored = state.checkpoint(PARTITION).bytes;
        State::open(PARTITION, &stored).map(|(state, _)| state).expect_err("a state that cannot be")
    }

    #[test]
    fn a_number_that_is_never_reached_is_damage_whatever_the_checksum_says() {
        let beyond = NUMBER_MAX + 1;
        let cursor = Cursor::at(ChangeIndex(1), Offset(beyond));
        let of_frame = [
            refused(|state| state.applied = EntryIndex(beyond)),
            refused(|state| state.end = Offset(beyond)),
            refused(|state| state.time = WallTime(beyond)),
            refused(|state| state.epoch = Epoch(beyond)),
            refused(|state| state.delayed = [(WallTime(1), Offset(beyond))].into()),
            refused(|state| drop(state.cursors.insert("s".parse().expect("a name"), cursor))),
        ];
        for found in of_frame {
            assert!(matches!(found, BadCheckpoint::Frame(BadFrame::Malformed(_))), "{found:?}");
        }
    }

    #[test]
    fn a_subscription_begins_at_nothing_that_was_removed_meanwhile() {
        let subscription: SubscriptionId = "s".parse().expect("a name");
        let mut state = State { start: Offset(3), end: Offset(9), ..State::default() };
        let at = |at| Note::CursorFixed {
            subscription: subscription.clone(),
            created: ChangeIndex(at),
            at: Offset(at),
        };
        for (asked, floor) in [(2, 3), (5, 5)] {
            state.note(&at(asked));
            assert_eq!(state.cursors[&subscription].floor(), Offset(floor));
        }
    }

    #[test]
    fn a_state_that_contradicts_itself_is_damage() {
        let found = [
            refused(|state| state.start = Offset(1)),
            refused(|state| {
                let mut cursor = Cursor::at(ChangeIndex(1), Offset(5));
                cursor.contradict();
                state.cursors.insert("s".parse().expect("a name"), cursor);
            }),
            refused(|state| {
                for number in [2, 1] {
                    let (index, time) = (EntryIndex(number), WallTime(20_000 * number));
                    state.blocks.add(index, Offset(0), time, 1 << 20);
                }
            }),
        ];
        for found in found {
            assert!(matches!(found, BadCheckpoint::Contradiction(_)), "{found:?}");
        }
    }
}
