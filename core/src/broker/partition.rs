//! One partition in its shard: the replica, the requests that wait for it, the deliveries.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::{AckToken, Delivered, Deliveries, Run};
use super::desk::{Desk, READ_BYTES_MAX, Reading, ReplyTo};
use super::replica::{Draft, Found, Known, Note, Record, Replica, Step, What};
use crate::cluster::metadata::{self, StartFrom, Subscription, View};
use crate::ids::{Boot, DiskId, EntryIndex, Offset, SubscriptionId};
use crate::machine::{
    Digest, DiskSpace, PartitionStatus, Refused, Report, Response, ShardEffect, Time, Unreadable,
};
use crate::zoo::{Bug, planted};

/// How long a publish waits for its commit before its client is told that nobody knows.
pub(super) const PUBLISH_WAIT: Duration = Duration::from_secs(10);
/// How many readers without subscription wait for a partition's next message at most.
pub(super) const FETCHES_MAX: usize = 1_024;
/// How many repeats of ids under way wait in a partition at most.
pub(super) const REPEATS_MAX: usize = 4_096;

/// A publish that waits for the commit of its offset.
#[derive(Clone, Copy, Debug)]
struct Publish {
    reply: ReplyTo,
    offset: Offset,
    /// When to give up and answer unknown.
    deadline: Time,
}

/// A reader that waits for a message at or above its offset.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    from: Offset,
    count_max: usize,
}

/// A partition that lives in this shard.
#[derive(Debug)]
pub(crate) struct Partition {
    view: Arc<metadata::Partition>,
    replica: Replica,
    deliveries: Deliveries,
    /// First publishes of their ids, by offset, and so by deadline.
    publishes: VecDeque<Publish>,
    /// Repeats, which answer with the first one's offset.
    repeats: BTreeMap<Offset, Vec<Publish>>,
    repeats_len: usize,
    /// When to look for repeats that waited too long; not later than the first of them.
    repeats_wake: Option<Time>,
    /// Readers, by the time when to answer them with nothing.
    fetches: BTreeMap<(Time, ReplyTo), Fetch>,
    /// Entries on their way to the disk, with their sizes.
    unsynced: VecDeque<(EntryIndex, usize)>,
}

impl Partition {
    pub(crate) fn new(view: Arc<metadata::Partition>, replica: Replica) -> Self {
        Self {
            view,
            replica,
            deliveries: Deliveries::default(),
            publishes: VecDeque::new(),
            repeats: BTreeMap::new(),
            repeats_len: 0,
            repeats_wake: None,
            fetches: BTreeMap::new(),
            unsynced: VecDeque::new(),
        }
    }

    /// Acts on what a view says: leads in the epoch that is this node's.
    pub(crate) fn adopt(
        &mut self,
        view: Arc<metadata::Partition>,
        me: (DiskId, Boot),
        desk: &mut Desk<'_>,
    ) {
        let new_reign = !self.replica.leading() || self.replica.epoch() < view.epoch;
        self.view = view;
        if new_reign && self.view.leader == me.0 && self.replica.damaged.is_none() {
            let start = Note::Start { leader: me.0, boot: me.1 };
            let record = self.replica.lead(me.0, &self.view, start, desk.cluster_time);
            self.write(vec![record], desk);
        }
    }

    fn write(&mut self, records: Vec<Record>, desk: &mut Desk<'_>) {
        for record in &records {
            desk.account(self.view.id, record);
            self.unsynced.push_back((record.header().index, record.len()));
        }
        let append = self.replica.write(records, desk.bench.options.checkpoint_entries);
        desk.effects.push(ShardEffect::Append(append));
    }

    fn write_notes(&mut self, notes: Vec<Note>, desk: &mut Desk<'_>) {
        if !notes.is_empty() {
            let append = |note| self.replica.append_note(note, desk.cluster_time);
            let records = notes.into_iter().map(append).collect();
            self.write(records, desk);
        }
    }

