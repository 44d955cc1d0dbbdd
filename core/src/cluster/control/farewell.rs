//! The end of a run that is told to end: others take over what it leads, while it still answers for
//! what it has.
//!
//! To the controller it is a node that has failed, with the difference that nobody has to wait
//! until its silence is noticed.

use std::time::Duration;

use super::{Control, is_registered};
use crate::cluster::consensus::RaftChange;
use crate::cluster::message::ControlMessage;
use crate::cluster::metadata::{Member, Partition};
use crate::ids::{ChangeIndex, RequestId};
use crate::machine::{ControlEffect, ControlResponse, Now, Time};

/// How long others have to take over.
pub const FAREWELL_WAIT: Duration = Duration::from_secs(2);
/// After what time it is said again.
const AGAIN: Duration = Duration::from_millis(200);

/// A run that is about to end.
#[derive(Debug)]
pub(super) struct Farewell {
    /// Who waits until others have taken over; nobody any more.
    asked: Option<RequestId>,
    deadline: Time,
    /// When to say it again.
    again: Time,
    /// Since which change nobody counts on this run.
    down_at: Option<ChangeIndex>,
}

impl Control {
    /// This run is about to end.
    pub(super) fn bid_farewell(
        &mut self,
        id: RequestId,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let since = now.since_start;
        let (deadline, again) = (since + FAREWELL_WAIT, since);
        let farewell = Farewell { asked: Some(id), deadline, again, down_at: None };
        // Of two who ask the later one is told.
        let former = self.farewell.replace(farewell).and_then(|former| former.asked);
        if let Some(id) = former {
            effects.push(ControlEffect::Reply { id, response: ControlResponse::Unknown });
        }
        self.take_leave(now, effects);
    }

    /// Says that this run is about to end, and to who asked that nothing depends on it any more.
    pub(super) fn take_leave(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let Some(mut farewell) = self.farewell.take() else { return };
        if farewell.down_at.is_none() && self.is_down() {
            farewell.down_at = Some(self.view.version);
        }
        let is_over = self.is_over(farewell.down_at);
        if is_over || farewell.deadline <= now.since_start {
            let response = if is_over { ControlResponse::Done } else { ControlResponse::Unknown };
            let asked = farewell.asked.take();
            effects.extend(asked.map(|id| ControlEffect::Reply { id, response }));
        } else if farewell.again <= now.since_start {
            farewell.again = now.since_start + AGAIN;
            self.say_farewell(now, effects);
        }
        self.farewell = Some(farewell);
    }

    fn say_farewell(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let me = self.said.disk;
        if !self.is_down() {
            self.controller.bid_farewell((me, self.said.boot), now);
            for to in self.voters().into_iter().filter(|voter| *voter != me) {
                let message = ControlMessage::Farewell;
                effects.push(ControlEffect::Send { to, run: None, message });
            }
        } else if self.leads_others() {
            effects.push(ControlEffect::Reconfigure(RaftChange::HandOver));
        }
    }

    /// Whether everybody knows that this run is not to be counted on.
    fn is_down(&self) -> bool {
        self.view.nodes.get(&self.said.disk).is_none_or(|node| node.down.is_some())
    }

    /// Whether this node leads a group in which others vote.
    fn leads_others(&self) -> bool {
        let status = self.controller.status();
        let leader = status.leader.and_then(|id| self.view.disk_of(id));
        leader == Some(self.said.disk) && status.voters.len() > 1
    }

    /// Whether others have taken over all that they can.
    fn is_over(&self, down_at: Option<ChangeIndex>) -> bool {
        let me = self.said.disk;
        if !is_registered(&self.view, &self.said) || self.view.nodes.len() == 1 {
            return true;
        }
        let other = |one: &Member| one.disk != me && one.is_electable() && self.view.is_live(one);
        let waits = |held: &Partition| held.leader == me && held.in_sync.iter().any(other);
        // From whom nobody takes the metadata over, the others have to learn it before.
        let is_last = self.voters() == [me];
        down_at.is_some_and(|at| !is_last || self.controller.others_have(at, &self.view))
            && !self.leads_others()
            && !self.view.held_by(me).any(|held| waits(held))
    }
}
