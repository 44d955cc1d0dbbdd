//! How this run becomes registered: as the founder, as the leader, or by asking around; and when
//! it must not go on.

use std::time::Duration;

use super::Control;
use super::wishes::create;
use crate::cluster::controller::{Asker, Outcome, already, is_registered};
use crate::cluster::message::{ControlMessage, JoinAnswer, JoinRefused, Joined};
use crate::cluster::metadata::{Change, NODES_MAX, Registration};
use crate::cluster::verdicts::Verdict;
use crate::ids::{Boot, ClusterId, DiskId};
use crate::machine::{ControlEffect, Halt, Now, Time};

/// How often a node asks to be registered.
pub const JOIN_INTERVAL: Duration = Duration::from_millis(500);
/// For how long a node asks on that is refused because somebody else seems to live: a process that
/// was killed has a session for a second and a half.
pub const REFUSAL_PATIENCE: Duration = Duration::from_secs(3);
/// For how long a node waits to be told cluster time before it begins by what it has.
const CLOCKS_WAIT: Duration = Duration::from_secs(2);
/// When to ask again after the answer was yes, should the metadata never show it.
const JOINED_WAIT: Duration = Duration::from_secs(5);

/// A registration under way.
#[derive(Debug, Default)]
pub(super) struct Enrolment {
    /// When to ask, or to ask again.
    ask_at: Time,
    /// How often it was asked: whom to ask next.
    turn: usize,
    /// Since when it has been refused for a reason that may pass.
    refused_since: Option<Time>,
    /// Since when only cluster time is missing.
    waits_since: Option<Time>,
    /// Whether cluster time is known.
    timed: bool,
    /// Whether the run acts.
    began: bool,
    /// Whether the driver knows that the run is registered.
    joined: bool,
}

impl Enrolment {
    pub(super) fn is_timed(&self) -> bool {
        self.timed
    }
}

impl Control {
    /// Whether this run is registered and knows cluster time: before that it does nothing for
    /// anybody, and shows no view that would have the node's other parts act.
    pub(super) fn registered(&self) -> bool {
        self.enrolment.began && is_registered(&self.view, &self.said)
    }

    /// The metadata may show that this run is registered, or it may have become known what time
    /// that was waiting for. Says whether the run begins with it.
    pub(super) fn begin(&mut self, now: Now, effects: &mut Vec<ControlEffect>) -> bool {
        if self.enrolment.began || !is_registered(&self.view, &self.said) {
            return false;
        }
        if !self.enrolment.timed {
            self.correct_time(now, effects);
            self.enrolment.timed = self.knows_time(now);
        }
        self.enrolment.began = self.enrolment.timed;
        if self.enrolment.began {
            self.begin_serving(now, effects);
        }
        self.enrolment.began
    }

    /// Asks to be registered, if this is the time.
    pub(super) fn enrol(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if self.registered() || now.since_start < self.enrolment.ask_at {
            return;
        }
        if self.controller.acts(&self.view, now) {
            self.enrol_as_leader(now, effects);
        } else {
            self.ask_to_join(now, effects);
        }
    }

    fn enrol_as_leader(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if !self.knows_time(now) {
            return;
        }
        self.enrolment.ask_at = now.since_start + JOIN_INTERVAL;
        let Some(cluster) = self.view.cluster else {
            if let Some(cluster) = self.founds {
                effects.push(ControlEffect::Decide(Change::Found { cluster }));
                effects.push(ControlEffect::Decide(Change::Register(self.said.clone())));
            }
            return;
        };
        let time = self.time_to_tell(now);
        let (view, said) = (self.view.clone(), self.said.clone());
        let at = (&*view, now, time);
        let outcome = self.controller.join(&said, Some(cluster), Asker::Me, at, effects);
        if let Some(outcome) = outcome {
            self.answered(outcome, now, effects);
        }
    }