    /// Stores a message, or finds that it is stored.
    pub(crate) fn publish(&mut self, reply: ReplyTo, draft: Draft, desk: &mut Desk<'_>) {
        if let Some(damage) = &self.replica.damaged {
            return desk.refuse(reply, Refused::Damaged(damage.clone()));
        }
        if !self.replica.leading() {
            return desk.refuse(reply, Refused::NotReady);
        }
        let id = draft.envelope.id.hash();
        let deadline = desk.now.since_start + PUBLISH_WAIT;
        match self.replica.find(id) {
            Known::Committed(offset) if self.replica.serving() => {
                desk.counters().duplicates += 1;
                desk.answer(reply, self.published(offset, true));
            }
            Known::UnderWay(offset) if planted(Bug::RepeatAnsweredEarly) => {
                desk.answer(reply, self.published(offset, true));
            }
            Known::Committed(offset) | Known::UnderWay(offset) => {
                if self.repeats_len >= REPEATS_MAX {
                    desk.counters().unknown += 1;
                    return desk.answer(reply, Response::Unknown);
                }
                self.repeats_len += 1;
                self.repeats_wake.get_or_insert(deadline);
                let publish = Publish { reply, offset, deadline };
                self.repeats.entry(offset).or_default().push(publish);
            }
            Known::New if !desk.may_write() => desk.refuse(reply, Refused::DiskFull),
            Known::New if desk.is_overloaded() => {
                desk.refuse(reply, Refused::Overloaded("too many bytes wait for the disk"));
            }
            Known::New => {
                let bytes = draft.payload.len() as u64;
                let record = self.replica.append_message(draft, id, desk.cluster_time);
                let offset = record.header().offset;
                self.publishes.push_back(Publish { reply, offset, deadline });
                desk.counters().published_bytes += bytes;
                self.write(vec![record], desk);
            }
        }
    }

    fn published(&self, offset: Offset, duplicate: bool) -> Response {
        Response::Published { partition: self.view.number, offset, duplicate }
    }

    /// Makes sure that a subscription has a cursor here, where it is to begin.
    pub(crate) fn fix_cursor(&mut self, subscription: &Subscription, desk: &mut Desk<'_>) {
        let known = self.replica.state.cursors.contains_key(&subscription.id);
        if !self.replica.leading() || known || !desk.may_write() {
            return;
        }
        let end = self.replica.log_end();
        let at = match subscription.from {
            // A partition that came later is read from its first message, whatever was asked.
            _ if self.view.created > subscription.created => Offset(0),
            StartFrom::Latest => end,
            StartFrom::Earliest => Offset(0),
            StartFrom::Offset(offset) => offset.min(end),
        };
        let note = Note::CursorFixed { subscription: subscription.id.clone(), at };
        self.write_notes(vec![note], desk);
    }

    /// The disk holds the log up to `index`: commits, applies, answers.
    pub(crate) fn persisted(&mut self, index: EntryIndex, view: &View, desk: &mut Desk<'_>) {
        while let Some((_, bytes)) = self.unsynced.pop_front_if(|(at, _)| *at <= index) {
            desk.bench.ledger.in_flight -= bytes;
        }
        self.replica.persist(index);
        let served = self.replica.serving();
        while let Some(step) = self.replica.advance() {
            self.committed(&step, view, desk);
        }
        if self.replica.serving() {
            if !served {
                self.begin_serving(view, desk);
            }
            self.answer_repeats(desk);
            self.answer_fetches(desk);
        }
    }

    fn committed(&mut self, step: &Step, view: &View, desk: &mut Desk<'_>) {
        match &step.what {
            What::Message(_) => {
                while let Some(first) =
                    self.publishes.pop_front_if(|publish| publish.offset <= step.offset)
                {
                    desk.counters().published += 1;
                    desk.answer(first.reply, self.published(first.offset, false));
                }
            }
            What::Note(Note::CursorFixed { subscription, .. }) if self.replica.serving() => {
                self.serve(subscription, view, desk);
            }
            What::Note(Note::Attempts { subscription, attempts }) => {
                self.deliveries.attempts_committed(subscription, attempts);
            }
            What::Note(Note::Start { .. } | Note::CursorFixed { .. } | Note::Progress { .. }) => {}
        }
    }

    /// The Start entry is committed: subscriptions go on from their cursors.
    fn begin_serving(&mut self, view: &View, desk: &mut Desk<'_>) {
        let ids: Vec<SubscriptionId> = self.replica.state.cursors.keys().cloned().collect();
        ids.iter().for_each(|id| self.serve(id, view, desk));
    }

    fn serve(&mut self, id: &SubscriptionId, view: &View, desk: &mut Desk<'_>) {
        let (Some(cursor), Some(subscription)) =
            (self.replica.state.cursors.get(id), view.subscriptions.get(id))
        else {
            return;
        };
        self.deliveries.serve(id, cursor, subscription.ack_wait);
        let (subscription, partition) = (id.clone(), self.view.id);
        let report = Report::CursorFixed { subscription, partition };
        desk.effects.push(ShardEffect::Report(report));
    }

    fn answer_repeats(&mut self, desk: &mut Desk<'_>) {
        let waiting = self.repeats.split_off(&self.replica.state.end);
        let committed = std::mem::replace(&mut self.repeats, waiting);
        for publish in committed.into_values().flatten() {
            self.repeats_len -= 1;
            desk.counters().duplicates += 1;
            desk.answer(publish.reply, self.published(publish.offset, true));
        }
    }

