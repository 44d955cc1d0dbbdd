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

/// How long it is from one look to the next whether it is this replica's turn to ask.
const TURN: Duration = Duration::from_millis(50);
/// After what silence somebody else is asked, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(5));

/// The question that is under way, if one is.
#[derive(Debug)]
pub(super) struct Older {
    /// When to ask next, if nothing comes before.
    at: Time,
    wait: Duration,
    /// How many have been asked in vain: the next in turn is asked then.
    in_vain: usize,
    /// Held while a question is under way.
    place: Option<Place>,
}

impl Default for Older {
    fn default() -> Self {
        Self { at: Time(0), wait: AGAIN.0, in_vain: 0, place: None }
    }
}

impl Older {
    /// A piece came, and what comes next may be asked for when it is durable.
    fn came(&mut self, now: Time) {
        *self = Self { at: now, in_vain: self.in_vain, ..Self::default() };
    }

    /// Nothing came of it: the next one is asked, at once as long as there is one that has not
    /// been.
    fn failed(&mut self, others: usize, now: Time) {
        self.in_vain += 1;
        self.place = None;
        let is_new = !self.in_vain.is_multiple_of(others.max(1));
        self.at = if is_new { now } else { now + self.wait };
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
        if !scene.replica.is_filling() || self.leads() {
            // Whoever leads lacks nothing.
            self.older = Older::default();
            return;
        }
        let Some(from) = missing(scene.replica).filter(|_| self.older.at <= scene.now) else {
            return;
        };
        let sources = self.sources(scene);
        if self.older.place.take().is_some() {
            self.older.in_vain += 1;
            self.older.wait = (2 * self.older.wait).min(AGAIN.1);
        }
        let (place, turn) = (scene.images.to_fill(scene.now), self.older.in_vain);
        let (Some(&to), Some(place)) = (sources.get(turn % sources.len().max(1)), place) else {
            self.older.at = scene.now + TURN;
            return;
        };
        (self.older.at, self.older.place) = (scene.now + self.older.wait, Some(place));
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
            return self.give_older(to, Vec::new(), scene);
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
                match &mut self.part {
                    // What it lacks was removed here.
                    Part::Leader(leader) if !is_there && leader.knows_lack(to, from) => {
                        leader.gone(to, scene);
                    }
                    Part::Leader(_) | Part::Follower(_) | Part::None => {
                        let records = records.iter().filter(|_| is_there);
                        let records = records.map(|record| record.bytes().clone());
                        self.give_older(to, records.collect(), scene);
                    }
                }
            }
            Err(damage) => {
                self.give_older(to, Vec::new(), scene);
                if damage.index > EntryIndex(0) {
                    self.finds_damage(damage.clone(), scene);
                }
            }
        }
        true
    }

    fn give_older(&self, to: DiskId, records: Vec<Bytes>, scene: &mut Scene<'_>) {
        let (partition, message) = (self.id, ReplicaMessage::Older { records });
        scene.duties.push(Duty::Send { partition, to, message });
    }

    /// Another replica's answer to what this one lacks.
    pub(super) fn take_older(&mut self, from: DiskId, records: Vec<Bytes>, scene: &mut Scene<'_>) {
        let partition = scene.view.partitions.get(&self.id);
        let is_leader = partition.is_some_and(|one| one.led_by() == Some(from));
        let bytes = records.iter().map(Bytes::len).sum();
        scene.images.filled(bytes, self.thresholds.older_rate, scene.now);
        let fresh = self.admit(records, |record| {
            let is_wanted = scene.replica.is_wanted(record.header().index);
            if is_wanted { scene.replica.fill(record, is_leader).map(|()| true) } else { Ok(false) }
        });
        if !fresh.is_empty() {
            self.older.came(scene.now);
            self.store(Store::of(self.id), fresh, scene);
        } else if self.older.place.is_some() {
            let others = self.sources(scene).len();
            self.older.failed(others, scene.now);
            self.ask_older(scene);
        }
    }
}
