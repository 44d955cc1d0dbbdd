//! The loop of the control machine.

use std::sync::{Arc, RwLock};

use sprawl_core::cluster::Control;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::ShardId;
use sprawl_core::machine::{
    ControlEffect, ControlInput, ControlRequest, ControlResponse, Machine, Report,
};
use tokio::sync::mpsc;

use super::{Awaited, Driven};
use crate::clock::Clock;
use crate::handle::{Asked, Ended};
use crate::raft::{Decision, Group};
use crate::signal::Follower;
use crate::trace::Trace;
use crate::writer::WriterHandle;

/// Where control's inputs come from.
pub(crate) struct Inbox {
    pub(crate) reports: mpsc::UnboundedReceiver<(ShardId, Report)>,
    pub(crate) requests: mpsc::Receiver<Asked<ControlRequest, ControlResponse>>,
    pub(crate) stopped: Follower<Option<Ended>>,
}

/// Where a new view is shown: to each shard, and to whoever serves clients.
pub(crate) struct Shown {
    pub(crate) shards: Vec<mpsc::UnboundedSender<Arc<View>>>,
    pub(crate) face: Arc<RwLock<Arc<View>>>,
}

/// The control machine and its hands.
pub(crate) struct ControlLoop<C, T> {
    driven: Driven<Control, C, T>,
    inbox: Inbox,
    group: Group,
    writer: WriterHandle,
    shown: Shown,
    awaited: Awaited<ControlResponse>,
}

impl<C: Clock, T: Trace<Control>> ControlLoop<C, T> {
    pub(crate) fn new(
        control: Control,
        inbox: Inbox,
        (clock, trace, group): (C, T, Group),
        writer: WriterHandle,
        shown: Shown,
    ) -> Self {
        let driven = Driven::new(control, clock, trace);
        Self { driven, inbox, group, writer, shown, awaited: Awaited::new() }
    }

    /// Runs until the node ends.
    pub(crate) async fn run(mut self) {
        loop {
            let wakeup = self.driven.machine.wakeup();
            let input = tokio::select! {
                biased;
                reason = self.inbox.stopped.until(Option::is_some) => return self.end(reason),
                Some(decision) = self.group.decided() => Some(match decision {
                    Decision::Change { index, change } => ControlInput::Decided { index, change },
                    Decision::Installed(view) => ControlInput::Installed(view),
                }),
                Some((from, report)) = self.inbox.reports.recv() => {
                    Some(ControlInput::Reported { from, report })
                }
                space = self.writer.space.changed() => Some(ControlInput::DiskSpace(space)),
                asked = self.inbox.requests.recv() => match asked {
                    Some(Asked { request, answer }) => {
                        let id = self.awaited.insert(answer);
                        Some(ControlInput::Requested { id, request })
                    }
                    None => return,
                },
                () = Driven::<Control, C, T>::wakeup(&self.driven.clock, wakeup) => None,
            };
            if let Some(input) = input {
                let now = self.driven.clock.now();
                self.driven.handle(now, input);
            }
            self.driven.wake_if_due(ControlInput::Woke);
            self.perform();
        }
    }

    fn end(mut self, reason: Option<Ended>) {
        if let Some(Ended::DiskFailed(_)) = reason {
            let now = self.driven.clock.now();
            self.driven.handle(now, ControlInput::DiskFailed);
        }
    }

    fn perform(&mut self) {
        let effects = std::mem::take(&mut self.driven.effects);
        for effect in effects {
            match effect {
                ControlEffect::Propose(change) => self.group.propose(change),
                ControlEffect::Show(view) => self.show(view),
                ControlEffect::Reply { id, response } => self.awaited.answer(id, response),
            }
        }
    }

    fn show(&self, view: Arc<View>) {
        for shard in &self.shown.shards {
            // A shard is gone only when the node has ended.
            let _ = shard.send(view.clone());
        }
        let mut face = self.shown.face.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *face = view;
    }
}
