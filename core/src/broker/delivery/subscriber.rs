//! One subscription in one partition, as its leader serves it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::replica::Cursor;
use crate::ids::Offset;
use crate::machine::Time;

/// How many messages of a partition a subscription holds unacknowledged at most.
pub const WINDOW_MESSAGES_MAX: usize = 1_000;
/// How many bytes of them; one message more may pass it.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;

/// Consecutive messages reserved for one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: Offset,
    pub(crate) count: usize,
}

impl Run {
    pub(crate) fn offsets(self) -> impl Iterator<Item = Offset> {
        (self.from.0..self.from.0 + self.count as u64).map(Offset)
    }
}

/// A message that a member holds.
#[derive(Clone, Copy, Debug)]
struct Lease {
    deadline: Time,
    attempt: u32,
    bytes: usize,
}

/// What is leased, what is due again, what comes next.
///
/// Invariants, checked by [`Subscriber::check`]: (1) no message is leased, due or retried that is
/// acknowledged; (2) no message is two of these at once; (3) the window's bound holds.
#[derive(Debug)]
pub(crate) struct Subscriber {
    /// The committed cursor and the acknowledgements since.
    cursor: Cursor,
    ack_wait: Duration,
    /// The first message that was never taken in this reign.
    next: Offset,
    leases: BTreeMap<Offset, Lease>,
    leased_bytes: usize,
    /// Ready to be delivered again, with the attempt.
    due: BTreeMap<Offset, u32>,
    /// Expired; the next attempt is being committed.
    retried: BTreeMap<Offset, u32>,
}

impl Subscriber {
    pub(crate) fn new(cursor: Cursor, ack_wait: Duration) -> Self {
        let next = cursor.floor();
        let (leases, due, retried) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { cursor, ack_wait, next, leases, leased_bytes: 0, due, retried }
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) fn ack_wait(&self) -> Duration {
        self.ack_wait
    }

    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn has_some(&self, end: Offset) -> bool {
        self.room() > 0 && (!self.due.is_empty() || self.cursor.first_open(self.next) < end)
    }

    /// How many more messages the window takes.
    fn room(&self) -> usize {
        if self.leased_bytes >= WINDOW_BYTES_MAX {
            return 0;
        }
        WINDOW_MESSAGES_MAX.saturating_sub(self.leases.len() + self.retried.len())
    }

    /// Leases the next run: what is due again comes first.
    pub(crate) fn take(&mut self, end: Offset, count_max: usize, now: Time) -> Option<Run> {
        let count_max = count_max.min(self.room());
        if count_max == 0 {
            return None;
        }
        let deadline = now + self.ack_wait;
        let (from, again) = match self.due.first_key_value() {
            Some((&offset, _)) => (offset, true),
            None => (self.cursor.first_open(self.next), false),
        };
        let mut count = 0;
        let mut offset = from;
        while count < count_max && offset < end {
            let attempt = if again {
                let Some(attempt) = self.due.remove(&offset) else { break };
                attempt
            } else if self.cursor.contains(offset) {
                break;
            } else {
                self.next = offset.next();
                self.cursor.attempts(offset)
            };
            self.leases.insert(offset, Lease { deadline, attempt, bytes: 0 });
            count += 1;
            offset = offset.next();
        }
        (count > 0).then_some(Run { from, count })
    }

    /// A leased message is handed out; gives its attempt, or nothing if the lease is gone.
    pub(crate) fn delivered(&mut self, offset: Offset, bytes: usize) -> Option<u32> {
        let lease = self.leases.get_mut(&offset)?;
        self.leased_bytes += bytes - std::mem::replace(&mut lease.bytes, bytes);
        Some(lease.attempt)
    }

    /// A leased message could not be handed out: it is due, at the same attempt.
    pub(crate) fn release(&mut self, offset: Offset) -> Option<Time> {
        let lease = self.end_lease(offset)?;
        self.due.insert(offset, lease.attempt);
        Some(lease.deadline)
    }

    /// Acknowledges; gives the deadline of the lease that this ends.
    pub(crate) fn acknowledge(&mut self, offset: Offset) -> Option<Time> {
        self.cursor.acknowledge(offset);
        self.due.remove(&offset);
        self.retried.remove(&offset);
        self.end_lease(offset).map(|lease| lease.deadline)
    }

    /// The lease is over; gives the attempt that is to be committed next.
    pub(crate) fn expire(&mut self, offset: Offset) -> Option<u32> {
        let attempt = self.end_lease(offset)?.attempt.saturating_add(1);
        self.retried.insert(offset, attempt);
        Some(attempt)
    }

    /// An attempt was committed: the message is due, unless it was acknowledged meanwhile.
    pub(crate) fn due(&mut self, offset: Offset, attempt: u32) {
        if self.retried.remove(&offset).is_some() {
            self.cursor.attempt(offset, attempt);
            self.due.insert(offset, attempt);
        }
    }

    fn end_lease(&mut self, offset: Offset) -> Option<Lease> {
        let lease = self.leases.remove(&offset)?;
        self.leased_bytes -= lease.bytes;
        Some(lease)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.leases.len() > WINDOW_MESSAGES_MAX {
            return Err(format!(
                "{} leases, the bound is {WINDOW_MESSAGES_MAX}",
                self.leases.len()
            ));
        }
        let held = self.leases.keys().chain(self.due.keys()).chain(self.retried.keys());
        let mut seen = std::collections::BTreeSet::new();
        for &offset in held {
            if self.cursor.contains(offset) {
                return Err(format!("message {offset} is acknowledged and held"));
            }
            if !seen.insert(offset) {
                return Err(format!("message {offset} is held twice"));
            }
        }
        self.cursor.check()
    }
}
