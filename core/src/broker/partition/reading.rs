//! Reading without a subscription, and handing out to one.

use std::time::Duration;

use super::Partition;
use crate::broker::delivery::{AckToken, Burial, DELIVERY_BYTES_MAX, Delivered, Run};
use crate::broker::desk::{Desk, Reading, ReplyTo};
use crate::broker::replica::{Found, Record};
use crate::ids::{MessageId, Offset, SubscriptionId};
use crate::machine::{FetchFrom, Refused, Response, ShardEffect, Time, Unreadable};

/// How often one pull asks the disk at most.
const PULL_READS_MAX: usize = 16;
/// How many readers without subscription wait for a partition's next message at most.
pub(in crate::broker) const FETCHES_MAX: usize = 1_024;

/// A reader that wants messages at or above its offset.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Fetch {
    pub(in crate::broker) reply: ReplyTo,
    pub(in crate::broker) from: Offset,
    pub(in crate::broker) count_max: usize,
    /// The id of the message at `from`, when no other will do.
    pub(in crate::broker) only: Option<MessageId>,
    /// Until when it waits for the first one.
    pub(in crate::broker) until: Time,
}

/// Messages of a subscription on their way to a reader.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Pulling {
    pub(in crate::broker) reply: ReplyTo,
    subscription: SubscriptionId,
    /// All that is leased for it.
    runs: Vec<Run>,
    /// How many of the runs were read.
    runs_read: usize,
    /// How often the disk was asked.
    reads: usize,
    records: Vec<Record>,
}

impl Pulling {
    /// How many bytes it may still bring.
    fn room(&self) -> usize {
        DELIVERY_BYTES_MAX.saturating_sub(self.records.iter().map(Record::len).sum())
    }

    /// The next run is read; false when it is not whole, and so the last one: what is left of it
    /// is not overtaken by the next.
    fn take(&mut self, records: Vec<Record>) -> bool {
        let whole = self.runs.get(self.runs_read).is_some_and(|run| run.count == records.len());
        self.runs_read += 1;
        self.records.extend(records);
        whole
    }
}

impl Partition {
    /// Reads without a subscription; waits when there is nothing yet.
    pub(in crate::broker) fn fetch(
        &mut self,
        reply: ReplyTo,
        from: FetchFrom,
        count_max: usize,
        wait: Duration,
        desk: &mut Desk<'_>,
    ) {
        let until = desk.now.since_start + wait;
        let fetch = |from, count_max, only| Fetch { reply, from, count_max, only, until };
        match from {
            FetchFrom::Offset(from) => self.fetch_now(fetch(from, count_max, None), desk),
            FetchFrom::Id(id) => match self.replica.state.window.find(id.hash()) {
                Some(at) if at >= self.replica.state.start => {
                    self.fetch_now(fetch(at, 1, Some(id)), desk);
                }
                // What its log still holds is not known yet.
                None if !self.replica.serving() => desk.refuse(reply, self.not_serving()),
                Some(_) | None => desk.refuse(reply, Refused::NoMessage(id)),
            },
            FetchFrom::Time(at) => {
                if !self.replica.serving() {
                    return desk.refuse(reply, self.not_serving());
                }
                let what = Reading::FetchFrom(fetch(self.replica.state.end, count_max, None));
                if let Err(what) = self.seek(at, what, desk) {
                    self.read_refused(what, desk);
                }
            }
        }
    }

    pub(super) fn not_serving(&self) -> Refused {
        match &self.replica.damaged {
            Some(damage) => Refused::Damaged(damage.clone()),
            None => Refused::NotReady,
        }
    }

    pub(super) fn fetch_now(&mut self, mut fetch: Fetch, desk: &mut Desk<'_>) {
        fetch.from = fetch.from.max(self.replica.state.start);
        loop {
            if fetch.from >= self.replica.state.end {
                return self.fetch_later(fetch, desk);
            }
            match self.replica.read(fetch.from, fetch.count_max, DELIVERY_BYTES_MAX) {
                Found::Here(records) => {
                    desk.counters().cache_hits += 1;
                    if self.fetched(&mut fetch, records, desk) {
                        return;
                    }
                }
                Found::Below => {
                    let count_max = fetch.count_max;
                    return self.read(fetch.from, count_max, Reading::Fetch(fetch), desk);
                }
            }
        }
    }

    /// Nothing is there yet: waits, or answers so.
    fn fetch_later(&mut self, fetch: Fetch, desk: &mut Desk<'_>) {
        if !self.replica.serving() {
            return desk.refuse(fetch.reply, self.not_serving());
        }
        if fetch.until <= desk.now.since_start {
            return self.answer_fetch(&fetch, Vec::new(), desk);
        }
        if self.fetches.len() >= FETCHES_MAX {
            let why = "too many readers wait for this partition";
            return desk.refuse(fetch.reply, Refused::Overloaded(why));
        }
        self.fetches.insert((fetch.until, fetch.reply), fetch);
    }

