//! One partition in its shard: the replica, the requests that wait for it, the deliveries.

mod burying;
mod publishing;
mod reading;
mod replicating;
mod retention;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(super) use publishing::PUBLISH_WAIT;
use publishing::Publishes;
pub(super) use reading::{FETCHES_MAX, Fetch, Pulling};

use super::delivery::{AckToken, Deliveries, attempt_notes};
use super::desk::{Desk, Reading, ReplyTo};
use super::replica::{Evicted, Note, Replica, Replication, Step, What};
use crate::cluster::metadata;
use crate::cluster::subscription::{StartFrom, Subscription};
use crate::ids::{Boot, DiskId, EntryIndex, Offset, SubscriptionId};
use crate::machine::{
    Digest, DiskSpace, PartitionStatus, Refused, Report, ShardEffect, Time, Verdict,
};
use crate::zoo::{Bug, planted};

/// A partition that lives in this shard.
#[derive(Debug)]
pub(crate) struct Partition {
    view: Arc<metadata::Partition>,
    replica: Replica,
    deliveries: Deliveries,
    publishes: Publishes,
    /// Readers, by the time when to answer them with nothing.
    fetches: BTreeMap<(Time, ReplyTo), Fetch>,
    replication: Replication,
    /// Entries on their way to the disk, with their sizes.
    unsynced: VecDeque<(EntryIndex, usize)>,
    /// Entries that are not known to be committed, and their bytes.
    uncommitted: VecDeque<(EntryIndex, usize)>,
    uncommitted_bytes: usize,
    retention: retention::Retention,
    /// When the shard will wake it, at the latest when it wants to be woken.
    pub(super) timer: Option<Time>,
}

impl Partition {
    pub(crate) fn new(
        view: Arc<metadata::Partition>,
        replica: Replica,
        replication: Replication,
    ) -> Self {
        Self {
            replication,
            view,
            replica,
            deliveries: Deliveries::default(),
            publishes: Publishes::default(),
            fetches: BTreeMap::new(),
            unsynced: VecDeque::new(),
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            retention: retention::Retention::default(),
            timer: None,
        }
    }

    /// Acts on what a view says.
    pub(crate) fn adopt(
        &mut self,
        view: Arc<metadata::Partition>,
        me: (DiskId, Boot),
        desk: &mut Desk<'_>,
    ) {
        self.view = view;
        self.follow_view(me, desk);
    }

    /// Makes sure that a subscription has a cursor here, where it is to begin.
    pub(crate) fn fix_cursor(&mut self, subscription: &Subscription, desk: &mut Desk<'_>) {
        if !self.replica.leading() || self.has_cursor(subscription) || !desk.may_write() {
            return;
        }
        let at = match subscription.from {
            // A partition that came later is read from its first message, whatever was asked.
            _ if self.view.created > subscription.created => Offset(0),
            StartFrom::Latest if planted(Bug::LatestAtFirstPull) => {
                return self.report_fixed(subscription, desk);
            }
            StartFrom::Latest => self.replica.log_end(),
            StartFrom::Earliest => Offset(0),
            StartFrom::Offset(offset) => offset,
            // All that is retained is of this time or later: nothing is to be read for it.
            StartFrom::Time(at) if self.replica.begins_at_or_after(at) => Offset(0),
            StartFrom::Time(at) => {
                let (id, end) = (subscription.id.clone(), self.replica.state.end);
                let what = Reading::Begin(id.clone(), subscription.created, end);
                if self.seek(at, what, desk).is_err() {
                    desk.bench.put_off.insert((self.view.id, id));
                }
                return;
            }
        };
        self.begin_at(subscription, at, desk);
    }

    fn has_cursor(&self, subscription: &Subscription) -> bool {
        let cursor = self.replica.state.cursors.get(&subscription.id);
        cursor.is_some_and(|cursor| cursor.created() == subscription.created)
    }

    /// A subscription is pulled from whose beginning a planted bug left open.
    pub(crate) fn begin_late(&mut self, subscription: &Subscription, desk: &mut Desk<'_>) {
        if self.replica.serving() && !self.has_cursor(subscription) && desk.may_write() {
            self.begin_at(subscription, self.replica.log_end(), desk);
        }
    }

