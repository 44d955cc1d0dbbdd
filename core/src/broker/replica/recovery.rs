//! How a partition comes back from the disk: its stored state, then the entries after it.

use bytes::Bytes;

use super::Replica;
use super::entry::{BadEntry, Header, Record};
use super::filling::{Filling, Reached};
use super::producers::Producers;
use super::state::{State, Step, What, seems_hollow};
use crate::ids::{EntryIndex, IdHash, PartitionId};
use crate::machine::Unreadable;
use crate::zoo::{Bug, planted};

/// A recovery under way: feed it the entries from [`Recovery::from`] on, then take the result.
///
/// It reads a little before the state's applied index, because the dedup window is not stored but
/// read back from the entries that it remembers. Entries above the applied index are kept as not
/// yet committed: the leader that comes next decides, with its Start entry.
#[derive(Debug)]
pub struct Recovery {
    partition: PartitionId,
    state: State,
    next: EntryIndex,
    /// What the entry behind the state must follow: an epoch and a time, and its offset.
    follows: Reached,
    /// The last entry's, where that is one that the state was made from.
    filled: Option<Reached>,
    /// The first entry that is missing below the state, where the log goes on behind it.
    lacks: Option<EntryIndex>,
    steps: Vec<Step>,
    damaged: Option<Unreadable>,
}

impl Recovery {
    /// Begins with the stored state. One that does not verify is replaced by the whole log, where
    /// that was not given the state first: then nothing else knows what it lacks.
    #[must_use]
    pub fn begin(partition: PartitionId, checkpoint: Option<&[u8]>) -> Self {
        let opened = checkpoint.map(|bytes| (State::open(partition, bytes), seems_hollow(bytes)));
        let (stored, damaged) = match opened {
            None | Some((Err(_), false)) => (None, None),
            Some((Ok(stored), _)) => (Some(stored), None),
            Some((Err(error), true)) => {
                let (index, reason) = (EntryIndex(1), format!("the state before it: {error}"));
                (None, Some(Unreadable { partition, index, reason }))
            }
        };
        let (state, next) = stored.unwrap_or((State::default(), EntryIndex(1)));
        let follows = (state.epoch, state.end, state.time);
        let (filled, lacks, steps) = (None, None, Vec::new());
        Self { partition, state, next, follows, filled, lacks, steps, damaged }
    }

    /// The first entry that is wanted next.
    #[must_use]
    pub fn from(&self) -> EntryIndex {
        self.next
    }

    /// The disk does not give the next entry; what lies behind it is not wanted any more.
    pub fn damage(&mut self, unreadable: Unreadable) {
        self.damaged.get_or_insert(unreadable);
    }

    /// Takes the next entry; says whether more are wanted, which ends with the first damaged one.
    pub fn feed(&mut self, index: EntryIndex, bytes: Bytes) -> bool {
        if self.damaged.is_some() {
            return false;
        }
        let applied = self.state.applied;
        if self.state.is_hollow && self.next <= applied && index == applied.next() {
            // What follows the state is there, and some of what is older is not yet.
            (self.lacks, self.next) = (Some(self.next), index);
        }
        let step = if index == self.next {
            self.step(bytes)
        } else {
            Err(BadEntry::Malformed(format!("the log goes on at {index}: there is a hole")))
        };
        match step {
            Ok(step) => self.take(step),
            Err(error) => {
                let reason = error.to_string();
                let (partition, index) = (self.partition, self.next);
                self.damaged = Some(Unreadable { partition, index, reason });
            }
        }
        self.damaged.is_none()
    }

    fn step(&self, bytes: Bytes) -> Result<Step, BadEntry> {
        let record = Record::open(self.partition, bytes)?;
        if record.header().index != self.next {
            let found = record.header().index;
            return Err(BadEntry::Malformed(format!("it is entry {found}")));
        }
        self.follows(record.header())?;
        let mut step = Step::read(&record)?;
        if let What::Message(id, _, sequence) = &mut step.what {
            if planted(Bug::WindowNotRebuilt) {
                // An id that no client uses stands for one that was not read back.
                *id = IdHash(self.next.0.into());
            }
            if planted(Bug::ProducersNotRebuilt) {
                *sequence = None;
            }
        }
        Ok(step)
    }