    /// Answers with what was read and is not too old; false when nothing is left of it, and the
    /// reader goes on behind it.
    fn fetched(&self, fetch: &mut Fetch, mut records: Vec<Record>, desk: &mut Desk<'_>) -> bool {
        if fetch.only.is_some() {
            records.retain(|record| record.header().offset == fetch.from);
        }
        let Some(last) = records.last() else {
            self.answer_fetch(fetch, records, desk);
            return true;
        };
        let (next, now) = (last.header().offset.next(), desk.ttl_time());
        let before = records.len();
        records.retain(|record| !record.header().timing.is_over(now));
        desk.counters().expired += (before - records.len()) as u64;
        fetch.from = next;
        if !records.is_empty() || fetch.only.is_some() {
            self.answer_fetch(fetch, records, desk);
            return true;
        }
        false
    }

    fn answer_fetch(&self, fetch: &Fetch, records: Vec<Record>, desk: &mut Desk<'_>) {
        desk.counters().fetched += records.len() as u64;
        if let Some(id) = fetch.only.as_ref().filter(|_| records.is_empty()) {
            return desk.refuse(fetch.reply, Refused::NoMessage(id.clone()));
        }
        let (start, readable) = (self.replica.state.start, self.replica.state.end);
        // A damaged log goes on behind what can be read: its reader is to come back and be told.
        let end = if self.replica.damaged.is_some() { readable.next() } else { readable };
        let (partition, next) = (self.view.number, fetch.from.min(readable));
        let of = self.view.id;
        desk.answer(fetch.reply, Response::Fetched { of, partition, records, next, start, end });
    }

    /// Readers for whom there is something now.
    pub(super) fn answer_fetches(&mut self, desk: &mut Desk<'_>) {
        let end = self.replica.state.end;
        let ready: Vec<_> = self.fetches.extract_if(.., |_, fetch| fetch.from < end).collect();
        for (_, fetch) in ready {
            self.fetch_now(fetch, desk);
        }
    }

    /// Asks the disk.
    pub(super) fn read(
        &mut self,
        from: Offset,
        count_max: usize,
        what: Reading,
        desk: &mut Desk<'_>,
    ) {
        desk.counters().cache_misses += 1;
        let (id, below) = (self.view.id, self.replica.commit().next());
        let bytes_max = match &what {
            Reading::Pull(pulling) => pulling.room(),
            Reading::Fetch(_)
            | Reading::FetchFrom(_)
            | Reading::Begin(..)
            | Reading::Bury(_)
            | Reading::Entries { .. } => DELIVERY_BYTES_MAX,
        };
        match desk.read(id, what) {
            Ok(read) => desk.effects.push(ShardEffect::Read {
                read,
                partition: id,
                from,
                first: self.replica.first(),
                below,
                count_max,
                bytes_max,
            }),
            Err(what) => self.read_refused(what, desk),
        }
    }

    /// Asks the disk for the first message that is not older.
    pub(super) fn seek(
        &mut self,
        at: crate::machine::WallTime,
        what: Reading,
        desk: &mut Desk<'_>,
    ) -> Result<(), Reading> {
        let partition = self.view.id;
        let read = desk.read(partition, what)?;
        let (first, below) = (self.replica.first(), self.replica.commit().next());
        desk.effects.push(ShardEffect::Seek { read, partition, at, first, below });
        Ok(())
    }

    /// Too much is being read: who waits is told, and what was leased is given back.
    fn read_refused(&mut self, what: Reading, desk: &mut Desk<'_>) {
        let refused = Refused::Overloaded("too many reads of the disk");
        self.reading_ended(what, refused, desk);
    }

    /// What was to be read is not there.
    fn reading_ended(&mut self, what: Reading, refused: Refused, desk: &mut Desk<'_>) {
        match what {
            Reading::Fetch(fetch) | Reading::FetchFrom(fetch) => {
                desk.refuse(fetch.reply, refused);
            }
            Reading::Pull(pulling) if pulling.records.is_empty() => {
                let Pulling { reply, subscription, runs, .. } = pulling;
                let offsets = runs.iter().flat_map(|run| run.offsets());
                offsets.for_each(|offset| self.deliveries.release(&subscription, offset));
                desk.refuse(reply, refused);
            }
            Reading::Pull(pulling) => self.finish_pull(pulling, desk),
            Reading::Bury(Burial { subscription, offset, .. }) => {
                let now = desk.now.since_start;
                self.deliveries.buried(&subscription, offset, false, now);
            }
            // It is looked for again with the next view, or the next start.
            Reading::Begin(..) => {}
            Reading::Entries { .. } => panic!("what is read for followers is not refused"),
        }
    }

