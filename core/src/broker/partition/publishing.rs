//! Storing messages: what is refused at once, what waits for its commit, what was there before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;

use super::Partition;
use crate::broker::desk::{Desk, ReplyTo};
use crate::broker::replica::message::Place;
use crate::broker::replica::{DELAYED_MAX, Draft, Header, Known, Record, Submission, Terms};
use crate::cluster::topic::Durability;
use crate::ids::{EntryIndex, IdHash, Offset};
use crate::machine::{Refused, Response, Time};
use crate::zoo::{Bug, planted};

/// How long a publish waits for its commit before its client is told that nobody knows.
pub(in crate::broker) const PUBLISH_WAIT: Duration = Duration::from_secs(10);
/// How many bytes entries share that are made together, at most: as long as readers or the cache
/// hold one of them, they hold so much.
const ROOM_BYTES_MAX: usize = 16 << 10;
/// How many repeats of ids under way wait in a partition at most.
pub(in crate::broker) const REPEATS_MAX: usize = 4_096;

/// A publish that waits for the commit of its offset.
#[derive(Clone, Copy, Debug)]
struct Publish {
    reply: ReplyTo,
    offset: Offset,
    /// When to give up and answer unknown.
    deadline: Time,
}

/// The publishes of a partition that are not answered.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// First publishes of their ids, by the entries that they are, and so by deadline. They outlast
    /// the reign in which they were appended: what the next leader commits is answered here.
    firsts: VecDeque<(Place, Publish)>,
    /// Repeats, which answer with the first one's offset.
    repeats: BTreeMap<Offset, Vec<Publish>>,
    repeats_len: usize,
    /// When to look for repeats that waited too long; not later than the first of them.
    repeats_wake: Option<Time>,
}

impl Partition {
    /// Stores messages, or finds that they are stored; each is answered for itself.
    pub(in crate::broker) fn publish(
        &mut self,
        messages: Vec<(ReplyTo, Submission)>,
        desk: &mut Desk<'_>,
    ) {
        let mut records = Vec::with_capacity(messages.len());
        let drafts = messages.iter().map(|(_, submission)| &submission.draft);
        let mut to_come: usize = drafts.map(Draft::bytes_about).sum();
        let mut room = BytesMut::new();
        for (reply, submission) in messages {
            let bytes = submission.draft.bytes_about();
            if room.capacity() < bytes {
                room = BytesMut::with_capacity(to_come.min(ROOM_BYTES_MAX));
            }
            to_come -= bytes;
            match self.accept(reply, submission, &mut room, desk) {
                Ok(record) => records.extend(record),
                Err(refused) => desk.refuse(reply, refused),
            }
        }
        if !records.is_empty() {
            self.write(records, desk);
        }
    }