    /// Checks that the entry continues the state, or the entries behind it.
    fn follows(&self, header: &Header) -> Result<(), BadEntry> {
        let (epoch, offset, time) = self.follows;
        let follows = header.epoch >= epoch && header.offset == offset && header.time >= time;
        if follows || header.index <= self.state.applied {
            return Ok(());
        }
        let Header { epoch, offset, time, .. } = header;
        let (time, last) = (time.0, self.follows);
        let found = format!("epoch {epoch}, offset {offset}, time {time} after {last:?}");
        Err(BadEntry::Malformed(found))
    }

    fn take(&mut self, step: Step) {
        self.next = step.index.next();
        if step.index > self.state.applied {
            self.follows = (step.epoch, step.end(), step.time);
            self.steps.push(step);
            return;
        }
        self.filled = Some((step.epoch, step.end(), step.time));
        self.state.window.remember(&step);
    }

    /// The partition as the disk holds it, with no role until a view gives it one.
    #[must_use]
    pub fn finish(mut self) -> Replica {
        let ends_before = self.next <= self.state.applied && self.damaged.is_none();
        if ends_before && self.state.is_hollow {
            self.lacks = Some(self.next);
        } else if ends_before {
            // The log ends before the state that was made from it.
            let reason = format!("the log ends before entry {}", self.state.applied);
            let (partition, index) = (self.partition, self.next);
            self.damaged = Some(Unreadable { partition, index, reason });
        }
        let filling = self.lacks.map(|next| {
            let window = std::mem::take(&mut self.state.window);
            Filling::new(next, self.filled, &self.state, window)
        });
        self.state.is_hollow = filling.is_some() || self.damaged.is_some() && self.state.is_hollow;
        self.state.window.advance(self.state.time);
        if planted(Bug::ProducersNotRebuilt) {
            self.state.producers = Producers::default();
        }
        Replica::recovered(self.partition, self.state, self.steps, self.damaged, filling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::replica::entry::{Body, Note, Timing};
    use crate::ids::{Epoch, Offset};
    use crate::machine::WallTime;

    const PARTITION: PartitionId = PartitionId(7);

    /// What is said about a log of two notes, each of this epoch, offset and time.
    fn damage(entries: [(u64, u64, u64); 2]) -> Option<String> {
        let mut recovery = Recovery::begin(PARTITION, None);
        for (epoch, offset, time) in entries {
            let header = Header {
                epoch: Epoch(epoch),
                index: recovery.from(),
                offset: Offset(offset),
                time: WallTime(time),
                is_message: false,
                timing: Timing::default(),
            };
            let body = Body::Note(Note::Trim { below: Offset(0) });
            let bytes = Record::seal(PARTITION, header, &body).bytes().clone();
            recovery.feed(recovery.from(), bytes);
        }
        recovery.finish().damaged().map(|unreadable| unreadable.reason.clone())
    }

    #[test]
    fn an_entry_that_does_not_follow_is_damage() {
        assert_eq!(damage([(1, 0, 5), (1, 0, 5)]), None);
        assert_eq!(damage([(1, 0, 5), (3, 0, 9)]), None);
        for bad in [[(1, 1, 5), (1, 1, 5)], [(1, 0, 5), (1, 1, 5)], [(2, 0, 5), (1, 0, 5)]] {
            assert!(damage(bad).is_some_and(|why| why.contains("after")), "{bad:?}");
        }
        assert!(damage([(1, 0, 5), (1, 0, 4)]).is_some());
    }

    #[test]
    fn a_state_that_does_not_verify_is_replaced_by_a_log_that_is_whole() {
        let recovered =
            |bytes: &[u8]| Recovery::begin(PARTITION, Some(bytes)).finish().damaged().is_none();
        let whole = State::default().checkpoint(PARTITION).bytes;
        let hollow = State::default().hollow(PARTITION).bytes;
        assert!(recovered(&whole) && recovered(&hollow));
        for at in 0..8 * whole.len() {
            let flipped = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                bytes[at / 8] ^= 1 << (at % 8);
                bytes
            };
            assert!(recovered(&flipped(&whole)), "bit {at}");
            assert!(!recovered(&flipped(&hollow)), "bit {at}");
        }
    }
}