    fn answer_fetches(&mut self, desk: &mut Desk<'_>) {
        let end = self.replica.state.end;
        let ready: Vec<_> = self.fetches.extract_if(.., |_, fetch| fetch.from < end).collect();
        for ((_, reply), fetch) in ready {
            self.fetch_now(reply, fetch.from, fetch.count_max, desk);
        }
    }

    /// Reads without a subscription; waits when there is nothing yet.
    pub(crate) fn fetch(
        &mut self,
        reply: ReplyTo,
        from: Offset,
        count_max: usize,
        wait: Duration,
        desk: &mut Desk<'_>,
    ) {
        let empty = from >= self.replica.state.end;
        if !self.replica.serving() && empty {
            return match &self.replica.damaged {
                Some(damage) => desk.refuse(reply, Refused::Damaged(damage.clone())),
                None => desk.refuse(reply, Refused::NotReady),
            };
        }
        if empty && !wait.is_zero() {
            if self.fetches.len() >= FETCHES_MAX {
                let why = "too many readers wait for this partition";
                return desk.refuse(reply, Refused::Overloaded(why));
            }
            let deadline = desk.now.since_start + wait;
            self.fetches.insert((deadline, reply), Fetch { from, count_max });
            return;
        }
        self.fetch_now(reply, from, count_max, desk);
    }

    fn fetch_now(&mut self, reply: ReplyTo, from: Offset, count_max: usize, desk: &mut Desk<'_>) {
        match self.replica.read(from, count_max, READ_BYTES_MAX) {
            Found::Here(records) => {
                desk.counters().cache_hits += 1;
                self.fetched(reply, from, records, desk);
            }
            Found::Below => self.read(from, count_max, Reading::Fetch { reply, from }, desk),
        }
    }

    fn read(&mut self, from: Offset, count_max: usize, what: Reading, desk: &mut Desk<'_>) {
        desk.counters().cache_misses += 1;
        let (Reading::Fetch { reply, .. } | Reading::Pull { reply, .. }) = what;
        let (id, below) = (self.view.id, self.replica.commit().next());
        let read = match desk.read(id, what) {
            Ok(read) => read,
            Err(what) => {
                if let Reading::Pull { subscription, run, .. } = what {
                    self.deliveries.deliver(&subscription, &run, Vec::new());
                }
                return desk.refuse(reply, Refused::Overloaded("too many reads of the disk"));
            }
        };
        let bytes_max = READ_BYTES_MAX;
        let partition = id;
        desk.effects.push(ShardEffect::Read { read, partition, from, below, count_max, bytes_max });
    }

    /// A read of the disk ended.
    pub(crate) fn read_done(
        &mut self,
        what: Reading,
        result: Result<Vec<Record>, Unreadable>,
        desk: &mut Desk<'_>,
    ) {
        match (what, result) {
            (Reading::Fetch { reply, from }, Ok(records)) => {
                self.fetched(reply, from, records, desk);
            }
            (Reading::Pull { reply, subscription, run }, Ok(records)) => {
                self.pulled(reply, &subscription, run, records, desk);
            }
            (Reading::Fetch { reply, .. }, Err(damage)) => {
                desk.refuse(reply, Refused::Damaged(damage));
            }
            (Reading::Pull { reply, subscription, run }, Err(damage)) => {
                self.deliveries.deliver(&subscription, &run, Vec::new());
                desk.refuse(reply, Refused::Damaged(damage));
            }
        }
    }

    fn fetched(&self, reply: ReplyTo, from: Offset, records: Vec<Record>, desk: &mut Desk<'_>) {
        desk.counters().fetched += records.len() as u64;
        let readable = self.replica.state.end;
        // A damaged log goes on behind what can be read: its reader is to come back and be told.
        let end = if self.replica.damaged.is_some() { readable.next() } else { readable };
        let next = records.last().map_or(from.min(readable), |last| last.header().offset.next());
        let partition = self.view.number;
        desk.answer(reply, Response::Fetched { partition, records, next, end });
    }

    /// Whether a subscription could be given something now.
    pub(crate) fn has_some(&self, id: &SubscriptionId) -> bool {
        self.deliveries.has_some(id, self.replica.state.end)
    }

