//! Removing the oldest messages: when they are too old, when they are too many, when a client
//! says so. The removal is an entry of the log, so that every replica removes the same.

use std::collections::VecDeque;
use std::time::Duration;

use super::Partition;
use crate::broker::desk::{Desk, ReplyTo};
use crate::broker::replica::{Note, WINDOW_MILLIS_MAX};
use crate::ids::{EntryIndex, Offset};
use crate::machine::{Refused, Response, Time, WallTime};
use crate::zoo::{Bug, planted};

/// How many clients wait for a removal in a partition at most.
const TRIMS_MAX: usize = 64;
/// The shortest pause between two looks for what is too old or too much.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The pause until what was removed is looked at again, when its room is not given back yet.
const CUT_PAUSE: Duration = Duration::from_secs(10);

/// What a partition removes, and when.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// When to look for what is too old or too much.
    look_at: Option<Time>,
    /// Not before then.
    not_before: Time,
    /// Up to where a removal is in the log, committed or not.
    trimming: Offset,
    /// Up to where removed messages were counted.
    counted: Offset,
    /// Clients that wait for a removal, with its entry.
    waiting: VecDeque<(EntryIndex, ReplyTo)>,
}

impl Retention {
    pub(super) fn wakeup(&self) -> Option<Time> {
        self.look_at
    }
}

impl Partition {
    /// Decides when to look next; costs nothing, and so may be called often.
    pub(super) fn plan_retention(&mut self, desk: &Desk<'_>) {
        let (state, config) = (&self.replica.state, &self.view.config);
        self.retention.look_at = None;
        if !self.replica.serving() {
            return;
        }
        let holds = state.start.max(self.retention.trimming) < state.end;
        let by_age = config.retention.filter(|_| holds).and_then(|age| {
            let until = state.blocks.oldest_until(age.as_millis() as u64)?;
            Some(desk.bench.clock.when(until))
        });
        let heavy = holds && config.retention_bytes.is_some_and(|max| state.blocks.bytes() > max);
        let by_size = heavy.then_some(self.retention.not_before);
        let owed = self.replica.owes_cut().then_some(self.retention.not_before + CUT_PAUSE);
        let look_at = [by_age, by_size, owed].into_iter().flatten().min();
        self.retention.look_at = look_at.map(|at| at.max(self.retention.not_before));
    }

    /// Removes what is too old or too much.
    pub(super) fn retain(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now.since_start;
        if self.retention.look_at.is_none_or(|at| at > now) || !self.replica.serving() {
            return;
        }
        self.retention.not_before = now + LOOK_PAUSE;
        let (state, config) = (&self.replica.state, &self.view.config);
        let time = match planted(Bug::RetentionByTheWallClock) {
            true => desk.now.wall,
            false => desk.cluster_time,
        };
        let oldest = config.retention.and_then(|age| {
            let millis = time.0.checked_sub(age.as_millis() as u64)?;
            Some(WallTime(millis))
        });
        let keep = state.blocks.keep_from(oldest, config.retention_bytes, state.end);
        // What is not due yet has not been anybody's.
        let keep = keep.map(|keep| keep.min(self.deliveries.first_delayed().unwrap_or(keep)));
        if let Some(below) = keep.filter(|keep| *keep > self.retention.trimming) {
            self.append_trim(below, desk);
        } else if self.replica.owes_cut() {
            self.give_room_back(desk);
        }
        self.plan_retention(desk);
    }

    fn append_trim(&mut self, below: Offset, desk: &mut Desk<'_>) {
        self.retention.trimming = below;
        self.write_notes(vec![Note::Trim { below }], desk);
    }

    /// The disk still holds what was removed: because the window is read back from it, or because
    /// no state was stored since.
    fn give_room_back(&mut self, desk: &mut Desk<'_>) {
        let state = &self.replica.state;
        let (below, idle) = (state.start, desk.cluster_time.0.saturating_sub(state.time.0));
        let held = state.window.first().is_some_and(|first| first < self.replica.first());
        if held && idle > WINDOW_MILLIS_MAX {
            // An entry whose time lets the window forget.
            self.append_trim(below, desk);
        } else if !held && !self.replica.store_soon() {
            self.store_state(desk);
        }
    }

    /// Goes on from what was removed before this reign.
    pub(super) fn begin_retention(&mut self) {
        let start = self.replica.state.start;
        (self.retention.trimming, self.retention.counted) = (start, start);
    }

    /// A removal is committed.
    pub(super) fn trimmed(&mut self, desk: &mut Desk<'_>) {
        let start = self.replica.state.start;
        self.deliveries.trim(start);
        let gone = start.0.saturating_sub(self.retention.counted.0);
        desk.counters().trimmed += gone;
        self.retention.counted = start;
    }

    /// A client removes messages.
    pub(in crate::broker) fn trim(&mut self, reply: ReplyTo, below: Offset, desk: &mut Desk<'_>) {
        if !self.replica.serving() {
            return desk.refuse(reply, self.not_serving());
        }
        if self.retention.waiting.len() >= TRIMS_MAX {
            return desk.refuse(reply, Refused::Overloaded("too many removals wait"));
        }
        let below = below.min(self.replica.state.end);
        if below <= self.replica.state.start {
            let start = self.replica.state.start;
            return desk.answer(reply, Response::Trimmed { start });
        }
        self.append_trim(below.max(self.retention.trimming), desk);
        self.retention.waiting.push_back((self.replica.last(), reply));
    }

    /// Answers whose removal is committed.
    pub(super) fn answer_trims(&mut self, desk: &mut Desk<'_>) {
        let (commit, start) = (self.replica.commit(), self.replica.state.start);
        let waiting = &mut self.retention.waiting;
        while let Some((_, reply)) = waiting.pop_front_if(|(at, _)| *at <= commit) {
            desk.answer(reply, Response::Trimmed { start });
        }
    }

    /// Leaves them unknown: their partition is gone.
    pub(super) fn abandon_trims(&mut self, desk: &mut Desk<'_>) {
        for (_, reply) in std::mem::take(&mut self.retention.waiting) {
            desk.answer(reply, Response::Unknown);
        }
    }
}
