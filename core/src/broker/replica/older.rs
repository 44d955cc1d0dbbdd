//! What a replica does for the entries that are older than the state it was given: it asks whoever
//! has them for one piece after the other, the leader first. A shard asks for few at a time, and
//! for so many bytes a second, so that what has just been published does not wait for what is old.
//!
//! An entry is what it is by its epoch and index, and of what was committed the state knows both:
//! so it may come from any copy, also while nobody leads.

use std::time::Duration;

use bytes::Bytes;

use super::install::Place;
use super::leader::APPEND_BYTES_MAX;
use super::message::ReplicaMessage;
use super::replication::{Duty, Part, Replication, Scene};
use super::{Record, Replica};
use crate::ids::{DiskId, EntryIndex};
use crate::machine::{Store, Time, Unreadable};

/// How long it is from one look to the next whether it is this replica's turn to ask, at first and
/// at most.
const TURN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_600));
/// After what silence somebody else is asked, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(5));

/// What this replica asks for.
#[derive(Debug)]
pub(super) struct Older {
    /// The first entry of the piece that is asked for, while a question is under way.
    asked: Option<EntryIndex>,
    /// When to ask next, if nothing comes before.
    at: Time,
    /// How long an answer is waited for.
    wait: Duration,
    /// Whether none has come in time since the last piece.
    is_late: bool,
    /// How long it is to the next look whether it is its turn.
    turn: Duration,
    /// How many have been asked in vain: the next in turn is asked then.
    in_vain: usize,
    /// Held from the question on until what came is durable.
    place: Option<Place>,
}

impl Default for Older {
    fn default() -> Self {
        let (asked, at, is_late, in_vain, place) = (None, Time(0), false, 0, None);
        Self { asked, at, wait: AGAIN.0, is_late, turn: TURN.0, in_vain, place }
    }
}

impl Older {
    /// A piece came, and what comes next may be asked for when it is durable. Whoever is slow is
    /// waited for longer from now on.
    fn came(&mut self, now: Time) {
        let wait = if self.is_late { self.wait } else { AGAIN.0.max(self.wait / 2) };
        (self.asked, self.at, self.wait, self.is_late) = (None, now, wait, false);
    }

    /// It came to nothing: the next one is asked, at once as long as there is one that has not
    /// been.
    fn failed(&mut self, others: usize, now: Time) {
        (self.asked, self.place) = (None, None);
        self.in_vain += 1;
        let is_new = !self.in_vain.is_multiple_of(others.max(1));
        self.at = if is_new { now } else { now + self.wait };
        if !is_new {
            self.wait = (2 * self.wait).min(AGAIN.1);
        }
    }

    /// Nobody has answered: others have their turn before the next one is asked.
    fn nobody_answered(&mut self, now: Time) {
        (self.asked, self.place, self.is_late) = (None, None, true);
        self.in_vain += 1;
        self.wait = (2 * self.wait).min(AGAIN.1);
        self.at = now + TURN.0;
    }

    /// It is not its turn. The longer that is so, the less often it looks.
    fn waits(&mut self, now: Time) {
        self.at = now + self.turn;
        self.turn = (2 * self.turn).min(TURN.1);
    }
}

/// The first entry that is to be asked for: of a log that verifies, when all that came before is
/// durable.
fn missing(replica: &Replica) -> Option<EntryIndex> {
    let is_durable = |next: &EntryIndex| replica.filled().map(EntryIndex::next) == Some(*next);
    replica.lacks().filter(is_durable).filter(|_| replica.damaged().is_none())
}

impl Replication {
    /// Who may have what is missing: whoever leads, and then all others who are to have a copy.
    fn sources(&self, scene: &Scene<'_>) -> Vec<DiskId> {
        let Some(partition) = scene.view.partitions.get(&self.id) else { return Vec::new() };
        let is_there = |disk: &DiskId| *disk != self.me.0 && scene.view.is_up(*disk);
        let mut sources: Vec<DiskId> =
            partition.replicas.iter().copied().filter(is_there).collect();
        sources.sort_by_key(|disk| *disk != partition.leader);
        sources
    }

