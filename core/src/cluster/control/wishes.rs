//! What clients ask of the metadata: each is refused, or proposed and answered when it is decided.

use std::time::Duration;

use super::Control;
use crate::cluster::metadata::Change;
use crate::cluster::pattern::TopicPattern;
use crate::cluster::subscription::{Delivery, DeliveryAsked, StartFrom};
use crate::cluster::topic::{ConfigPatch, TopicConfig};
use crate::ids::{RequestId, SubscriptionId, TopicName};
use crate::machine::{
    ControlEffect, ControlRequest, ControlResponse, ControlStatus, DiskSpace, Now, Refused, Report,
    Time,
};
use crate::zoo::{Bug, planted};

/// How long a subscriber waits for its cursors before it is told that nobody knows.
pub const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// How many subscribers wait at most.
pub const SUBSCRIBES_MAX: usize = 4_096;
/// How many topics are being made at once, at most.
pub const CREATIONS_MAX: usize = 4_096;
/// How long a change may take to be agreed before its client is told that nobody knows.
pub const CHANGE_WAIT: Duration = Duration::from_secs(10);
/// How many clients wait for changes at most.
pub const CHANGES_MAX: usize = 4_096;
/// How many clients wait at most until this run is registered.
pub const EARLY_MAX: usize = 4_096;

/// A subscriber that waits until each partition has committed where it begins.
#[derive(Debug)]
pub(super) struct Subscribing {
    pub(super) subscription: SubscriptionId,
    pub(super) topics: Vec<TopicPattern>,
    /// When to answer unknown.
    pub(super) deadline: Time,
    /// When to ask the nodes that lead its partitions again.
    pub(super) ask_at: Time,
}

/// A client that waits for a change to be agreed.
#[derive(Debug)]
pub(super) struct Changing {
    pub(super) change: Change,
    /// When to answer unknown.
    pub(super) deadline: Time,
}

/// A request that came before this run was registered, and waits for that.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) id: RequestId,
    pub(super) request: ControlRequest,
    /// When it came.
    pub(super) since: Time,
}

impl Early {
    /// When to refuse it.
    pub(super) fn deadline(&self) -> Time {
        self.since + CHANGE_WAIT
    }
}

impl Control {
    /// A client's request; nothing can be agreed on before this run is registered.
    pub(super) fn requested(
        &mut self,
        id: RequestId,
        request: ControlRequest,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let since = now.since_start;
        let early = matches!(request, ControlRequest::Status | ControlRequest::Farewell);
        if self.registered() || early {
            self.serve(Early { id, request, since }, now, effects);
        } else if self.early.len() < EARLY_MAX {
            self.early.push_back(Early { id, request, since });
        } else {
            refuse(id, Refused::Overloaded("too many requests wait for the node's start"), effects);
        }
    }

    /// This run is registered: those who came before are served.
    pub(super) fn serve_early(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        for early in std::mem::take(&mut self.early) {
            self.serve(early, now, effects);
        }
    }

    fn serve(&mut self, asked: Early, now: Now, effects: &mut Vec<ControlEffect>) {
        let Early { id, request, since } = asked;
        let refused = match request {
            ControlRequest::Subscribe { id: subscription, topics, from, delivery } => {
                let (deadline, ask_at) = (since + SUBSCRIBE_WAIT, since);
                let wanted = Subscribing { subscription, topics, deadline, ask_at };
                self.subscribe(id, wanted, (from, delivery), now, effects)
            }
            ControlRequest::Unsubscribe { id: subscription } => {
                if self.view.subscriptions.contains_key(&subscription) {
                    let change = Change::Unsubscribe { id: subscription, unused_since: None };
                    self.change(id, change, since, effects)
                } else {
                    Some(Refused::NoSubscription(subscription))
                }
            }
            ControlRequest::ConfigureTopic { name, patch, reset } => {
                match self.partitions_refused(&name, &patch) {
                    None => {
                        let change = Change::ConfigureTopic { name, patch, reset };
                        self.change(id, change, since, effects)
                    }
                    refused @ Some(_) => refused,
                }
            }
            ControlRequest::Rebalance => self.rebalance(id, effects),
            ControlRequest::Farewell => {
                self.bid_farewell(id, now, effects);
                None
            }
            ControlRequest::Status => {
                let response = ControlResponse::Status(self.status(now));
                effects.push(ControlEffect::Reply { id, response });
                None
            }
            ControlRequest::Decommission { disk, how } => {
                if self.view.nodes.contains_key(&disk) {
                    self.change(id, Change::Decommission { disk, how }, since, effects)
                } else {
                    Some(Refused::NoNode(disk))
                }
            }
            ControlRequest::DeleteTopic { name } => {
                if self.view.topics.contains_key(&name) {
                    self.change(id, Change::DeleteTopic { name }, since, effects)
                } else {
                    Some(Refused::NoTopic(name))
                }
            }
        };
        if let Some(refused) = refused {
            refuse(id, refused, effects);
        }
    }

    fn partitions_refused(&self, name: &TopicName, patch: &ConfigPatch) -> Option<Refused> {
        let held = self.view.topics.get(name)?.config.partitions;
        let fixed = patch.partitions.is_some_and(|wanted| wanted != held);
        fixed.then(|| Refused::PartitionsFixed(name.clone(), held))
    }

