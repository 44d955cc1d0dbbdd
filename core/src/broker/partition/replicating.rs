//! What joins a partition to its replication: entries go to the disk and to the other replicas by
//! it, and what it has committed is applied and answered here.

use super::Partition;
use crate::broker::desk::Desk;
use crate::broker::replica::message::ReplicaMessage;
use crate::broker::replica::{Duty, Note, Record, Replication, Scene, What};
use crate::cluster::message::{Complaint, LogEnd};
use crate::cluster::metadata::Member;
use crate::ids::{Boot, DiskId, EntryIndex};
use crate::machine::{Refused, Report, ShardEffect, Store, Unreadable};
use crate::zoo::{Bug, planted};

/// How many bytes of a partition wait for its followers at most; publishes beyond are refused.
const UNCOMMITTED_BYTES_MAX: usize = 8 << 20;

impl Partition {
    /// Has the replication do something, and does what it wants done.
    fn replicate(
        &mut self,
        desk: &mut Desk<'_>,
        work: impl FnOnce(&mut Replication, &mut Scene<'_>),
    ) {
        let led = self.replication.leads();
        let bench = &mut *desk.bench;
        let (now, view, replica) = (desk.now.since_start, &*bench.view, &mut self.replica);
        let (duties, images) = (&mut bench.duties, &mut bench.images);
        let mut scene = Scene { now, view, replica, duties, images };
        work(&mut self.replication, &mut scene);
        bench.ledger.cached -= self.replication.take_freed();
        let mut duties = std::mem::take(&mut bench.duties);
        duties.drain(..).for_each(|duty| self.perform(duty, desk));
        desk.bench.duties = duties;
        if led && !self.replication.leads() {
            self.stop_leading(desk);
        }
    }

    fn perform(&mut self, duty: Duty, desk: &mut Desk<'_>) {
        match duty {
            Duty::Send { partition, to, message } => {
                // Who is not known does not count either.
                let node = desk.bench.view.nodes.get(&to);
                if let Some(address) = node.map(|node| node.address) {
                    desk.effects.push(ShardEffect::Tell { to, address, partition, message });
                }
            }
            Duty::Store(store) => {
                self.account(&store, desk);
                desk.effects.push(ShardEffect::Store(store));
            }
            Duty::Read { partition, to, from, bytes_max, is_older } => {
                desk.scan((partition, to, is_older), from, bytes_max);
            }
            Duty::Propose(adjustment) => {
                desk.effects.push(ShardEffect::Report(Report::Adjust(adjustment)));
            }
            Duty::Complain(complaint) => {
                desk.effects.push(ShardEffect::Report(Report::Complaint(complaint)));
            }
        }
    }

    /// Enters what goes to the disk into the shard's accounts.
    fn account(&mut self, store: &Store, desk: &mut Desk<'_>) {
        if let Some(last) = store.cut_after {
            while let Some((_, bytes)) = self.unsynced.pop_back_if(|(at, _)| *at > last) {
                desk.bench.ledger.in_flight -= bytes;
            }
            while let Some((_, bytes)) = self.uncommitted.pop_back_if(|(at, _)| *at > last) {
                self.uncommitted_bytes -= bytes;
                desk.bench.ledger.uncommitted -= bytes;
            }
        }
        // What is older than a state that was given is kept nowhere but on the disk.
        let (commit, records) = (self.replica.commit(), store.records.iter());
        for record in records.filter(|record| record.header().index > commit) {
            let entry = (record.header().index, record.len());
            desk.account(self.view.id, record);
            self.unsynced.push_back(entry);
            self.uncommitted.push_back(entry);
            self.uncommitted_bytes += entry.1;
        }
    }

    /// Hands entries of this leader's to the disk and to the followers.
    pub(super) fn write(&mut self, records: Vec<Record>, desk: &mut Desk<'_>) {
        self.replicate(desk, |replication, scene| replication.appended(records, scene));
        self.answer_early(desk);
    }

    pub(super) fn write_notes(&mut self, notes: Vec<Note>, desk: &mut Desk<'_>) {
        if notes.is_empty() || !self.replica.leading() {
            return;
        }
        let append = |note| self.replica.append_note(note, desk.cluster_time);
        let records: Vec<Record> = notes.into_iter().map(append).collect();
        self.write(records, desk);
    }

    /// Stores the state, when nothing else takes it along.
    pub(super) fn store_state(&mut self, desk: &mut Desk<'_>) {
        self.replicate(desk, |replication, scene| replication.store_state(scene));
    }

    /// Whether no more can wait for the followers.
    pub(super) fn is_held_up(&self, desk: &Desk<'_>) -> bool {
        self.uncommitted_bytes >= UNCOMMITTED_BYTES_MAX || desk.is_held_up()
    }

    /// A view may give this node another part, or another set to count with.
    pub(super) fn follow_view(&mut self, (me, _): (DiskId, Boot), desk: &mut Desk<'_>) {
        let time = desk.cluster_time;
        self.replicate(desk, |replication, scene| replication.adopt(time, scene));
        let is_led_here = self.view.led_by() == Some(me) && self.view.replicas.len() > 1;
        let fills = self.replica.is_filling() && !planted(Bug::TailMayLead);
        if is_led_here && (self.replica.damaged.is_some() || fills) {
            let (partition, epoch) = (self.view.id, self.view.epoch);
            let complaint = Complaint::Damaged { partition, epoch, member: me };
            desk.effects.push(ShardEffect::Report(Report::Complaint(complaint)));
        }
        self.go_on(desk);
    }

    /// The disk holds what was to be stored, up to this number.
    pub(crate) fn stored(&mut self, number: u64, desk: &mut Desk<'_>) {
        self.replicate(desk, |replication, scene| replication.stored(number, scene));
        let persisted = self.replica.persisted();
        while let Some((_, bytes)) = self.unsynced.pop_front_if(|(at, _)| *at <= persisted) {
            desk.bench.ledger.in_flight -= bytes;
        }
        self.go_on(desk);
    }

    /// Another node's replica says something.
    pub(crate) fn received(
        &mut self,
        from: (DiskId, Boot),
        message: ReplicaMessage,
        desk: &mut Desk<'_>,
    ) {
        self.replicate(desk, |replication, scene| replication.received(from, message, scene));
        self.go_on(desk);
    }

    /// Entries were read for a follower.
    pub(super) fn entries_read(
        &mut self,
        place: (DiskId, EntryIndex),
        result: Result<Vec<Record>, Unreadable>,
        desk: &mut Desk<'_>,
    ) {
        desk.counters().unreadable += u64::from(result.is_err());
        self.replicate(desk, |replication, scene| replication.read_done(place, result, scene));
        self.go_on(desk);
    }

    /// An entry cannot be read: where another replica may lead, that one is to, and whoever asked
    /// asks again.
    pub(super) fn finds_damage(&mut self, damage: Unreadable, desk: &mut Desk<'_>) -> Refused {
        desk.counters().unreadable += 1;
        let (view, (me, _)) = (&desk.bench.view, self.replication.me());
        let may_lead = |one: &Member| one.disk != me && one.is_electable() && view.is_live(one);
        if planted(Bug::DamageKeptToItself) {
            return Refused::Damaged(damage);
        }
        let is_led_elsewhere = self.view.led_by().is_some_and(|leader| leader != me);
        if !self.replication.leads() && is_led_elsewhere {
            return Refused::NotReady;
        }
        // Of no entry in particular, it is the disk that did not read this time.
        let is_an_entry = damage.index > EntryIndex(0);
        if !is_an_entry || !self.replication.leads() || !self.view.in_sync.iter().any(may_lead) {
            return Refused::Damaged(damage);
        }
        self.replicate(desk, |replication, scene| replication.finds_damage(damage, scene));
        Refused::NotReady
    }

    /// The time has come that the replication has named.
    pub(super) fn replication_woke(&mut self, desk: &mut Desk<'_>) {
        self.replicate(desk, |replication, scene| replication.woke(scene));
        self.go_on(desk);
    }

    /// What this partition's log ends with here.
    pub(crate) fn log_end(&self) -> LogEnd {
        self.replication.log_end(&self.replica)
    }

    /// Applies and answers what is committed, and begins what follows from it.
    fn go_on(&mut self, desk: &mut Desk<'_>) {
        if self.replication.leads() {
            self.apply(desk);
            self.answer_early(desk);
        } else {
            // What was appended here in an earlier reign, and the leader has committed.
            self.answer_firsts(self.replica.commit(), desk);
        }
        let commit = self.replica.commit();
        while let Some((_, bytes)) = self.uncommitted.pop_front_if(|(at, _)| *at <= commit) {
            self.uncommitted_bytes -= bytes;
            desk.bench.ledger.uncommitted -= bytes;
        }
        if self.replica.store_due() {
            self.store_state(desk);
        }
        self.plan_retention(desk);
    }

    fn apply(&mut self, desk: &mut Desk<'_>) {
        let commit = self.replication.commit();
        while let Some(step) = self.replica.advance_to(commit) {
            let begins = matches!(step.what, What::Note(Note::Start { .. }));
            self.committed(&step, desk);
            // Before what comes after: it is judged by what was there before.
            if begins && self.replica.serving() {
                self.begin_serving(desk);
            }
        }
        if self.replica.serving() {
            self.answer_repeats(desk);
            self.answer_fetches(desk);
            self.answer_trims(desk);
        }
        self.start_burials(desk);
    }

    /// Another node leads, or nobody: what was appended here waits until that one has committed it
    /// or something else in its place, and who waited for messages asks elsewhere.
    fn stop_leading(&mut self, desk: &mut Desk<'_>) {
        self.publishes.abandon_repeats(desk);
        self.abandon_trims(desk);
        for fetch in std::mem::take(&mut self.fetches).into_values() {
            desk.refuse(fetch.reply, Refused::NotReady);
        }
        self.deliveries.stop();
        self.retention = super::retention::Retention::default();
    }
}