    /// Asks for what is missing next, unless it is asked for, or is on its way to the disk.
    pub(super) fn ask_older(&mut self, scene: &mut Scene<'_>) {
        let replica = &*scene.replica;
        if !replica.is_filling() || replica.damaged().is_some() || self.leads() {
            // Whoever leads lacks nothing; and nothing goes behind what is damaged.
            self.older = Older::default();
            return;
        }
        let Some(from) = missing(replica).filter(|_| self.older.at <= scene.now) else { return };
        if self.older.asked.is_some() {
            return self.older.nobody_answered(scene.now);
        }
        self.older.place = None;
        let sources = self.sources(scene);
        let (place, turn) = (scene.images.to_fill(scene.now), self.older.in_vain);
        let (Some(&to), Some(place)) = (sources.get(turn % sources.len().max(1)), place) else {
            return self.older.waits(scene.now);
        };
        let at = scene.now + self.older.wait;
        (self.older.asked, self.older.at, self.older.turn) = (Some(from), at, TURN.0);
        self.older.place = Some(place);
        let bytes_max = self.thresholds.older_bytes;
        let (partition, message) = (self.id, ReplicaMessage::Lacks { from, bytes_max });
        scene.duties.push(Duty::Send { partition, to, message });
    }

    /// When to ask again.
    pub(super) fn asks_at(&self, replica: &Replica) -> Option<Time> {
        missing(replica).map(|_| self.older.at)
    }

    /// Another replica lacks what is from there on.
    pub(super) fn lacked(
        &mut self,
        to: DiskId,
        (from, bytes_max): (EntryIndex, u32),
        scene: &mut Scene<'_>,
    ) {
        let (partition, replica) = (self.id, &*scene.replica);
        let is_whole = replica.damaged().is_none() && !replica.is_filling();
        let known = scene.view.partitions.get(&partition);
        if !known.is_some_and(|known| known.replicas.contains(&to)) {
            return;
        }
        if !is_whole || from > replica.persisted() {
            return self.give_older(to, from, Vec::new(), scene);
        }
        self.older_reads.insert(to, from);
        let bytes_max = APPEND_BYTES_MAX.min(bytes_max as usize);
        scene.duties.push(Duty::Read { partition, to, from, bytes_max, is_older: true });
    }

    /// What was read for another replica; `false` where it was not read for that.
    pub(super) fn older_read(
        &mut self,
        (to, from): (DiskId, EntryIndex),
        result: &Result<Vec<Record>, Unreadable>,
        scene: &mut Scene<'_>,
    ) -> bool {
        if self.older_reads.get(&to) != Some(&from) {
            return false;
        }
        self.older_reads.remove(&to);
        match result {
            Ok(records) => {
                let is_there = records.first().is_some_and(|one| one.header().index == from);
                let records = records.iter().filter(|_| is_there);
                self.give_older(to, from, records.map(|one| one.bytes().clone()).collect(), scene);
                if let Part::Leader(leader) = &mut self.part
                    && !is_there
                    && leader.knows_lack(to, from)
                {
                    leader.older_gone(to, scene);
                }
            }
            Err(damage) => {
                self.give_older(to, from, Vec::new(), scene);
                if damage.index > EntryIndex(0) {
                    self.finds_damage(damage.clone(), scene);
                }
            }
        }
        true
    }

    fn give_older(&self, to: DiskId, from: EntryIndex, records: Vec<Bytes>, scene: &mut Scene<'_>) {
        let (partition, message) = (self.id, ReplicaMessage::Older { from, records });
        scene.duties.push(Duty::Send { partition, to, message });
    }

    /// Another replica's answer to what this one lacks, from some entry on.
    pub(super) fn take_older(
        &mut self,
        by: DiskId,
        (from, records): (EntryIndex, Vec<Bytes>),
        scene: &mut Scene<'_>,
    ) {
        if self.older.asked != Some(from) {
            // Somebody was slow, and another one has answered meanwhile.
            return;
        }
        let partition = scene.view.partitions.get(&self.id);
        let is_leader = partition.is_some_and(|one| one.led_by() == Some(by));
        let bytes = records.iter().map(Bytes::len).sum();
        scene.images.filled(bytes, self.thresholds.older_rate, scene.now);
        let fresh = self.admit(records, |record| {
            let is_wanted = scene.replica.is_wanted(record.header().index);
            if is_wanted { scene.replica.fill(record, is_leader).map(|()| true) } else { Ok(false) }
        });
        if fresh.is_empty() {
            let others = self.sources(scene).len();
            self.older.failed(others, scene.now);
            self.ask_older(scene);
        } else {
            self.older.came(scene.now);
            self.store(Store::of(self.id), fresh, scene);
        }
    }
}