    /// A read of the disk ended.
    pub(in crate::broker) fn read_done(
        &mut self,
        what: Reading,
        result: Result<Vec<Record>, Unreadable>,
        desk: &mut Desk<'_>,
    ) {
        if let Reading::Entries { to, from } = what {
            return self.entries_read((to, from), result, desk);
        }
        let records = match result {
            Ok(records) => records,
            Err(damage) => {
                let refused = self.finds_damage(damage, desk);
                return self.reading_ended(what, refused, desk);
            }
        };
        match what {
            Reading::Fetch(mut fetch) => {
                if !self.fetched(&mut fetch, records, desk) {
                    self.fetch_now(fetch, desk);
                }
            }
            Reading::Pull(mut pulling) => {
                let pulling = match pulling.take(records) {
                    true => self.gather(pulling, desk),
                    false => Some(pulling),
                };
                if let Some(pulling) = pulling {
                    self.finish_pull(pulling, desk);
                }
            }
            Reading::Bury(burial) => self.bury(burial, records.into_iter().next(), desk),
            Reading::FetchFrom(_) | Reading::Begin(..) | Reading::Entries { .. } => {
                panic!("neither a search nor a follower's read gives messages")
            }
        }
    }

    /// A search of the disk ended.
    pub(in crate::broker) fn sought(
        &mut self,
        what: Reading,
        result: Result<Option<Offset>, Unreadable>,
        desk: &mut Desk<'_>,
    ) {
        match (what, result) {
            (Reading::FetchFrom(fetch), Ok(from)) => {
                let from = from.unwrap_or(fetch.from);
                self.fetch_now(Fetch { from, ..fetch }, desk);
            }
            (Reading::Begin(id, created, end), Ok(at)) => {
                // One that was made anew meanwhile begins elsewhere.
                let subscription = desk.bench.view.subscriptions.get(&id).cloned();
                if let Some(subscription) = subscription.filter(|held| held.created == created) {
                    self.begin_at(&subscription, at.unwrap_or(end), desk);
                }
            }
            (what, Ok(_)) => panic!("a read gives messages: {what:?}"),
            (what, Err(damage)) => {
                let refused = self.finds_damage(damage, desk);
                self.reading_ended(what, refused, desk);
            }
        }
    }

    /// Leases the next messages of a subscription and answers with them; false if there are none.
    pub(in crate::broker) fn pull(
        &mut self,
        reply: ReplyTo,
        id: &SubscriptionId,
        count_max: usize,
        desk: &mut Desk<'_>,
    ) -> bool {
        loop {
            let end = self.replica.state.end;
            let runs = self.deliveries.take(id, end, count_max, desk.now.since_start);
            if runs.is_empty() {
                return false;
            }
            let pulling = Pulling {
                reply,
                subscription: id.clone(),
                runs,
                runs_read: 0,
                reads: 0,
                records: Vec::new(),
            };
            let Some(pulling) = self.gather(pulling, desk) else {
                return true;
            };
            desk.counters().cache_hits += 1;
            if self.pulled(pulling, desk) {
                return true;
            }
        }
    }

    /// Reads the runs that are left, as far as memory holds them and the delivery has room. Gives
    /// nothing when the disk was asked for the next one.
    fn gather(&mut self, mut pulling: Pulling, desk: &mut Desk<'_>) -> Option<Pulling> {
        while let Some(&run) = pulling.runs.get(pulling.runs_read)
            && pulling.room() > 0
        {
            match self.replica.read(run.from, run.count, pulling.room()) {
                Found::Here(found) => {
                    if !pulling.take(found) {
                        break;
                    }
                }
                Found::Below if pulling.reads >= PULL_READS_MAX => break,
                Found::Below => {
                    pulling.reads += 1;
                    self.read(run.from, run.count, Reading::Pull(pulling), desk);
                    return None;
                }
            }
        }
        Some(pulling)
    }

    /// Answers with what was read; looks for other messages when nothing of it is wanted.
    fn finish_pull(&mut self, pulling: Pulling, desk: &mut Desk<'_>) {
        let (reply, subscription) = (pulling.reply, pulling.subscription.clone());
        let count_max = pulling.runs.iter().map(|run| run.count).sum();
        if !self.pulled(pulling, desk) && !self.pull(reply, &subscription, count_max, desk) {
            desk.answer(reply, Response::Pulled(Vec::new()));
        }
    }

    /// Answers with what was read and is wanted; false when nothing is.
    fn pulled(&mut self, pulling: Pulling, desk: &mut Desk<'_>) -> bool {
        let Pulling { reply, subscription, runs, records, .. } = pulling;
        let (now, ttl_time) = (desk.moment(), desk.ttl_time());
        let given = self.deliveries.deliver(&subscription, &runs, records, now, ttl_time);
        let counters = desk.counters();
        counters.expired += given.expired;
        counters.filtered += given.filtered;
        counters.delivered += given.messages.len() as u64;
        counters.redelivered += given.messages.iter().filter(|(_, n)| *n > 1).count() as u64;
        if given.messages.is_empty() {
            return false;
        }
        let (topic, partition) = (&self.view.topic, self.view.number);
        let with_token = |(record, attempt): (Record, u32)| {
            let offset = record.header().offset;
            let token = AckToken { partition: self.view.id, offset, attempt };
            Delivered { topic: topic.clone(), partition, record, token }
        };
        desk.answer(reply, Response::Pulled(given.messages.into_iter().map(with_token).collect()));
        true
    }
}