    fn begin_at(&mut self, subscription: &Subscription, at: Offset, desk: &mut Desk<'_>) {
        let at = at.clamp(self.replica.state.start, self.replica.log_end());
        let (subscription, created) = (subscription.id.clone(), subscription.created);
        self.write_notes(vec![Note::CursorFixed { subscription, created, at }], desk);
    }

    /// A subscription is gone.
    pub(crate) fn drop_cursor(&mut self, id: &SubscriptionId, desk: &mut Desk<'_>) {
        self.deliveries.forget(id);
        if self.replica.leading() {
            self.write_notes(vec![Note::CursorDropped { subscription: id.clone() }], desk);
        }
    }

    fn committed(&mut self, step: &Step, desk: &mut Desk<'_>) {
        let serving = self.replica.serving();
        match &step.what {
            What::Message(_, timing, _) => {
                self.answer_firsts(step.index, desk);
                if serving {
                    let now = desk.cluster_time;
                    self.deliveries.committed(step.offset, timing.due, timing.priority, now);
                }
            }
            What::Note(Note::CursorFixed { subscription, .. }) if serving => {
                self.serve(subscription, desk);
            }
            What::Note(Note::Attempts { subscription, attempts }) => {
                let now = desk.cluster_time;
                self.deliveries.attempts_committed(subscription, attempts, now);
            }
            What::Note(Note::Trim { .. }) => self.trimmed(desk),
            What::Note(
                Note::Start { .. }
                | Note::CursorFixed { .. }
                | Note::CursorDropped { .. }
                | Note::Progress { .. },
            ) => {}
        }
    }

    /// The Start entry is committed: subscriptions go on from their cursors.
    fn begin_serving(&mut self, desk: &mut Desk<'_>) {
        self.begin_retention();
        for &(due, offset) in &self.replica.state.delayed {
            let priority = self.replica.state.ranked.get(&offset).copied().unwrap_or_default();
            self.deliveries.committed(offset, due, priority, desk.cluster_time);
        }
        let ids: Vec<SubscriptionId> = self.replica.state.cursors.keys().cloned().collect();
        for id in &ids {
            if desk.bench.view.subscriptions.contains_key(id) {
                self.serve(id, desk);
            } else {
                self.drop_cursor(id, desk);
            }
        }
    }

    fn serve(&mut self, id: &SubscriptionId, desk: &mut Desk<'_>) {
        let (Some(cursor), Some(subscription)) =
            (self.replica.state.cursors.get(id), desk.bench.view.subscriptions.get(id).cloned())
        else {
            return;
        };
        if cursor.created() != subscription.created {
            return;
        }
        let served = self.deliveries.served(id);
        if served.is_some_and(|served| served.created != subscription.created) {
            self.deliveries.forget(id);
        }
        let (buries, now) = (self.dead_letter_topic().is_some(), desk.cluster_time);
        let ranked = &self.replica.state.ranked;
        self.deliveries.serve(&subscription, cursor, buries, ranked, now);
        self.report_fixed(&subscription, desk);
    }

    fn report_fixed(&self, subscription: &Subscription, desk: &mut Desk<'_>) {
        let (created, partition) = (subscription.created, self.view.id);
        let subscription = subscription.id.clone();
        let fixed = Report::CursorFixed { subscription, created, partition };
        desk.effects.push(ShardEffect::Report(fixed));
    }

    /// Takes a verdict; false when the token names nothing that it could be about.
    ///
    /// # Errors
    ///
    /// [`Refused::NotReady`] before this node serves the partition: until then it does not know
    /// what of it is settled already.
    pub(crate) fn settle(
        &mut self,
        id: &SubscriptionId,
        token: AckToken,
        verdict: Verdict,
        desk: &mut Desk<'_>,
    ) -> Result<bool, Refused> {
        if !self.replica.serving() {
            return Err(Refused::NotReady);
        }
        if verdict != Verdict::Ack && !desk.may_write() {
            return Ok(false);
        }
        let (end, now) = (self.replica.state.end, desk.moment());
        let (taken, attempt) = self.deliveries.settle(id, token, verdict, end, now);
        if let Some(attempt) = attempt {
            self.write_notes(attempt_notes(id, &[attempt]), desk);
        }
        let counters = desk.counters();
        match verdict {
            Verdict::Ack => counters.acknowledged += u64::from(taken),
            Verdict::Nack { .. } => counters.given_back += u64::from(taken),
            Verdict::Extend { .. } => counters.extended += u64::from(taken),
        }
        Ok(taken)
    }

