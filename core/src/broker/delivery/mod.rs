//! Who has received what of a partition: leases, deadlines, repeats, delays, dead letters.
//!
//! The committed truth is the cursor in the partition's state. What lives here is known to the
//! leader alone and lost with it: then what was leased is delivered again, and nothing is skipped.

mod delays;
mod ready;
mod subscriber;
mod token;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use delays::Delays;
pub use subscriber::{NORMAL_RUN_MAX, READY_MAX, URGENT_RUN_MAX};
pub(crate) use subscriber::{Next, Run, Subscriber};
pub use subscriber::{WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX};
pub use token::{AckToken, BadToken, Delivered};

use super::replica::{Attempt, CURSOR_RUNS_MAX, Cursor, Note, Record, Runs};
use crate::cluster::subscription::Subscription;
use crate::ids::{Offset, Priority, SubscriptionId};
use crate::machine::{Time, Verdict, WallTime};

/// How long acknowledgements wait before they are written, so that many share one entry.
pub const PROGRESS_DELAY: Duration = Duration::from_millis(50);
/// How many bytes one delivery brings at most; one message more may pass it.
pub const DELIVERY_BYTES_MAX: usize = 4 << 20;
/// How many attempts, or runs of acknowledged messages, one entry names at most.
const NOTE_ITEMS_MAX: usize = 1_000;
/// How long a dead letter waits that could not be stored.
const BURIAL_PAUSE: Duration = Duration::from_secs(1);

/// The time of an input: on the node's own clock, and in cluster time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) time: Time,
    pub(crate) cluster: WallTime,
}

/// A message that is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Burial {
    pub(crate) subscription: SubscriptionId,
    pub(crate) offset: Offset,
    /// How often it was delivered.
    pub(crate) attempts: u32,
    /// Whether a member rejected it.
    pub(crate) rejected: bool,
}

/// What a delivery came to.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The messages, each with its attempt.
    pub(crate) messages: Vec<(Record, u32)>,
    /// How many were not given because their time was over.
    pub(crate) expired: u64,
    /// How many were not given because the filter does not want them.
    pub(crate) filtered: u64,
}

/// All subscriptions of one partition, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    /// When a lease ends, whose, and of which message.
    deadlines: BTreeSet<(Time, SubscriptionId, Offset)>,
    /// When a message that was tried before is ready again.
    parked: BTreeSet<(WallTime, SubscriptionId, Offset)>,
    delays: Delays,
    /// What is acknowledged and not yet written.
    dirty: BTreeMap<SubscriptionId, Runs>,
    /// When to write it.
    flush_at: Option<Time>,
    /// Dead letters to store.
    burials: VecDeque<(SubscriptionId, Offset)>,
    /// When to try again those that could not be stored.
    burials_again: BTreeSet<(Time, SubscriptionId, Offset)>,
    /// Whose availability may have changed since the last look.
    touched: BTreeSet<SubscriptionId>,
    /// Who has something, as of the last look, and the end that it saw.
    available: BTreeSet<SubscriptionId>,
    seen_end: Offset,
}

impl Deliveries {
    /// Begins to serve a subscription from its committed cursor.
    pub(crate) fn serve(
        &mut self,
        subscription: &Arc<Subscription>,
        cursor: &Cursor,
        buries: bool,
        ranked: &BTreeMap<Offset, Priority>,
        now: WallTime,
    ) {
        let id = &subscription.id;
        if self.subscribers.contains_key(id) {
            return;
        }
        let mut subscriber = Subscriber::new(subscription.clone(), cursor.clone(), buries);
        for (offset, next) in subscriber.resume(now) {
            self.schedule(id, offset, next);
        }
        for (&offset, &priority) in ranked.range(cursor.floor()..) {
            if !self.delays.offsets().contains(&offset) {
                subscriber.prefer(offset, priority);
            }
        }
        self.subscribers.insert(id.clone(), subscriber);
        self.touched.insert(id.clone());
    }

    /// A subscription is gone.
    pub(crate) fn forget(&mut self, id: &SubscriptionId) {
        if let Some(subscriber) = self.subscribers.remove(id) {
            for (deadline, offset) in subscriber.deadlines() {
                self.deadlines.remove(&(deadline, id.clone(), offset));
            }
        }
        self.dirty.remove(id);
        self.touched.insert(id.clone());
    }