    /// Gives one message its place; `None` when it waits for, or has, the place of its first try.
    fn accept(
        &mut self,
        reply: ReplyTo,
        submission: Submission,
        room: &mut BytesMut,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Record>, Refused> {
        if let Some(damage) = &self.replica.damaged {
            return Err(Refused::Damaged(damage.clone()));
        }
        if !self.replica.leading() {
            return Err(Refused::NotReady);
        }
        let Submission { draft, terms, .. } = submission;
        let id = draft.envelope.id.hash();
        let deadline = desk.now.since_start + PUBLISH_WAIT;
        match self.known(id, &draft)? {
            Known::Committed(offset) if self.replica.serving() => {
                desk.counters().duplicates += 1;
                desk.answer(reply, self.published(offset, true));
                Ok(None)
            }
            Known::UnderWay(offset) if planted(Bug::RepeatAnsweredEarly) => {
                desk.answer(reply, self.published(offset, true));
                Ok(None)
            }
            Known::Committed(offset) | Known::UnderWay(offset) => {
                if self.publishes.repeats_len >= REPEATS_MAX {
                    desk.counters().unknown += 1;
                    desk.answer(reply, Response::Unknown);
                } else {
                    self.publishes.wait_again(Publish { reply, offset, deadline });
                }
                Ok(None)
            }
            Known::New => {
                self.acceptable(draft.payload.len(), &terms, desk)?;
                desk.counters().published_bytes += draft.payload.len() as u64;
                let (ttl, now) = (self.view.config.ttl, desk.cluster_time);
                let record = self.replica.append_message(draft, id, &terms, ttl, now, room);
                let Header { index, epoch, offset, .. } = *record.header();
                self.refuse_cut(index, desk);
                let first = (Place { epoch, index }, Publish { reply, offset, deadline });
                self.publishes.firsts.push_back(first);
                Ok(Some(record))
            }
        }
    }

    /// What the partition knows of a message, by its id or else by its number.
    fn known(&self, id: IdHash, draft: &Draft) -> Result<Known, Refused> {
        match (self.replica.find(id), &draft.envelope.sequence) {
            (Known::New, Some(sequence)) => self
                .replica
                .find_numbered(sequence)
                .map_err(|newest| Refused::NumberPassed { number: sequence.number, newest }),
            (known, _) => Ok(known),
        }
    }

    /// Whether a new message may be stored.
    fn acceptable(&self, bytes: usize, terms: &Terms, desk: &Desk<'_>) -> Result<(), Refused> {
        if let Some(max) = self.view.config.message_bytes_max
            && bytes > max as usize
        {
            return Err(Refused::PayloadTooLarge(self.view.topic.clone(), max));
        }
        if terms.ttl.or(self.view.config.ttl).is_some_and(|ttl| ttl <= terms.delay)
            && !terms.delay.is_zero()
        {
            return Err(Refused::ExpiresBeforeDue);
        }
        if let Some(expected) = terms.expected
            && expected != self.replica.log_end()
        {
            return Err(Refused::OffsetMoved { expected, end: self.replica.log_end() });
        }
        if self.view.frozen {
            // It could not be committed, and its client would not know what became of it.
            return Err(Refused::Frozen);
        }
        if !desk.may_write() {
            return Err(Refused::DiskFull);
        }
        if self.is_held_up(desk) {
            return Err(Refused::Overloaded("too much waits for the partition's other replicas"));
        }
        if !terms.delay.is_zero() && self.replica.state.delayed.len() >= DELAYED_MAX {
            return Err(Refused::Overloaded("too many messages of the partition are delayed"));
        }
        Ok(())
    }

    fn published(&self, offset: Offset, duplicate: bool) -> Response {
        Response::Published { partition: self.view.number, offset, duplicate }
    }

    /// What is acknowledged before it is committed.
    pub(super) fn answer_early(&mut self, desk: &mut Desk<'_>) {
        if self.publishes.firsts.is_empty() || !self.replica.serving() {
            return;
        }
        match self.view.config.durability {
            Durability::Fsync => {}
            Durability::Replicated => self.answer_firsts(self.replication.received_by_all(), desk),
            Durability::Leader => self.answer_firsts(self.replica.last(), desk),
        }
    }

    /// Entries up to this one are what an acknowledgement waits for. Where another reign has put
    /// something else in the place of one, that is stored nowhere.
    pub(super) fn answer_firsts(&mut self, to: EntryIndex, desk: &mut Desk<'_>) {
        let firsts = &mut self.publishes.firsts;
        while let Some((place, first)) = firsts.pop_front_if(|(place, _)| place.index <= to) {
            match self.replica.epoch_at(place.index) {
                Some(epoch) if epoch == place.epoch || planted(Bug::DeposedAcknowledges) => {
                    desk.counters().published += 1;
                    let (partition, offset) = (self.view.number, first.offset);
                    let published = Response::Published { partition, offset, duplicate: false };
                    desk.answer(first.reply, published);
                }
                Some(_) => desk.refuse(first.reply, Refused::NotReady),
                None => {
                    desk.counters().unknown += 1;
                    desk.answer(first.reply, Response::Unknown);
                }
            }
        }
    }

    /// Publishes of an earlier reign of which the entries were cut, because the log goes on here.
    fn refuse_cut(&mut self, next: EntryIndex, desk: &mut Desk<'_>) {
        let firsts = &mut self.publishes.firsts;
        while let Some((_, first)) = firsts.pop_back_if(|(place, _)| place.index >= next) {
            desk.refuse(first.reply, Refused::NotReady);
        }
    }

    /// Repeats of what is committed are answered.
    pub(super) fn answer_repeats(&mut self, desk: &mut Desk<'_>) {
        let waiting = self.publishes.repeats.split_off(&self.replica.state.end);
        let committed = std::mem::replace(&mut self.publishes.repeats, waiting);
        for publish in committed.into_values().flatten() {
            self.publishes.repeats_len -= 1;
            desk.counters().duplicates += 1;
            desk.answer(publish.reply, self.published(publish.offset, true));
        }
    }
}

impl Publishes {
    fn wait_again(&mut self, publish: Publish) {
        self.repeats_len += 1;
        self.repeats_wake.get_or_insert(publish.deadline);
        self.repeats.entry(publish.offset).or_default().push(publish);
    }

    /// Leaves unknown what waited too long.
    pub(super) fn give_up(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        while let Some((_, publish)) = self.firsts.pop_front_if(|(_, one)| one.deadline <= now) {
            desk.counters().unknown += 1;
            desk.answer(publish.reply, Response::Unknown);
        }
        if self.repeats_wake.is_some_and(|at| at <= now) {
            self.repeats.retain(|_, waiting| {
                for repeat in waiting.extract_if(.., |repeat| repeat.deadline <= now) {
                    self.repeats_len -= 1;
                    desk.counters().unknown += 1;
                    desk.answer(repeat.reply, Response::Unknown);
                }
                !waiting.is_empty()
            });
            self.repeats_wake = self.repeats.values().flatten().map(|again| again.deadline).min();
        }
    }

    /// Leaves all of them unknown: their partition is gone.
    pub(super) fn abandon(&mut self, desk: &mut Desk<'_>) {
        for (_, publish) in self.firsts.drain(..) {
            desk.counters().unknown += 1;
            desk.answer(publish.reply, Response::Unknown);
        }
        self.abandon_repeats(desk);
    }

    /// Leaves the repeats unknown: another node leads, and answers them.
    pub(super) fn abandon_repeats(&mut self, desk: &mut Desk<'_>) {
        for publish in std::mem::take(&mut self.repeats).into_values().flatten() {
            desk.counters().unknown += 1;
            desk.answer(publish.reply, Response::Unknown);
        }
        (self.repeats_len, self.repeats_wake) = (0, None);
    }

    /// When to give something up.
    pub(super) fn wakeup(&self) -> Option<Time> {
        let first = self.firsts.front().map(|(_, publish)| publish.deadline);
        [first, self.repeats_wake].into_iter().flatten().min()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let repeats: usize = self.repeats.values().map(Vec::len).sum();
        if repeats != self.repeats_len || repeats > REPEATS_MAX {
            return Err(format!("{repeats} repeats, the bound is {REPEATS_MAX}"));
        }
        Ok(())
    }
}
