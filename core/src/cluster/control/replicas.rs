//! What control does for the replicas of partitions: it carries what their leaders propose into the
//! metadata, complaints to the controller, and what logs end with to whoever asks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Control;
use crate::cluster::controller::{ASKED_MAX, COMPLAINTS_MAX};
use crate::cluster::message::{AskLogEnds, Complaint, ControlMessage, LogEnds};
use crate::cluster::metadata::{ADJUSTMENTS_MAX, Adjustment, Change};
use crate::ids::{DiskId, Epoch, PartitionId, RequestId};
use crate::machine::{ControlEffect, ControlResponse, Now, Refused, Time};

/// For how long the first proposal waits for others that come with it, so that one change holds
/// them: a node that comes back counts for thousands of partitions at once.
const GATHER: Duration = Duration::from_millis(5);
/// After what time it is said again that a member is damaged, where that shows in no view.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// What control carries for replicas.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// What leaders on this node want to count, the newest of each, and not proposed yet.
    adjusting: BTreeMap<PartitionId, Adjustment>,
    /// When to propose it.
    propose_at: Option<Time>,
    /// Members that do not hold what they acknowledged, in which epoch that was found, and when to
    /// say so again.
    damaged: BTreeMap<(PartitionId, DiskId), (Epoch, Time)>,
}

impl Replicas {
    pub(super) fn wakeup(&self) -> Option<Time> {
        self.propose_at
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self.damaged.len() {
            len if len > COMPLAINTS_MAX => {
                Err(format!("{len} damaged members, the bound is {COMPLAINTS_MAX}"))
            }
            _ => Ok(()),
        }
    }
}

impl Control {
    /// A leader on this node wants another set to count.
    pub(super) fn adjust(&mut self, adjustment: Adjustment) {
        self.replicas.adjusting.insert(adjustment.partition, adjustment);
        self.replicas.propose_at.get_or_insert(self.now + GATHER);
    }

    /// Proposes what was gathered, if this is the time.
    pub(super) fn propose_adjustments(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let replicas = &mut self.replicas;
        if replicas.propose_at.is_none_or(|at| at > now.since_start) {
            return;
        }
        let mut adjustments = Vec::new();
        while adjustments.len() < ADJUSTMENTS_MAX
            && let Some((_, adjustment)) = replicas.adjusting.pop_first()
        {
            adjustments.push(adjustment);
        }
        let is_left = !replicas.adjusting.is_empty();
        replicas.propose_at = is_left.then_some(now.since_start + GATHER);
        let by = (self.said.disk, self.said.boot);
        effects.push(ControlEffect::Propose(Change::Adjust { by, adjustments }));
    }

    /// Has the controller even out what nodes have to do.
    pub(super) fn rebalance(
        &mut self,
        id: RequestId,
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Refused> {
        match self.controllers_node() {
            Some(me) if me == self.said.disk => self.controller.failover().rebalance(),
            Some(to) => {
                let message = ControlMessage::Rebalance;
                effects.push(ControlEffect::Send { to, run: None, message });
            }
            None => return Some(Refused::NotReady),
        }
        effects.push(ControlEffect::Reply { id, response: ControlResponse::Done });
        None
    }

    /// Where the controller is, as far as this node knows.
    fn controllers_node(&self) -> Option<DiskId> {
        self.controller.status().leader.and_then(|id| self.view.disk_of(id))
    }

    /// Tells the controller, which may be this node's, what a partition here complains about. That
    /// a member does not hold what it acknowledged is said until a view shows that it was heard.
    pub(super) fn complain(&mut self, complaint: Complaint, effects: &mut Vec<ControlEffect>) {
        if let Complaint::Damaged { partition, epoch, member } = complaint {
            if self.replicas.damaged.len() >= COMPLAINTS_MAX {
                return;
            }
            let known = self.replicas.damaged.get(&(partition, member));
            if known.is_some_and(|(said, again)| *said == epoch && *again > self.now) {
                return;
            }
            let said = (epoch, self.now + SAY_AGAIN);
            self.replicas.damaged.insert((partition, member), said);
        }
        self.tell_controller(complaint, effects);
    }

    fn tell_controller(&mut self, complaint: Complaint, effects: &mut Vec<ControlEffect>) {
        match self.controllers_node() {
            Some(me) if me == self.said.disk => self.complained(me, &complaint),
            Some(to) => {
                let message = ControlMessage::Complaint(complaint);
                effects.push(ControlEffect::Send { to, run: None, message });
            }
            // Whoever complains does so again.
            None => {}
        }
    }

    /// Says again what nobody has heard, unless a later reign has begun.
    pub(super) fn say_again(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let view = self.view.clone();
        self.replicas.damaged.retain(|(partition, member), (epoch, _)| {
            let known = view.partitions.get(partition).filter(|known| known.epoch <= *epoch);
            let member = known.and_then(|known| known.member(*member));
            member.is_some_and(|member| member.holds_committed())
        });
        let mut due = Vec::new();
        for (&(partition, member), (epoch, at)) in &mut self.replicas.damaged {
            if *at <= now.since_start {
                *at = now.since_start + SAY_AGAIN;
                due.push(Complaint::Damaged { partition, epoch: *epoch, member });
            }
        }
        due.into_iter().for_each(|complaint| self.tell_controller(complaint, effects));
    }

    /// Somebody complains to this node's controller.
    pub(super) fn complained(&mut self, from: DiskId, complaint: &Complaint) {
        match complaint {
            Complaint::Slow { partition, epoch } => {
                self.controller.failover().complain(from, *partition, *epoch);
            }
            Complaint::Damaged { partition, epoch, member } => {
                let known = self.view.partitions.get(partition).map(|known| known.epoch);
                // What an earlier reign found may have been mended: the member may count anew.
                if known.is_some_and(|known| known <= *epoch) {
                    self.controller.failover().damaged(*partition, *member);
                }
            }
        }
    }

    /// The controller of another node asks what logs of this one end with.
    pub(super) fn asked_log_ends(
        &mut self,
        asker: DiskId,
        ask: AskLogEnds,
        effects: &mut Vec<ControlEffect>,
    ) {
        if ask.partitions.len() > ASKED_MAX {
            self.ignored += 1;
        } else {
            effects.push(ControlEffect::AskShards { asker, ask });
        }
    }

    /// A shard of this node answers.
    pub(super) fn log_ends_reported(
        &mut self,
        asker: DiskId,
        ends: LogEnds,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        if asker == self.said.disk {
            self.log_ends_told(asker, ends, now, effects);
        } else {
            let message = ControlMessage::LogEnds(ends);
            effects.push(ControlEffect::Send { to: asker, run: None, message });
        }
    }

    /// A node answers this node's controller, which decides at once when it has heard all.
    pub(super) fn log_ends_told(
        &mut self,
        from: DiskId,
        ends: LogEnds,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        self.controller.failover().heard(from, ends);
        let time = self.clock.at(now);
        self.controller.decide(&self.view, now, time, effects);
    }
}