    /// The subscription that is served under an id.
    pub(crate) fn served(&self, id: &SubscriptionId) -> Option<&Arc<Subscription>> {
        self.subscribers.get(id).map(Subscriber::subscription)
    }

    /// This node leads no more: whoever had something here has nothing.
    pub(crate) fn stop(&mut self) {
        let (available, seen_end) = (std::mem::take(&mut self.available), self.seen_end);
        *self = Self { touched: available.clone(), available, seen_end, ..Self::default() };
    }

    fn schedule(&mut self, id: &SubscriptionId, offset: Offset, next: Next) {
        match next {
            Next::Ready => {}
            Next::Wait(due) => {
                self.parked.insert((due, id.clone(), offset));
            }
            Next::Bury => self.burials.push_back((id.clone(), offset)),
        }
    }

    /// A message was committed that is delayed, or not of normal priority.
    pub(crate) fn committed(
        &mut self,
        offset: Offset,
        due: WallTime,
        priority: Priority,
        now: WallTime,
    ) {
        if due > now {
            self.delays.insert(due, offset);
        } else if priority != Priority::NORMAL {
            self.prefer(offset, priority);
        }
    }

    fn prefer(&mut self, offset: Offset, priority: Priority) {
        for (id, subscriber) in &mut self.subscribers {
            subscriber.prefer(offset, priority);
            self.touched.insert(id.clone());
        }
    }