    /// Proposes a change; its client is answered when it is decided.
    fn change(
        &mut self,
        id: RequestId,
        change: Change,
        since: Time,
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Refused> {
        // What removes is agreed on with a full disk too: it makes room.
        let removes = matches!(
            change,
            Change::DeleteTopic { .. } | Change::Unsubscribe { .. } | Change::Decommission { .. }
        );
        if self.space == DiskSpace::Full && !removes {
            return Some(Refused::DiskFull);
        }
        if self.changing.len() >= CHANGES_MAX {
            return Some(Refused::Overloaded("too many changes wait to be agreed on"));
        }
        effects.push(ControlEffect::Propose(change.clone()));
        if planted(Bug::ChangeAnsweredEarly) {
            effects.push(ControlEffect::Reply { id, response: ControlResponse::Done });
            return None;
        }
        let deadline = since + CHANGE_WAIT;
        self.changing.insert(id, Changing { change, deadline });
        self.deadlines.insert((deadline, id));
        None
    }

    fn subscribe(
        &mut self,
        id: RequestId,
        wanted: Subscribing,
        (from, asked): (StartFrom, DeliveryAsked),
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Refused> {
        let Subscribing { subscription, mut topics, deadline, ask_at } = wanted;
        topics.sort();
        topics.dedup();
        if let Some(known) = self.view.subscriptions.get(&subscription) {
            if known.topics != topics {
                return Some(Refused::SubscriptionDiffers(subscription, "topics"));
            }
            if asked.over(&known.delivery) != known.delivery {
                return Some(Refused::SubscriptionDiffers(subscription, "delivery settings"));
            }
        } else {
            if self.space == DiskSpace::Full {
                return Some(Refused::DiskFull);
            }
            if self.subscribing.len() >= SUBSCRIBES_MAX {
                return Some(Refused::Overloaded("too many subscriptions are being made"));
            }
            let (delivery, at) = (asked.over(&Delivery::default()), self.clock.at(now));
            let (id, topics) = (subscription.clone(), topics.clone());
            let change = Change::Subscribe { id, topics, from, delivery, at };
            effects.push(ControlEffect::Propose(change));
        }
        self.subscribing.insert(id, Subscribing { subscription, topics, deadline, ask_at });
        self.deadlines.insert((deadline, id));
        self.answer_subscribed(effects);
        self.ask_begun(now, effects);
        None
    }

    /// Answers whose subscription has a cursor in each of its partitions.
    pub(super) fn answer_subscribed(&mut self, effects: &mut Vec<ControlEffect>) {
        let (view, fixed) = (&self.view, &self.fixed);
        let whole = |waiting: &Subscribing| {
            let Some(found) = view.subscriptions.get(&waiting.subscription) else {
                return false;
            };
            found.topics != waiting.topics
                || view.partitions_of(found).all(|partition| fixed.has(found, partition.id))
        };
        let ready: Vec<_> = self.subscribing.extract_if(.., |_, waiting| whole(waiting)).collect();
        for (id, Subscribing { subscription, topics, deadline, .. }) in ready {
            self.deadlines.remove(&(deadline, id));
            // Two clients may have raced for the id with different topics: one of them lost.
            let won = self.view.subscriptions.get(&subscription).map(|found| &found.topics);
            let refused = (won != Some(&topics))
                .then_some(Refused::SubscriptionDiffers(subscription, "topics"));
            let response =
                refused.map_or(ControlResponse::Subscribed { topics }, ControlResponse::Refused);
            effects.push(ControlEffect::Reply { id, response });
        }
    }

    /// What a decided change has led to: of two clients who raced one may have lost.
    pub(super) fn outcome(&self, change: &Change) -> ControlResponse {
        if let Change::ConfigureTopic { name, patch, .. } = change
            && let Some(refused) = self.partitions_refused(name, patch)
        {
            return ControlResponse::Refused(refused);
        }
        if let Change::Decommission { disk, .. } = change
            && self.view.nodes.get(disk).is_some_and(|node| node.leaving.is_none())
        {
            return ControlResponse::Refused(Refused::LastNode);
        }
        ControlResponse::Done
    }

    pub(super) fn reported(&mut self, report: Report, now: Now, effects: &mut Vec<ControlEffect>) {
        match report {
            Report::TopicWanted(name) => {
                let known =
                    self.view.topics.contains_key(&name) || self.creating.contains_key(&name);
                // What is too much now is not made: its messages are refused when they have waited.
                if known || self.creating.len() >= CREATIONS_MAX {
                    return;
                }
                self.creating.insert(name.clone(), self.now + super::CREATE_AGAIN);
                if self.registered() {
                    effects.push(create(name));
                }
            }
            Report::CursorFixed { subscription, created, partition } => {
                self.fixed.note(&subscription, created, partition);
                self.tell_curious(&subscription, effects);
                self.answer_subscribed(effects);
            }
            Report::Used(subscription) => {
                self.used.insert(subscription, self.clock.at(now));
            }
            Report::Adjust(adjustment) => self.adjust(adjustment),
            Report::Complaint(complaint) => self.complain(complaint, effects),
            Report::LogEnds { asker, ends } => self.log_ends_reported(asker, ends, now, effects),
        }
    }

    fn status(&self, now: Now) -> ControlStatus {
        ControlStatus {
            is_registered: self.registered(),
            acts: self.controller.acts(&self.view, now),
            raft: self.controller.status().clone(),
            time: self.clock.at(now),
            clock_off: self.clock.off(now),
            sessions: self.controller.shown(now),
            ignored: self.ignored,
        }
    }
}

pub(super) fn refuse(id: RequestId, refused: Refused, effects: &mut Vec<ControlEffect>) {
    effects.push(ControlEffect::Reply { id, response: ControlResponse::Refused(refused) });
}

pub(super) fn create(name: TopicName) -> ControlEffect {
    ControlEffect::Propose(Change::CreateTopic { name, config: TopicConfig::default() })
}
