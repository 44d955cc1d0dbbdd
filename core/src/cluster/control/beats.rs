//! Heartbeats to every voter, their answers, and cluster time, which the answers carry.

use std::time::Duration;

use super::Control;
use crate::cluster::controller::TICK;
use crate::cluster::message::{ControlMessage, Heartbeat, HeartbeatAnswer, Known};
use crate::ids::{Boot, DiskId};
use crate::machine::{ControlEffect, Halt, Now, Time};
use crate::zoo::{Bug, planted};

/// How often a node says to every voter that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// How old the answer to a heartbeat may be for its clock to be believed.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
/// How often cluster time is corrected.
const CORRECTION_INTERVAL: Duration = Duration::from_secs(1);
/// Smaller differences than this, in microseconds, are not corrected: the way of a message is as
/// uncertain.
const DIFFERENCE_MIN: u64 = 1_000;

impl Control {
    /// The identities of the voters, ascending.
    pub(super) fn voters(&self) -> Vec<DiskId> {
        let voters = self.controller.status().voters.iter();
        let mut disks: Vec<DiskId> = voters.filter_map(|id| self.view.disk_of(*id)).collect();
        disks.sort_unstable();
        disks
    }

    /// How often to look around: not at all where there is nobody else.
    pub(super) fn rhythm(&self) -> Option<Duration> {
        let alone = self.view.nodes.len() == 1 && self.voters() == [self.said.disk];
        if alone && self.registered() && self.creating.is_empty() {
            None
        } else if self.controller.status().is_leader_ready {
            Some(TICK)
        } else {
            Some(HEARTBEAT_INTERVAL)
        }
    }

    /// Tells every voter that this node lives. A run that is not registered yet counts for nothing
    /// there, and asks so what time it is.
    pub(super) fn beat(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let is_known = self.view.nodes.contains_key(&self.said.disk);
        if now.since_start < self.beat_at || !is_known || self.farewell.is_some() {
            return;
        }
        self.beat_at = now.since_start + HEARTBEAT_INTERVAL;
        let (sent, applied) = (now.since_start.0, self.view.version);
        for to in self.voters().into_iter().filter(|voter| *voter != self.said.disk) {
            let beat = Heartbeat { sent, wall: now.wall, applied };
            let message = ControlMessage::Heartbeat(beat);
            effects.push(ControlEffect::Send { to, run: None, message });
        }
    }

    /// A node lives. It is told what this one knows of it, so that a run that was overtaken ends.
    pub(super) fn beaten(
        &mut self,
        from: (DiskId, Boot),
        beat: &Heartbeat,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        if !self.controller.hear(from, beat, now) {
            self.ignored += 1;
        }
        let known = match self.view.nodes.get(&from.0) {
            Some(node) => Known::Run(node.boot),
            None if self.view.retired.contains_key(&from.0) => Known::Retired,
            None => Known::Unknown,
        };
        let time = self.time_to_tell(now);
        let answer = HeartbeatAnswer { sent: beat.sent, wall: now.wall, time, known };
        let message = ControlMessage::HeartbeatAnswer(answer);
        effects.push(ControlEffect::Send { to: from.0, run: Some(from.1), message });
    }

    /// A voter has answered.
    pub(super) fn beat_answered(
        &mut self,
        from: DiskId,
        answer: &HeartbeatAnswer,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let mine = self.said.boot;
        match answer.known {
            Known::Run(known) if known > mine => {
                return self.halt(Halt::Outdated { mine, known }, effects);
            }
            Known::Retired => return self.halt(Halt::Retired, effects),
            Known::Unknown if planted(Bug::UnknownTakenForRetired) => {
                return self.halt(Halt::Retired, effects);
            }
            Known::Run(_) | Known::Unknown => {}
        }
        let sent = Time(answer.sent);
        let is_odd = sent > now.since_start || now.since_start.since(sent) > ANSWER_AGE_MAX;
        if is_odd || !self.voters().contains(&from) {
            self.ignored += 1;
            return;
        }
        self.clocks.answered(from, (sent, now.since_start), answer.wall, answer.time);
    }

    /// Cluster time, if this run knows it.
    pub(super) fn time_to_tell(&self, now: Now) -> Option<u64> {
        self.registered().then(|| self.clock.micros_at(now.since_start))
    }

    /// Brings cluster time nearer to what the voters' clocks show, by and by. While this run has
    /// not begun, and so has used it for nothing, it is set at once.
    pub(super) fn correct_time(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let is_used = self.registered();
        // What the answer to the registration said is right.
        let is_told = !is_used && self.enrolment.is_timed();
        if is_told || is_used && now.since_start < self.correct_at {
            return;
        }
        let here = self.clock.micros_at(now.since_start);
        let voters = self.voters();
        let target = match is_used {
            true => self.clocks.target(now, self.said.disk, &voters, here),
            false => self.clocks.beginning(now, self.said.disk, &voters, self.newest),
        };
        let Some(target) = target.filter(|target| target.abs_diff(here) >= DIFFERENCE_MIN) else {
            return;
        };
        self.correct_at = now.since_start + CORRECTION_INTERVAL;
        if is_used {
            self.clock.slew(now.since_start, target);
        } else {
            self.clock.set(now.since_start, target);
        }
        effects.push(ControlEffect::Tell(self.clock));
    }
}