    /// Reserves the next messages for a reader, leased from now on.
    pub(crate) fn take(
        &mut self,
        id: &SubscriptionId,
        end: Offset,
        count_max: usize,
        now: Time,
    ) -> Vec<Run> {
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return Vec::new();
        };
        let runs = subscriber.take(end, self.delays.offsets(), count_max, now);
        let deadline = now + subscriber.ack_wait();
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            self.deadlines.insert((deadline, id.clone(), offset));
        }
        self.touched.insert(id.clone());
        runs
    }

    /// Runs were read: pairs each message with its attempt. What was reserved but not read, what
    /// the window has no room for, and what was acknowledged meanwhile, is given back. What is too
    /// old, or not wanted, counts as acknowledged.
    pub(crate) fn deliver(
        &mut self,
        id: &SubscriptionId,
        runs: &[Run],
        records: Vec<Record>,
        now: Moment,
        ttl_time: WallTime,
    ) -> Given {
        let mut given = Given::default();
        let mut unread: BTreeSet<Offset> = runs.iter().flat_map(|run| run.offsets()).collect();
        let mut unwanted = Vec::new();
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return given;
        };
        for record in records {
            let offset = record.header().offset;
            if !unread.contains(&offset) {
                continue;
            }
            if record.header().timing.is_over(ttl_time) {
                given.expired += 1;
                unwanted.push(offset);
            } else if !subscriber.wants(&record) {
                given.filtered += 1;
                unwanted.push(offset);
            } else if subscriber.is_full() {
                continue;
            } else if let Some(attempt) = subscriber.delivered(offset, record.len()) {
                given.messages.push((record, attempt));
            }
            unread.remove(&offset);
        }
        for offset in unread {
            self.release(id, offset);
        }
        for offset in unwanted {
            self.done(id, offset, now.time);
        }
        given
    }

    /// Gives back what was reserved and not read.
    pub(crate) fn release(&mut self, id: &SubscriptionId, offset: Offset) {
        self.touched.insert(id.clone());
        if let Some(subscriber) = self.subscribers.get_mut(id)
            && let Some(deadline) = subscriber.release(offset)
        {
            self.deadlines.remove(&(deadline, id.clone(), offset));
        }
    }

    fn done(&mut self, id: &SubscriptionId, offset: Offset, now: Time) {
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return;
        };
        if let Some(deadline) = subscriber.acknowledge(offset) {
            self.deadlines.remove(&(deadline, id.clone(), offset));
        }
        self.dirty.entry(id.clone()).or_default().cover(offset, offset.next());
        self.flush_at.get_or_insert(now + PROGRESS_DELAY);
        self.touched.insert(id.clone());
    }

    /// Takes a verdict. The first is whether it was taken: an acknowledgement is when the message
    /// is the subscription's, from any attempt; the others when that attempt is leased. The second
    /// is what must be committed because of it.
    pub(crate) fn settle(
        &mut self,
        id: &SubscriptionId,
        token: AckToken,
        verdict: Verdict,
        end: Offset,
        now: Moment,
    ) -> (bool, Option<Attempt>) {
        let AckToken { offset, attempt, .. } = token;
        let Some(subscriber) = self.subscribers.get_mut(id).filter(|_| offset < end) else {
            return (false, None);
        };
        match verdict {
            Verdict::Ack => {
                if subscriber.cursor().contains(offset) {
                    return (true, None);
                }
                if subscriber.cursor().runs_len() >= CURSOR_RUNS_MAX {
                    return (false, None);
                }
                self.done(id, offset, now.time);
                (true, None)
            }
            Verdict::Nack { delay, dead_letter } => {
                if !subscriber.is_leased(offset, attempt) {
                    return (false, None);
                }
                let retried = self.retry(id, offset, (delay, dead_letter), now.cluster);
                (retried.is_some(), retried)
            }
            Verdict::Extend { by } => {
                let to = now.time + by.unwrap_or_else(|| subscriber.ack_wait());
                let Some(before) = subscriber.extend(offset, attempt, to) else {
                    return (false, None);
                };
                self.deadlines.remove(&(before, id.clone(), offset));
                self.deadlines.insert((to, id.clone(), offset));
                (true, None)
            }
        }
    }

    fn retry(
        &mut self,
        id: &SubscriptionId,
        offset: Offset,
        (pause, rejected): (Option<Duration>, bool),
        now: WallTime,
    ) -> Option<Attempt> {
        let subscriber = self.subscribers.get_mut(id)?;
        let (deadline, attempt) = subscriber.retry(offset, pause, rejected, now)?;
        self.deadlines.remove(&(deadline, id.clone(), offset));
        self.touched.insert(id.clone());
        Some(attempt)
    }

    /// Ends the leases that are over; gives the attempts to commit before the messages are
    /// delivered again.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<Note> {
        let mut attempts: BTreeMap<SubscriptionId, Vec<Attempt>> = BTreeMap::new();
        while let Some((deadline, id, offset)) = self.deadlines.first().cloned() {
            if deadline > now.time {
                break;
            }
            let retried = self.retry(&id, offset, (None, false), now.cluster);
            attempts.entry(id).or_default().extend(retried);
        }
        let notes = attempts.into_iter().flat_map(|(id, attempts)| attempt_notes(&id, &attempts));
        notes.collect()
    }

    /// Makes ready what is due by now: delayed messages, and those that were tried before.
    pub(crate) fn mature(&mut self, ranked: &BTreeMap<Offset, Priority>, now: Moment) {
        while let Some(offset) = self.delays.pop(now.cluster) {
            self.prefer(offset, ranked.get(&offset).copied().unwrap_or_default());
        }
        while self.parked.first().is_some_and(|(due, ..)| *due <= now.cluster) {
            let (_, id, offset) = self.parked.pop_first().expect("there is one");
            if let Some(subscriber) = self.subscribers.get_mut(&id) {
                subscriber.matured(offset, now.cluster);
            }
            self.touched.insert(id);
        }
        while self.burials_again.first().is_some_and(|(at, ..)| *at <= now.time) {
            let (_, id, offset) = self.burials_again.pop_first().expect("there is one");
            self.burials.push_back((id, offset));
        }
    }

    /// The entries that acknowledgements since the last time make, when their delay is over.
    pub(crate) fn flush(&mut self, now: Time) -> Vec<Note> {
        if self.flush_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.flush_at = None;
        let mut notes = Vec::new();
        for (subscription, runs) in std::mem::take(&mut self.dirty) {
            let runs: Vec<(Offset, Offset)> = runs.iter().collect();
            for acked in runs.chunks(NOTE_ITEMS_MAX) {
                let (subscription, acked) = (subscription.clone(), acked.to_vec());
                notes.push(Note::Progress { subscription, acked });
            }
        }
        notes
    }

    /// Attempts were committed: the messages are ready, wait, or become dead letters.
    pub(crate) fn attempts_committed(
        &mut self,
        id: &SubscriptionId,
        attempts: &[Attempt],
        now: WallTime,
    ) {
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return;
        };
        let next = |attempt: &Attempt| Some((attempt.offset, subscriber.committed(attempt, now)?));
        let next: Vec<(Offset, Next)> = attempts.iter().filter_map(next).collect();
        next.into_iter().for_each(|(offset, next)| self.schedule(id, offset, next));
        self.touched.insert(id.clone());
    }

    /// The next dead letter to store.
    pub(crate) fn next_burial(&mut self) -> Option<Burial> {
        while let Some((subscription, offset)) = self.burials.pop_front() {
            let subscriber = self.subscribers.get(&subscription);
            let burying = subscriber.and_then(|held| Some((held.is_burying(offset)?, held)));
            if let Some((rejected, subscriber)) = burying {
                let attempts = subscriber.cursor().attempts(offset).saturating_sub(1);
                return Some(Burial { subscription, offset, attempts, rejected });
            }
        }
        None
    }

    /// A dead letter is stored, and its original done; or it is not, and tried again later.
    pub(crate) fn buried(&mut self, id: &SubscriptionId, offset: Offset, stored: bool, now: Time) {
        if stored {
            self.done(id, offset, now);
        } else {
            self.burials_again.insert((now + BURIAL_PAUSE, id.clone(), offset));
        }
    }

    /// Messages below `below` are gone.
    pub(crate) fn trim(&mut self, below: Offset) {
        self.delays.trim(below);
        for (id, subscriber) in &mut self.subscribers {
            for (deadline, offset) in subscriber.trim(below) {
                self.deadlines.remove(&(deadline, id.clone(), offset));
            }
            self.touched.insert(id.clone());
        }
    }

    /// The first message that is not due yet.
    pub(crate) fn first_delayed(&self) -> Option<Offset> {
        self.delays.offsets().first().copied()
    }

    /// Whose availability has changed since the last look, and to what.
    pub(crate) fn refresh(&mut self, end: Offset) -> Vec<(SubscriptionId, bool)> {
        if std::mem::replace(&mut self.seen_end, end) != end {
            let have_not = self.subscribers.keys().filter(|id| !self.available.contains(*id));
            let have_not: Vec<SubscriptionId> = have_not.cloned().collect();
            self.touched.extend(have_not);
        }
        let mut changed = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let waiting = self.delays.offsets();
            let held = self.subscribers.get_mut(&id);
            let has_some = held.is_some_and(|subscriber| subscriber.has_some(end, waiting));
            let before = self.available.contains(&id);
            if has_some != before {
                if has_some {
                    self.available.insert(id.clone());
                } else {
                    self.available.remove(&id);
                }
                changed.push((id, has_some));
            }
        }
        changed
    }

    /// When something happens in cluster time.
    pub(crate) fn next_due(&self) -> Option<WallTime> {
        let parked = self.parked.first().map(|(due, ..)| *due);
        [parked, self.delays.next()].into_iter().flatten().min()
    }

    /// When to expire a lease, to write acknowledgements, or to try a dead letter again.
    pub(crate) fn wakeup(&self, may_write: bool) -> Option<Time> {
        if !may_write {
            return None;
        }
        let deadline = self.deadlines.first().map(|&(at, ..)| at);
        let burial = self.burials_again.first().map(|&(at, ..)| at);
        [deadline, self.flush_at, burial].into_iter().flatten().min()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let leases: usize = self.subscribers.values().map(Subscriber::leases).sum();
        if leases != self.deadlines.len() {
            return Err(format!("{leases} leases, {} deadlines", self.deadlines.len()));
        }
        self.subscribers.values().try_for_each(Subscriber::check)
    }
}

/// Entries that announce attempts.
pub(crate) fn attempt_notes(id: &SubscriptionId, attempts: &[Attempt]) -> Vec<Note> {
    let note = |attempts: &[Attempt]| Note::Attempts {
        subscription: id.clone(),
        attempts: attempts.to_vec(),
    };
    attempts.chunks(NOTE_ITEMS_MAX).map(note).collect()
}