    /// The subscriptions that are served here.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &SubscriptionId> {
        self.deliveries.ids()
    }

    /// Leases the next messages of a subscription and answers with them; false if there is none.
    pub(crate) fn pull(
        &mut self,
        reply: ReplyTo,
        id: &SubscriptionId,
        count_max: usize,
        desk: &mut Desk<'_>,
    ) -> bool {
        let end = self.replica.state.end;
        let Some(run) = self.deliveries.take(id, end, count_max, desk.now.since_start) else {
            return false;
        };
        match self.replica.read(run.from, run.count, READ_BYTES_MAX) {
            Found::Here(records) => {
                desk.counters().cache_hits += 1;
                self.pulled(reply, id, run, records, desk);
            }
            Found::Below => {
                let subscription = id.clone();
                self.read(run.from, run.count, Reading::Pull { reply, subscription, run }, desk);
            }
        }
        true
    }

    fn pulled(
        &mut self,
        reply: ReplyTo,
        id: &SubscriptionId,
        run: Run,
        records: Vec<Record>,
        desk: &mut Desk<'_>,
    ) {
        let delivered = self.deliveries.deliver(id, &run, records);
        desk.counters().delivered += delivered.len() as u64;
        desk.counters().redelivered += delivered.iter().filter(|(_, n)| *n > 1).count() as u64;
        let (topic, partition) = (&self.view.topic, self.view.number);
        let with_token = |(record, attempt): (Record, u32)| {
            let offset = record.header().offset;
            let token = AckToken { partition: self.view.id, offset, attempt };
            Delivered { topic: topic.clone(), partition, record, token }
        };
        desk.answer(reply, Response::Pulled(delivered.into_iter().map(with_token).collect()));
    }

    /// Takes an acknowledgement; false when the token names nothing that can be acknowledged.
    pub(crate) fn acknowledge(
        &mut self,
        id: &SubscriptionId,
        token: AckToken,
        desk: &mut Desk<'_>,
    ) -> bool {
        let (end, now) = (self.replica.state.end, desk.now.since_start);
        let taken = self.deliveries.acknowledge(id, token.offset, end, now);
        desk.counters().acknowledged += u64::from(taken);
        taken
    }

    /// Does what is due: gives up waiting, ends leases, writes acknowledgements.
    pub(crate) fn wake(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        while let Some(publish) = self.publishes.pop_front_if(|publish| publish.deadline <= now) {
            desk.counters().unknown += 1;
            desk.answer(publish.reply, Response::Unknown);
        }
        if self.repeats_wake.is_some_and(|at| at <= now) {
            self.give_up_repeats(desk);
        }
        while let Some((&(deadline, reply), fetch)) = self.fetches.first_key_value() {
            if deadline > now {
                break;
            }
            let from = fetch.from;
            self.fetches.pop_first();
            self.fetched(reply, from, Vec::new(), desk);
        }
        if desk.may_write() {
            let mut notes = self.deliveries.expire(now);
            notes.extend(self.deliveries.flush(now));
            self.write_notes(notes, desk);
        }
    }

    fn give_up_repeats(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        self.repeats.retain(|_, waiting| {
            for repeat in waiting.extract_if(.., |repeat| repeat.deadline <= now) {
                self.repeats_len -= 1;
                desk.counters().unknown += 1;
                desk.answer(repeat.reply, Response::Unknown);
            }
            !waiting.is_empty()
        });
        self.repeats_wake = self.repeats.values().flatten().map(|repeat| repeat.deadline).min();
    }

    /// When to wake it.
    pub(crate) fn wakeup(&self, disk: DiskSpace) -> Option<Time> {
        let publish = self.publishes.front().map(|publish| publish.deadline);
        let fetch = self.fetches.first_key_value().map(|(&(deadline, _), _)| deadline);
        let delivery = self.deliveries.wakeup(disk == DiskSpace::Free);
        [publish, self.repeats_wake, fetch, delivery].into_iter().flatten().min()
    }

    /// Drops the oldest entry from memory if it may go; gives its size.
    pub(crate) fn evict(&mut self) -> Option<usize> {
        self.replica.memory.evict(self.replica.commit())
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        PartitionStatus {
            partition: self.view.id,
            topic: self.view.topic.clone(),
            number: self.view.number,
            epoch: self.replica.epoch(),
            serving: self.replica.serving(),
            commit: self.replica.commit(),
            end: self.replica.state.end,
            messages: self.replica.state.end.0,
            window_ids: self.replica.state.window.len() as u64,
            chain: self.replica.state.chain,
            damaged: self.replica.damaged.clone(),
        }
    }

    pub(crate) fn digest(&self, hash: &mut Digest) {
        self.replica.digest(hash);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let repeats: usize = self.repeats.values().map(Vec::len).sum();
        if repeats != self.repeats_len || repeats > REPEATS_MAX || self.fetches.len() > FETCHES_MAX
        {
            return Err(format!("{repeats} repeats, {} fetches", self.fetches.len()));
        }
        self.replica.check()?;
        self.deliveries.check()
    }
}
