//! One subscription in one partition, as its leader serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::ready::Ready;
use crate::broker::replica::{Attempt, Cursor, Record};
use crate::cluster::subscription::Subscription;
use crate::ids::{Offset, Priority};
use crate::machine::{Time, WallTime};
use crate::zoo::{Bug, planted};

/// How many messages of a partition a subscription holds unacknowledged at most.
pub const WINDOW_MESSAGES_MAX: usize = 1_000;
/// How many bytes of them; one message more may pass it.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;
/// How many messages are known to be ready out of order at most; beyond, a message of another
/// priority comes when its turn in the log does.
pub const READY_MAX: usize = 10_000;
/// How many urgent messages in a row pass the others at most.
pub const URGENT_RUN_MAX: u32 = 8;
/// How many messages in a row pass those that are less urgent than normal at most.
pub const NORMAL_RUN_MAX: u32 = 64;

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
    priority: Priority,
    bytes: usize,
}

/// A message that is to be delivered again, later.
#[derive(Clone, Copy, Debug)]
struct Parked {
    attempt: u32,
    priority: Priority,
    due: WallTime,
    /// Whether the attempt is committed; before that it waits for it, not for its time.
    committed: bool,
    /// Whether its member wants it to be a dead letter.
    rejected: bool,
}

/// What is to become of a message that was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is ready.
    Ready,
    /// It waits until then.
    Wait(WallTime),
    /// It becomes a dead letter.
    Bury,
}

/// What is leased, ready, parked or buried, and what comes next in the log.
///
/// Invariants, checked by [`Subscriber::check`]: (1) no message is any of these that is
/// acknowledged; (2) no message is two of them at once; (3) the window's bound holds.
#[derive(Debug)]
pub(crate) struct Subscriber {
    subscription: Arc<Subscription>,
    /// The committed cursor and the acknowledgements since.
    cursor: Cursor,
    /// Whether undeliverable messages have a topic to go to.
    buries: bool,
    /// The first message that was never taken in this reign.
    next: Offset,
    leases: BTreeMap<Offset, Lease>,
    leased_bytes: usize,
    ready: Ready,
    parked: BTreeMap<Offset, Parked>,
    /// On their way to the dead letters, with whether their member rejected them.
    burying: BTreeMap<Offset, bool>,
    /// How many of one kind in a row passed the other.
    urgent_run: u32,
    normal_run: u32,
}

impl Subscriber {
    pub(crate) fn new(subscription: Arc<Subscription>, cursor: Cursor, buries: bool) -> Self {
        let next = cursor.floor();
        Self {
            subscription,
            cursor,
            buries,
            next,
            leases: BTreeMap::new(),
            leased_bytes: 0,
            ready: Ready::default(),
            parked: BTreeMap::new(),
            burying: BTreeMap::new(),
            urgent_run: 0,
            normal_run: 0,
        }
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    pub(crate) fn ack_wait(&self) -> Duration {
        self.subscription.delivery.ack_wait
    }

    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Whether something could be delivered; `waiting` are the messages that are delayed.
    pub(crate) fn has_some(&mut self, end: Offset, waiting: &BTreeSet<Offset>) -> bool {
        self.room() > 0 && (self.ready.len() > 0 || self.stream(end, waiting).is_some())
    }

    /// Whether the window holds as many bytes as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.leased_bytes >= WINDOW_BYTES_MAX && !planted(Bug::WindowWithoutBound)
    }

    /// How many more messages the window takes.
    fn room(&self) -> usize {
        if self.is_full() {
            return 0;
        }
        let held = self.leases.len() + self.parked.len() + self.burying.len();
        WINDOW_MESSAGES_MAX.saturating_sub(held)
    }

    /// The next message in the log's order that is neither done, nor held, nor delayed.
    fn stream(&mut self, end: Offset, waiting: &BTreeSet<Offset>) -> Option<Offset> {
        loop {
            self.next = self.cursor.first_open(self.next);
            if self.next >= end {
                return None;
            }
            let delayed = waiting.contains(&self.next) && !planted(Bug::DelayIgnored);
            if !self.holds(self.next) && !delayed {
                return Some(self.next);
            }
            self.next = self.next.next();
        }
    }

    /// Whether a message is leased, ready, parked or buried.
    fn holds(&self, offset: Offset) -> bool {
        self.leases.contains_key(&offset)
            || self.ready.contains(offset)
            || self.parked.contains_key(&offset)
            || self.burying.contains_key(&offset)
    }