    /// Does what is due: gives up waiting, ends leases, writes acknowledgements, removes what is
    /// too old.
    pub(crate) fn wake(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        self.publishes.give_up(desk);
        while let Some((&(deadline, _), _)) = self.fetches.first_key_value() {
            if deadline > now {
                break;
            }
            let (_, fetch) = self.fetches.pop_first().expect("there is one");
            self.fetch_now(fetch, desk);
        }
        self.deliveries.mature(&self.replica.state.ranked, desk.moment());
        if desk.may_write() {
            let mut notes = self.deliveries.expire(desk.moment());
            notes.extend(self.deliveries.flush(now));
            self.write_notes(notes, desk);
            self.start_burials(desk);
        }
        self.retain(desk);
        self.replication_woke(desk);
    }

    /// When to wake it.
    pub(crate) fn wakeup(
        &self,
        now: Time,
        disk: DiskSpace,
        clock: &crate::cluster::ClusterClock,
    ) -> Option<Time> {
        let fetch = self.fetches.first_key_value().map(|(&(deadline, _), _)| deadline);
        let delivery = self.deliveries.wakeup(disk == DiskSpace::Free);
        let due = self.deliveries.next_due().map(|at| clock.when(at));
        let replication = self.replication.wakeup(now, &self.replica);
        let others = [self.publishes.wakeup(), self.retention.wakeup(), replication];
        [fetch, delivery, due].into_iter().chain(others).flatten().min()
    }

    /// Whose messages have come or gone since the last look.
    pub(crate) fn refresh(&mut self) -> Vec<(SubscriptionId, bool)> {
        self.deliveries.refresh(self.replica.state.end)
    }

    /// The topic is gone: whoever waits is answered, and the budgets get back what it held.
    pub(crate) fn dissolve(mut self, desk: &mut Desk<'_>) {
        self.publishes.abandon(desk);
        self.abandon_trims(desk);
        for fetch in std::mem::take(&mut self.fetches).into_values() {
            let is_elsewhere = desk.bench.view.partitions.contains_key(&self.view.id);
            let gone = || Refused::NoTopic(self.view.topic.clone());
            desk.refuse(fetch.reply, if is_elsewhere { Refused::NotReady } else { gone() });
        }
        let ledger = &mut desk.bench.ledger;
        ledger.in_flight -= self.unsynced.iter().map(|(_, bytes)| bytes).sum::<usize>();
        ledger.cached -= self.replica.memory.bytes();
        ledger.uncommitted -= self.uncommitted_bytes;
        desk.effects.push(ShardEffect::Erase { partition: self.view.id });
    }

    /// Drops the oldest entry from memory if it may go.
    pub(crate) fn evict(&mut self) -> Evicted {
        self.replica.memory.evict(self.replica.commit())
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let state = &self.replica.state;
        PartitionStatus {
            partition: self.view.id,
            topic: self.view.topic.clone(),
            number: self.view.number,
            epoch: self.replica.epoch(),
            serving: self.replica.serving(),
            persisted: self.replica.persisted(),
            commit: self.replica.commit(),
            start: state.start,
            end: state.end,
            messages: state.end.0 - state.start.0,
            bytes: state.blocks.bytes(),
            delayed: state.delayed.len() as u64,
            window_ids: state.window.len() as u64,
            chain: state.chain,
            damaged: self.replica.damage().cloned(),
            followers: self.replication.followers(),
        }
    }

    pub(crate) fn digest(&self, hash: &mut Digest) {
        self.replica.digest(hash);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.fetches.len() > FETCHES_MAX {
            return Err(format!("{} fetches, the bound is {FETCHES_MAX}", self.fetches.len()));
        }
        self.publishes.check()?;
        self.replication.check(&self.replica)?;
        self.deliveries.check()
    }
}