    /// Whether somebody has said what time it is who knew it, or all voters have shown their
    /// clocks, or more than half of them and the others were waited for for long enough.
    fn knows_time(&mut self, now: Now) -> bool {
        let since = *self.enrolment.waits_since.get_or_insert(now.since_start);
        let has_waited = now.since_start.since(since) >= CLOCKS_WAIT;
        let (me, voters) = (self.said.disk, self.voters());
        let is_known = !self.controller.status().voters.is_empty();
        self.clocks.told(now.since_start).is_some()
            || is_known && self.clocks.suffice(me, &voters)
            || has_waited && self.clocks.beginning(now, me, &voters, self.newest).is_some()
    }

    /// Asks the leader, or where that is not known one of the others after the other.
    fn ask_to_join(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let me = self.said.disk;
        let leader = self.controller.status().leader.and_then(|id| self.view.disk_of(id));
        let known = self.view.nodes.keys().copied();
        let live = self.verdicts.0.iter().filter(|(_, verdict)| **verdict != Verdict::Failed);
        let mut others: Vec<DiskId> = known.chain(live.map(|(disk, _)| *disk)).collect();
        others.retain(|other| *other != me);
        others.sort_unstable();
        others.dedup();
        others.truncate(NODES_MAX);
        let turn = self.enrolment.turn;
        self.enrolment.turn += 1;
        // Every other time somebody else than the leader, which may not live any more.
        let leader = leader.filter(|leader| *leader != me && turn.is_multiple_of(2));
        let first = me.0 as usize % others.len().max(1);
        let other = others.get((first + turn) % others.len().max(1)).copied();
        if let Some(to) = leader.or(other) {
            let (said, cluster, via) = (self.said.clone(), self.view.cluster, None);
            effects.push(ControlEffect::Send {
                to,
                run: None,
                message: ControlMessage::Join { said, cluster, via },
            });
            self.enrolment.ask_at = now.since_start + JOIN_INTERVAL;
        }
    }

    /// Another node asks to be registered: it is judged here, or the leader is asked.
    pub(super) fn asked_to_join(
        &mut self,
        from: (DiskId, Boot),
        said: Registration,
        (cluster, via): (Option<ClusterId>, Option<DiskId>),
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let (time, view) = (self.time_to_tell(now), self.view.clone());
        let asker = Asker::Other(from.0, from.1);
        if let Some(outcome) = already(&view, &said, time) {
            return self.answer(asker, (said.disk, said.boot), outcome, now, effects);
        }
        let mine = &self.said;
        if said.disk == mine.disk && (said.boot, said.run) != (mine.boot, mine.run) {
            // Nobody knows better than this run that it lives.
            let copied = Outcome::Refused(JoinRefused::Copied(mine.address));
            return self.answer(asker, (said.disk, said.boot), copied, now, effects);
        }
        if self.controller.acts(&self.view, now) {
            let at = (&*view, now, time);
            if let Some(outcome) = self.controller.join(&said, cluster, asker, at, effects) {
                self.answer(asker, (said.disk, said.boot), outcome, now, effects);
            }
            return;
        }
        let leader = self.controller.status().leader.and_then(|id| self.view.disk_of(id));
        let message = match leader.filter(|leader| *leader != self.said.disk && via.is_none()) {
            Some(to) => {
                let via = Some(self.said.disk);
                let message = ControlMessage::Join { said, cluster, via };
                return effects.push(ControlEffect::Send { to, run: None, message });
            }
            None => ControlMessage::JoinAnswer {
                disk: said.disk,
                boot: said.boot,
                answer: JoinAnswer::Elsewhere,
            },
        };
        effects.push(ControlEffect::Send { to: from.0, run: Some(from.1), message });
    }

    /// What the newest view has decided about those who wait for their registration.
    pub(super) fn answer_joins(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let time = self.time_to_tell(now);
        for (disk, boot, asker, outcome) in self.controller.settled(&self.view, time) {
            self.answer(asker, (disk, boot), outcome, now, effects);
        }
    }