    /// Leases the next messages, as runs in the order of delivery.
    pub(crate) fn take(
        &mut self,
        end: Offset,
        waiting: &BTreeSet<Offset>,
        count_max: usize,
        now: Time,
    ) -> Vec<Run> {
        let deadline = now + self.ack_wait();
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..count_max.min(self.room()) {
            let stream = self.stream(end, waiting);
            let Some((offset, priority, attempt)) = self.choose(stream) else { break };
            self.leases.insert(offset, Lease { deadline, attempt, priority, bytes: 0 });
            match runs.last_mut() {
                Some(run) if run.from.0 + run.count as u64 == offset.0 => run.count += 1,
                Some(_) | None => runs.push(Run { from: offset, count: 1 }),
            }
        }
        runs
    }

    /// The most urgent goes first, but lets the others pass now and then. Of normal priority, what
    /// is ready stands before the stream: order is kept.
    fn choose(&mut self, stream: Option<Offset>) -> Option<(Offset, Priority, u32)> {
        let (urgent, idle) = (self.ready.first_urgent(), self.ready.first_idle());
        let normal = self.ready.first_normal();
        let has_normal = normal.is_some() || stream.is_some();
        if let Some(offset) = urgent {
            let passes = has_normal || idle.is_some();
            self.urgent_run += u32::from(passes);
            if !passes || self.urgent_run <= URGENT_RUN_MAX {
                return self.choose_ready(offset);
            }
        }
        self.urgent_run = 0;
        if let Some(offset) = idle {
            self.normal_run += u32::from(has_normal);
            if !has_normal || self.normal_run > NORMAL_RUN_MAX {
                self.normal_run = 0;
                return self.choose_ready(offset);
            }
        }
        if let Some(offset) = normal {
            return self.choose_ready(offset);
        }
        let offset = stream?;
        self.next = offset.next();
        Some((offset, Priority::NORMAL, self.cursor.attempts(offset)))
    }

    fn choose_ready(&mut self, offset: Offset) -> Option<(Offset, Priority, u32)> {
        let (priority, attempt) = self.ready.remove(offset)?;
        Some((offset, priority, attempt))
    }

    /// Whether a message that was read is wanted.
    pub(crate) fn wants(&self, record: &Record) -> bool {
        use crate::broker::replica::Body;
        let filter = &self.subscription.delivery.filter;
        if filter.is_open() {
            return true;
        }
        match record.body() {
            Ok(Body::Message(draft)) => {
                filter.passes(draft.envelope.key.as_deref(), &draft.envelope.headers)
            }
            // What does not read is for the reader to say.
            Ok(Body::Note(_)) | Err(_) => true,
        }
    }

    /// A leased message is handed out; gives its attempt, or nothing if the lease is gone.
    pub(crate) fn delivered(&mut self, offset: Offset, bytes: usize) -> Option<u32> {
        let lease = self.leases.get_mut(&offset)?;
        self.leased_bytes += bytes;
        self.leased_bytes -= std::mem::replace(&mut lease.bytes, bytes);
        Some(lease.attempt)
    }

    /// A leased message could not be handed out: it is ready, at the same attempt.
    pub(crate) fn release(&mut self, offset: Offset) -> Option<Time> {
        let lease = self.end_lease(offset)?;
        self.ready.insert(offset, lease.priority, lease.attempt);
        Some(lease.deadline)
    }

    /// Acknowledges; gives the deadline of the lease that this ends.
    pub(crate) fn acknowledge(&mut self, offset: Offset) -> Option<Time> {
        self.cursor.acknowledge(offset);
        self.ready.remove(offset);
        self.parked.remove(&offset);
        self.burying.remove(&offset);
        self.end_lease(offset).map(|lease| lease.deadline)
    }

    /// Moves a lease's deadline; gives the former one, or nothing when there is no such lease.
    pub(crate) fn extend(&mut self, offset: Offset, attempt: u32, to: Time) -> Option<Time> {
        let lease = self.leases.get_mut(&offset).filter(|lease| lease.attempt == attempt)?;
        Some(std::mem::replace(&mut lease.deadline, to))
    }

    /// Whether this delivery of the message is leased.
    pub(crate) fn is_leased(&self, offset: Offset, attempt: u32) -> bool {
        self.leases.get(&offset).is_some_and(|lease| lease.attempt == attempt)
    }

    /// The lease is over: gives its deadline, and the attempt that is to be committed next.
    /// Without a pause of its own, the message waits for the subscription's.
    pub(crate) fn retry(
        &mut self,
        offset: Offset,
        pause: Option<Duration>,
        rejected: bool,
        now: WallTime,
    ) -> Option<(Time, Attempt)> {
        let lease = self.end_lease(offset)?;
        let delivery = &self.subscription.delivery;
        let rejected = rejected && self.buries;
        let number = lease.attempt.saturating_add(1);
        let pause = pause.unwrap_or_else(|| delivery.pause(number));
        let after = WallTime(now.0.saturating_add(pause.as_millis() as u64));
        let due = if pause.is_zero() { WallTime(0) } else { after };
        let (attempt, priority) = (number, lease.priority);
        let parked = Parked { attempt, priority, due, committed: false, rejected };
        self.parked.insert(offset, parked);
        Some((lease.deadline, Attempt { offset, number, due }))
    }

