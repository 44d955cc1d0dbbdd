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
use crate::ids::RequestId;
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
        let farewell = Farewell { asked: Some(id), deadline, again };
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
        let is_over = self.is_over();
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
        self.controller.bid_farewell((me, self.said.boot), now);
        for to in self.voters().into_iter().filter(|voter| *voter != me) {
            let message = ControlMessage::Farewell;
            effects.push(ControlEffect::Send { to, run: None, message });
        }
        if self.is_down() && self.leads_others() {
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
    fn is_over(&self) -> bool {
        let (me, view) = (self.said.disk, &self.view);
        if !is_registered(view, &self.said) || view.nodes.len() == 1 {
            return true;
        }
        // From whom nobody takes the metadata over has decided all before, and the others know.
        let is_last = self.voters() == [me];
        let waits = |held: &Partition| {
            let others = held.in_sync.iter().filter(|one| one.disk != me).copied();
            let others: Vec<Member> = others.collect();
            let leads = held.leader == me && view.is_enough(&others, 1);
            let counts = held.member(me).is_some() && view.is_enough(&others, held.min_in_sync);
            leads || is_last && counts
        };
        self.is_down()
            && !self.leads_others()
            && (!is_last || self.controller.others_have(view.version, view))
            && !view.held_by(me).any(|held| waits(held))
    }

    /// When to look again at the latest.
    pub(super) fn leaves_by(&self) -> Option<Time> {
        let farewell = self.farewell.as_ref()?;
        farewell.asked.map(|_| farewell.deadline)
    }
}
