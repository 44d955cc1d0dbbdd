//! A replica that was given its state before the entries that the state was made from: until it has
//! those that are retained, or that the dedup window is read back from, its log has two parts. What
//! follows the state goes on like any other log; what is older is filled, from its first entry on.
//! It leads nothing, and counts as a tail at most.

use super::entry::{BadEntry, Record};
use super::state::{State, Step};
use super::window::Window;
use super::{Checkpoint, Replica};
use crate::ids::{EntryIndex, Epoch, Offset, PartitionId};
use crate::machine::WallTime;
use crate::zoo::{Bug, planted};

/// What an entry has led to: its epoch, the end of the log behind it, and its time.
pub(super) type Reached = (Epoch, Offset, WallTime);

/// How far the older part of such a log is.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    /// The entry that comes next.
    next: EntryIndex,
    /// What it must not be before.
    follows: Option<Reached>,
    /// The last entry that the state was made from, and what it has led to.
    until: (EntryIndex, Reached),
    /// The last entry that is durable; the one before the first where there is none.
    durable: EntryIndex,
    /// What the older entries bring to the dedup window.
    window: Window,
}

impl Filling {
    /// The older part of a log, which has everything from where it begins to before `next`, under
    /// the state that it is to lead to; `window` is what is remembered of it.
    pub(super) fn new(
        next: EntryIndex,
        follows: Option<Reached>,
        state: &State,
        window: Window,
    ) -> Self {
        let until = (state.applied, (state.epoch, state.end, state.time));
        Self { next, follows, until, durable: EntryIndex(next.0 - 1), window }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let Self { next, until: (until, _), durable, .. } = self;
        if durable >= next || *next > until.next() {
            return Err(format!(
                "filled to {durable} durably, next {next}, to be filled to {until}"
            ));
        }
        self.window.check()
    }
}

impl Replica {
    /// A replica that was given its state and nothing else: its log is to begin at `begins`.
    pub(super) fn installed(id: PartitionId, mut state: State, begins: EntryIndex) -> Self {
        let lacks_some = begins <= state.applied && !planted(Bug::RetainedNotCopied);
        state.is_hollow = lacks_some;
        let filling = lacks_some.then(|| Filling::new(begins, None, &state, Window::default()));
        Self::recovered(id, state, Vec::new(), None, filling)
    }

    /// The state to give to a replica that is to have it first.
    pub(super) fn image(&self) -> Checkpoint {
        Checkpoint { from: self.begins(), ..self.state.hollow(self.id) }
    }

    /// The first entry that is not durable below the state that was given, if one is not.
    #[must_use]
    pub fn lacks(&self) -> Option<EntryIndex> {
        self.filling.as_ref().map(|filling| filling.durable.next())
    }

    /// Whether the log lacks entries that the state was made from.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Whether this entry is one that is to be filled in.
    pub(super) fn is_wanted(&self, index: EntryIndex) -> bool {
        let wants = |filling: &Filling| (filling.next..=filling.until.0).contains(&index);
        self.filling.as_ref().is_some_and(wants)
    }

    /// The last older entry that is there or on its way to the disk, while some are missing.
    pub(super) fn filled(&self) -> Option<EntryIndex> {
        self.filling.as_ref().map(|filling| EntryIndex(filling.next.0 - 1))
    }

    /// The first entry that a replica has that lacks nothing: what is retained, and what the dedup
    /// window is read back from.
    #[must_use]
    pub fn begins(&self) -> EntryIndex {
        self.state.begins()
    }

    /// Takes the next entry that the state was made from. The leader has no other; what somebody
    /// else has is known by its epoch.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when it does not follow the last one, or is not what the state was made from;
    /// then nothing was taken.
    pub(super) fn fill(&mut self, record: &Record, of_leader: bool) -> Result<(), BadEntry> {
        let malformed = |what| Err(BadEntry::Malformed(format!("{:?}: {what}", record.header())));
        let Some(filling) = &mut self.filling else { return malformed("nothing is missing") };
        let header = record.header();
        let step = Step::read(record)?;
        let reached = (step.epoch, step.end(), step.time);
        let follows = filling.follows.is_none_or(|(epoch, end, time)| {
            header.epoch >= epoch && header.offset == end && header.time >= time
        });
        let is_its = match self.state.epochs.at(header.index) {
            Some(epoch) => epoch == header.epoch,
            None => of_leader,
        };
        let (until, leads_to) = filling.until;
        if header.index != filling.next || !follows {
            return malformed("it does not follow what is there");
        }
        if !is_its || header.index > until || header.index == until && reached != leads_to {
            return malformed("the state was not made from it");
        }
        filling.window.remember(&step);
        (filling.next, filling.follows) = (header.index.next(), Some(reached));
        Ok(())
    }

    /// So much of the older part is durable: whole is what has all of it.
    pub(super) fn filled_to(&mut self, index: EntryIndex) {
        let Some(filling) = &mut self.filling else { return };
        filling.durable = index.max(filling.durable);
        if filling.durable < filling.until.0 {
            return;
        }
        let older = std::mem::take(&mut filling.window);
        let newer = std::mem::replace(&mut self.state.window, older);
        self.state.window.extend(newer);
        self.state.window.advance(self.state.time);
        self.state.is_hollow = false;
        self.filling = None;
        // The next start is not to look for what is missing.
        self.checkpointed.due = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::replica::entry::{Body, Header, Note, Timing};
    use crate::broker::replica::recovery::Recovery;

    const PARTITION: PartitionId = PartitionId(7);

    /// A note of the first epoch.
    fn note(index: u64, note: Note) -> Record {
        let header = Header {
            epoch: Epoch(1),
            index: EntryIndex(index),
            offset: Offset(0),
            time: WallTime(5),
            is_message: false,
            timing: Timing::default(),
        };
        Record::seal(PARTITION, header, &Body::Note(note))
    }

    #[test]
    fn what_fills_its_log_owes_no_state() {
        let trim = || Note::Trim { below: Offset(0) };
        let mut first = Recovery::begin(PARTITION, None);
        assert!((1..4).all(|at| first.feed(EntryIndex(at), note(at, trim()).bytes().clone())));
        let mut given = first.finish();
        given.apply_to(EntryIndex(3));
        assert!(given.store_due(), "something was removed");
        let mut replica = Replica::installed(PARTITION, given.state, EntryIndex(2));
        replica.take(&note(4, trim())).expect("it follows");
        replica.persist(EntryIndex(4));
        replica.apply_to(EntryIndex(4));
        // It could store none: this would be asked again and again.
        assert!(replica.is_filling() && !replica.store_due());
        for at in [2, 3] {
            replica.fill(&note(at, trim()), true).expect("it follows");
        }
        replica.filled_to(EntryIndex(3));
        assert!(!replica.is_filling() && replica.store_due());
    }
}