    /// Whether a message that is to be delivered for the `number`th time is a dead letter.
    fn is_dead(&self, number: u32) -> bool {
        self.buries && number > self.subscription.delivery.max_deliver
    }

    /// An attempt was committed: what is to become of the message, unless it is done meanwhile.
    pub(crate) fn committed(&mut self, attempt: &Attempt, now: WallTime) -> Option<Next> {
        let &Attempt { offset, number, due } = attempt;
        let parked = self.parked.get_mut(&offset).filter(|parked| parked.attempt == number)?;
        parked.committed = true;
        self.cursor.attempt(attempt);
        let rejected = parked.rejected;
        if rejected || self.is_dead(number) {
            self.parked.remove(&offset);
            self.burying.insert(offset, rejected);
            return Some(Next::Bury);
        }
        if due > now {
            return Some(Next::Wait(due));
        }
        self.matured(offset, now);
        Some(Next::Ready)
    }

    /// What was committed of messages tried before: what is to become of each.
    pub(crate) fn resume(&mut self, now: WallTime) -> Vec<(Offset, Next)> {
        let tried: Vec<Attempt> = self.cursor.tried().collect();
        let mut all = Vec::new();
        for Attempt { offset, number, due } in tried {
            if self.is_dead(number) {
                self.burying.insert(offset, false);
                all.push((offset, Next::Bury));
            } else if due > now {
                let (priority, rejected) = (Priority::NORMAL, false);
                let parked = Parked { attempt: number, priority, due, committed: true, rejected };
                self.parked.insert(offset, parked);
                all.push((offset, Next::Wait(due)));
            }
        }
        all
    }

    /// A parked message's time has come.
    pub(crate) fn matured(&mut self, offset: Offset, now: WallTime) {
        if let Some(parked) = self.parked.get(&offset).copied()
            && parked.committed
            && parked.due <= now
        {
            self.parked.remove(&offset);
            self.ready.insert(offset, parked.priority, parked.attempt);
        }
    }

    /// A delayed message is due, or one of another priority was committed: it need not wait for
    /// its turn in the log.
    pub(crate) fn prefer(&mut self, offset: Offset, priority: Priority) {
        let crowded = offset >= self.next && self.ready.len() >= READY_MAX;
        if !crowded && !self.cursor.contains(offset) && !self.holds(offset) {
            self.ready.insert(offset, priority, self.cursor.attempts(offset));
        }
    }

    /// Whether a message is on its way to the dead letters; and whether its member rejected it.
    pub(crate) fn is_burying(&self, offset: Offset) -> Option<bool> {
        self.burying.get(&offset).copied()
    }

    /// Messages below `below` are gone; gives the deadlines of the leases that this ends.
    pub(crate) fn trim(&mut self, below: Offset) -> Vec<(Time, Offset)> {
        self.cursor.cover(Offset(0), below);
        self.next = self.next.max(below);
        self.ready.trim(below);
        self.parked = self.parked.split_off(&below);
        self.burying = self.burying.split_off(&below);
        let gone: Vec<Offset> = self.leases.range(..below).map(|(&offset, _)| offset).collect();
        let end = |offset| self.end_lease(offset).map(|lease| (lease.deadline, offset));
        gone.into_iter().filter_map(end).collect()
    }

    fn end_lease(&mut self, offset: Offset) -> Option<Lease> {
        let lease = self.leases.remove(&offset)?;
        self.leased_bytes -= lease.bytes;
        Some(lease)
    }

    /// The deadlines of all leases.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = (Time, Offset)> {
        self.leases.iter().map(|(&offset, lease)| (lease.deadline, offset))
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.leases.len() > WINDOW_MESSAGES_MAX {
            return Err(format!(
                "{} leases, the bound is {WINDOW_MESSAGES_MAX}",
                self.leases.len()
            ));
        }
        let longest = self.leases.values().map(|lease| lease.bytes).max().unwrap_or(0);
        if self.leased_bytes - longest >= WINDOW_BYTES_MAX && longest > 0 {
            let bytes = self.leased_bytes;
            return Err(format!("{bytes} bytes leased, the bound is {WINDOW_BYTES_MAX}"));
        }
        let aside = self.parked.keys().chain(self.burying.keys()).copied();
        let held = self.leases.keys().copied().chain(self.ready.offsets()).chain(aside);
        let mut seen = BTreeSet::new();
        for offset in held {
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
