//! How a partition comes back from the disk: its stored state, then the entries after it.

use bytes::Bytes;

use super::Replica;
use super::entry::{BadEntry, Body, Record};
use super::state::{State, Step, What};
use crate::ids::{EntryIndex, IdHash, PartitionId};
use crate::machine::Unreadable;

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
    steps: Vec<Step>,
    damaged: Option<Unreadable>,
}

impl Recovery {
    /// Begins with the stored state. A state that does not verify is replaced by the whole log.
    #[must_use]
    pub fn begin(partition: PartitionId, checkpoint: Option<&[u8]>) -> Self {
        let stored = checkpoint.and_then(|bytes| State::open(partition, bytes).ok());
        let (state, next) = stored.unwrap_or((State::default(), EntryIndex(1)));
        Self { partition, state, next, steps: Vec::new(), damaged: None }
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
        let what = match record.body()? {
            // Planted: an id that no client uses stands for one that was not read back.
            Body::Message(_) if crate::zoo::planted(crate::zoo::Bug::WindowNotRebuilt) => {
                What::Message(IdHash(self.next.0.into()), record.header().timing)
            }
            Body::Message(draft) => What::Message(draft.envelope.id.hash(), record.header().timing),
            Body::Note(note) => What::Note(note),
        };
        Ok(Step::of(&record, what))
    }

    fn take(&mut self, step: Step) {
        self.next = step.index.next();
        if step.index > self.state.applied {
            self.steps.push(step);
        } else if let What::Message(id, _) = step.what {
            self.state.window.insert(id, step.offset, step.time, step.index);
        }
    }

    /// The partition as the disk holds it, with no role until a view gives it one.
    #[must_use]
    pub fn finish(mut self) -> Replica {
        if self.next <= self.state.applied && self.damaged.is_none() {
            // The log ends before the state that was made from it.
            let reason = format!("the log ends before entry {}", self.state.applied);
            let (partition, index) = (self.partition, self.next);
            self.damaged = Some(Unreadable { partition, index, reason });
        }
        self.state.window.advance(self.state.time);
        Replica::recovered(self.partition, self.state, self.steps, self.damaged)
    }
}
