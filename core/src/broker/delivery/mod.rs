//! Who has received what of a partition: leases, deadlines, repeats.
//!
//! The committed truth is the cursor in the partition's state. What lives here is known to the
//! leader alone and lost with it: then what was leased is delivered again, and nothing is skipped.

mod subscriber;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use subscriber::{Run, Subscriber};
pub use subscriber::{WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX};
pub use token::{AckToken, BadToken, Delivered};

use super::replica::{CURSOR_RUNS_MAX, Cursor, Note, Record};
use crate::ids::{Offset, SubscriptionId};
use crate::machine::Time;

/// How long acknowledgements wait before they are written, so that many share one entry.
pub const PROGRESS_DELAY: Duration = Duration::from_millis(50);
/// How many attempts one entry announces at most.
const ATTEMPTS_MAX: usize = 1_000;

/// All subscriptions of one partition, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    /// When a lease ends, whose, and of which message.
    deadlines: BTreeSet<(Time, SubscriptionId, Offset)>,
    /// Whose acknowledgements are not yet written.
    dirty: BTreeSet<SubscriptionId>,
    /// When to write them.
    flush_at: Option<Time>,
}

impl Deliveries {
    /// Begins to serve a subscription from its committed cursor.
    pub(crate) fn serve(&mut self, id: &SubscriptionId, cursor: &Cursor, ack_wait: Duration) {
        self.subscribers
            .entry(id.clone())
            .or_insert_with(|| Subscriber::new(cursor.clone(), ack_wait));
    }

    /// Whether something could be delivered now; `end` is the partition's end.
    pub(crate) fn has_some(&self, id: &SubscriptionId, end: Offset) -> bool {
        self.subscribers.get(id).is_some_and(|subscriber| subscriber.has_some(end))
    }

    /// Reserves the next run of messages for a reader, leased from now on.
    pub(crate) fn take(
        &mut self,
        id: &SubscriptionId,
        end: Offset,
        count_max: usize,
        now: Time,
    ) -> Option<Run> {
        let subscriber = self.subscribers.get_mut(id)?;
        let run = subscriber.take(end, count_max, now)?;
        let deadline = now + subscriber.ack_wait();
        for offset in run.offsets() {
            self.deadlines.insert((deadline, id.clone(), offset));
        }
        Some(run)
    }

    /// The run was read: pairs each message with its attempt. What was reserved but not read, and
    /// what was acknowledged meanwhile, is given back.
    pub(crate) fn deliver(
        &mut self,
        id: &SubscriptionId,
        run: &Run,
        records: Vec<Record>,
    ) -> Vec<(Record, u32)> {
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return Vec::new();
        };
        let mut delivered = Vec::with_capacity(records.len());
        let mut unread: BTreeSet<Offset> = run.offsets().collect();
        for record in records {
            let offset = record.header().offset;
            if unread.remove(&offset)
                && let Some(attempt) = subscriber.delivered(offset, record.len())
            {
                delivered.push((record, attempt));
            }
        }
        for offset in unread {
            if let Some(deadline) = subscriber.release(offset) {
                self.deadlines.remove(&(deadline, id.clone(), offset));
            }
        }
        delivered
    }

    /// Takes an acknowledgement. False when the message is none of this subscription's, or when
    /// too many separate runs are acknowledged already.
    pub(crate) fn acknowledge(
        &mut self,
        id: &SubscriptionId,
        offset: Offset,
        end: Offset,
        now: Time,
    ) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(id) else {
            return false;
        };
        if offset >= end || subscriber.cursor().runs_len() >= CURSOR_RUNS_MAX {
            return false;
        }
        if subscriber.cursor().contains(offset) {
            return true;
        }
        if let Some(deadline) = subscriber.acknowledge(offset) {
            self.deadlines.remove(&(deadline, id.clone(), offset));
        }
        self.dirty.insert(id.clone());
        self.flush_at.get_or_insert(now + PROGRESS_DELAY);
        true
    }

    /// Ends the leases that are over at `now`; gives the attempts to commit before the messages
    /// are delivered again.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Note> {
        let mut attempts: BTreeMap<SubscriptionId, Vec<(Offset, u32)>> = BTreeMap::new();
        while let Some((deadline, id, offset)) = self.deadlines.pop_first() {
            if deadline > now {
                self.deadlines.insert((deadline, id, offset));
                break;
            }
            if let Some(subscriber) = self.subscribers.get_mut(&id)
                && let Some(attempt) = subscriber.expire(offset)
            {
                attempts.entry(id).or_default().push((offset, attempt));
            }
        }
        let mut notes = Vec::new();
        for (subscription, attempts) in attempts {
            for attempts in attempts.chunks(ATTEMPTS_MAX) {
                let (subscription, attempts) = (subscription.clone(), attempts.to_vec());
                notes.push(Note::Attempts { subscription, attempts });
            }
        }
        notes
    }

    /// The entries that acknowledgements since the last time make, when their delay is over.
    pub(crate) fn flush(&mut self, now: Time) -> Vec<Note> {
        if self.flush_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.flush_at = None;
        let dirty = std::mem::take(&mut self.dirty);
        let progress = |subscription: SubscriptionId| {
            let cursor = self.subscribers.get(&subscription)?.cursor();
            let (floor, above) = (cursor.floor(), cursor.runs());
            Some(Note::Progress { subscription, floor, above })
        };
        dirty.into_iter().filter_map(progress).collect()
    }

    /// Attempts were committed: the messages are due.
    pub(crate) fn attempts_committed(&mut self, id: &SubscriptionId, attempts: &[(Offset, u32)]) {
        if let Some(subscriber) = self.subscribers.get_mut(id) {
            attempts.iter().for_each(|&(offset, number)| subscriber.due(offset, number));
        }
    }

    /// The subscriptions that are served here.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &SubscriptionId> {
        self.subscribers.keys()
    }

    /// When to expire a lease or to write acknowledgements.
    pub(crate) fn wakeup(&self, may_write: bool) -> Option<Time> {
        if !may_write {
            return None;
        }
        let deadline = self.deadlines.first().map(|&(at, ..)| at);
        [deadline, self.flush_at].into_iter().flatten().min()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let leases: usize = self.subscribers.values().map(Subscriber::leases).sum();
        if leases != self.deadlines.len() {
            return Err(format!("{leases} leases, {} deadlines", self.deadlines.len()));
        }
        self.subscribers.values().try_for_each(Subscriber::check)
    }
}