    fn answer(
        &mut self,
        asker: Asker,
        (disk, boot): (DiskId, Boot),
        outcome: Outcome,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let (to, run) = match asker {
            Asker::Me => return self.answered(outcome, now, effects),
            Asker::Other(to, run) => (to, Some(run)),
        };
        let answer = match outcome {
            Outcome::Joined(joined) => JoinAnswer::Joined(joined),
            Outcome::Refused(refused) => JoinAnswer::Refused(refused),
            Outcome::Later => JoinAnswer::Elsewhere,
        };
        let message = ControlMessage::JoinAnswer { disk, boot, answer };
        effects.push(ControlEffect::Send { to, run, message });
    }

    /// An answer to this node, or to one that asked it.
    pub(super) fn join_answered(
        &mut self,
        (disk, boot): (DiskId, Boot),
        answer: JoinAnswer,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        if disk != self.said.disk {
            let message = ControlMessage::JoinAnswer { disk, boot, answer };
            let run = Some(boot);
            return effects.push(ControlEffect::Send { to: disk, run, message });
        }
        if boot != self.said.boot || self.registered() && self.enrolment.joined {
            return;
        }
        match answer {
            JoinAnswer::Joined(joined) => self.answered(Outcome::Joined(joined), now, effects),
            JoinAnswer::Refused(why) => self.answered(Outcome::Refused(why), now, effects),
            JoinAnswer::Elsewhere => {}
        }
    }

    fn answered(&mut self, outcome: Outcome, now: Now, effects: &mut Vec<ControlEffect>) {
        match outcome {
            Outcome::Joined(joined) => self.joined(joined, now, effects),
            Outcome::Refused(refused) => self.refused(refused, now, effects),
            Outcome::Later => {}
        }
    }

    fn joined(&mut self, joined: Joined, now: Now, effects: &mut Vec<ControlEffect>) {
        // An identity registers once: this would be a second time, and what this run takes for
        // agreed is not.
        let known = self.view.nodes.get(&self.said.disk);
        if known.is_some_and(|known| known.id != joined.node) {
            return self.halt(Halt::Forgotten, effects);
        }
        self.enrolment.refused_since = None;
        self.enrolment.ask_at = now.since_start + JOINED_WAIT;
        if let Some(time) = joined.time.filter(|_| !self.enrolment.began) {
            self.clock.set(now.since_start, time);
            effects.push(ControlEffect::Tell(self.clock));
            self.enrolment.timed = true;
            self.begin_late(now, effects);
        }
        if !self.enrolment.joined {
            self.enrolment.joined = true;
            effects.push(ControlEffect::Joined(joined));
        }
    }

    fn refused(&mut self, why: JoinRefused, now: Now, effects: &mut Vec<ControlEffect>) {
        let since = *self.enrolment.refused_since.get_or_insert(now.since_start);
        if !why.may_pass() || now.since_start.since(since) >= REFUSAL_PATIENCE {
            self.halt(Halt::Refused(why), effects);
        }
    }

    /// This run is registered from now on, whether or not an answer has said so: the driver is
    /// told, and what was wanted before it could propose is proposed.
    fn begin_serving(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let time = self.time_to_tell(now);
        if let Some(outcome) = already(&self.view.clone(), &self.said, time) {
            self.answered(outcome, now, effects);
        }
        effects.extend(self.creating.keys().cloned().map(create));
    }

    /// Stops when the metadata say that this run is not the node, or not any more.
    pub(super) fn check_standing(&mut self, effects: &mut Vec<ControlEffect>) {
        let Registration { disk, boot, run, .. } = self.said;
        if self.view.retired.contains_key(&disk) {
            return self.halt(Halt::Retired, effects);
        }
        let known = self.view.nodes.get(&disk).map(|node| (node.boot, node.run));
        if let Some((known, their_run)) = known
            && (known > boot || known == boot && their_run != run)
        {
            self.halt(Halt::Outdated { mine: boot, known }, effects);
        }
    }

    pub(super) fn halt(&mut self, why: Halt, effects: &mut Vec<ControlEffect>) {
        if !self.failed {
            self.failed = true;
            effects.push(ControlEffect::Halt(why));
        }
    }
}
