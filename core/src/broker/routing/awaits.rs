//! Waiting for messages that other nodes lead: each of them is asked once for all pulls of a
//! subscription at this door, and says when it has some.

use std::sync::Arc;
use std::time::Duration;

use super::calls::CallFailed;
use super::errands::{Errand, Leader, Purpose, Trip};
use super::{Place, Pull};
use crate::broker::desk::ReplyTo;
use crate::broker::shard::Shard;
use crate::ids::{DiskId, RequestId, SubscriptionId};
use crate::machine::{Now, Request, Response, ShardEffect, Time};

/// How long a node that is asked to say when there is something waits for it.
const AWAIT_LASTS: Duration = Duration::from_secs(5);

impl Shard {
    /// Has a node say when it has something of a subscription, if it was not asked already.
    pub(crate) fn await_node(
        &mut self,
        subscription: SubscriptionId,
        node: DiskId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let key = (subscription, node);
        if self.errands.awaits.contains_key(&key) {
            return;
        }
        let (subscription, lasts) = (key.0.clone(), AWAIT_LASTS);
        let request = Arc::new(Request::Await { subscription, lasts });
        let purpose = Purpose::Await(key.0.clone(), node);
        let errand = Errand::idle(purpose, request, Trip::new(Time(u64::MAX)));
        // Where there is no room for it, the pulls end at their deadlines.
        let id = self.routes.name();
        if self.errands.put(id, errand).is_ok() {
            self.errands.awaits.insert(key, id);
            self.call(id, Leader { disk: node, believed: Vec::new() }, now, effects);
        }
    }

    /// A node says whether there is something, or could not be asked.
    pub(crate) fn awaited(
        &mut self,
        id: RequestId,
        result: Result<Response, CallFailed>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(Errand { purpose: Purpose::Await(subscription, node), .. }) =
            self.errands.under_way.get(&id)
        else {
            return;
        };
        let (subscription, node) = (subscription.clone(), *node);
        let Ok(Response::Available(some)) = result else {
            // It is asked again after a pause, for as long as somebody waits for it.
            self.errands.rest(id, false, now.since_start);
            return;
        };
        self.errands.remove(id);
        let waiting = self.waiting_for(&subscription);
        self.errands.awaits.remove(&(subscription.clone(), node));
        if some {
            for pull in waiting {
                self.ready(Place::Node(node), pull, now, effects);
            }
        } else if !waiting.is_empty() {
            self.await_node(subscription, node, now, effects);
        }
    }

    /// A node that could not be asked is asked again, if anybody waits for it still.
    pub(crate) fn await_again(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        let Some(Errand { purpose: Purpose::Await(subscription, node), .. }) =
            self.errands.under_way.get(&id)
        else {
            return;
        };
        let (subscription, node) = (subscription.clone(), *node);
        if self.waiting_for(&subscription).is_empty() || !self.view.nodes.contains_key(&node) {
            self.errands.remove(id);
            self.errands.awaits.remove(&(subscription, node));
        } else {
            self.call(id, Leader { disk: node, believed: Vec::new() }, now, effects);
        }
    }

    /// The pulls of a subscription that came to this door.
    fn waiting_for(&self, subscription: &SubscriptionId) -> Vec<RequestId> {
        let pulls = self.routes.pulls.iter();
        let of_it = pulls.filter(|(_, pull)| !pull.own && pull.subscription == *subscription);
        of_it.map(|(&id, _)| id).collect()
    }

    /// Another node wants to know when there is something in what this one leads.
    pub(crate) fn await_here(
        &mut self,
        reply: ReplyTo,
        subscription: SubscriptionId,
        lasts: Duration,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let deadline = now.since_start + lasts;
        let pull = Pull { tells: true, ..Pull::new(reply, subscription, 0, deadline) };
        self.begin_pull(pull, now, effects);
    }
}
