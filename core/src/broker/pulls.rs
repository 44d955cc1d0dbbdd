//! Subscribers' pulls and the door of a shard: who is asked, who waits, who is called.
//!
//! A subscription's partitions may live in several shards. The shard at whose door a pull arrives
//! asks them one at a time, because what a shard hands out is leased: asking all at once would
//! lease messages that nobody takes. When none has any, it watches all of them, and the first one
//! to call is asked again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::desk::ReplyTo;
use super::routing::{FORWARDS_MAX, Forwarded, PULLS_MAX, Pull};
use super::shard::Shard;
use crate::ids::{PartitionId, RequestId, ShardId, SubscriptionId};
use crate::machine::{Message, Now, Refused, Request, Response, ShardEffect, Time};
use crate::node::shard_of;

/// How many pulls watch one subscription in one shard at most; the oldest is called in vain.
pub(super) const WATCHERS_MAX: usize = 1_024;

/// A pull at some shard's door that wants to be called.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    shard: ShardId,
    id: RequestId,
    until: Time,
}

/// Who wants to be called for which subscription.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_subscription: BTreeMap<SubscriptionId, Vec<Watcher>>,
    /// Counts pulls at this door, to begin each at another shard.
    shard_turn: Turn,
    /// Counts pulls of this shard's partitions, to begin each at another one.
    partition_turn: Turn,
}

/// Whose turn it is. Each kind of turn counts for itself: two that shared a count would each see
/// every other number, and of two places begin at the same one for ever.
#[derive(Debug, Default)]
struct Turn(usize);

impl Turn {
    /// Where among `len` places to begin this time.
    fn next(&mut self, len: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        self.0 % len.max(1)
    }
}

impl Watchers {
    pub(super) fn forget(&mut self, id: &SubscriptionId) {
        self.by_subscription.remove(id);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self.by_subscription.values().map(Vec::len).max() {
            Some(len) if len > WATCHERS_MAX => {
                Err(format!("{len} watchers, the bound is {WATCHERS_MAX}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Shard {
    /// A client's pull arrives at this door.
    pub(super) fn pull(
        &mut self,
        reply: ReplyTo,
        subscription: SubscriptionId,
        count_max: usize,
        wait: Duration,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.routes.pulls.len() >= PULLS_MAX {
            let refused = Refused::Overloaded("too many subscribers wait");
            return self.bench.desk(now, effects).refuse(reply, refused);
        }
        let id = self.routes.name();
        let deadline = now.since_start + wait;
        let mut to_ask: VecDeque<ShardId> = self.shards_of(&subscription).into();
        to_ask.rotate_left(self.watchers.shard_turn.next(to_ask.len()));
        let pull = Pull { reply, subscription, count_max, deadline, to_ask, asking: false };
        self.routes.pulls.insert(id, pull);
        self.routes.pull_deadlines.insert((deadline, id), ());
        self.ask(id, now, effects);
    }

    /// The shards in which a subscription has partitions, each once.
    fn shards_of(&self, id: &SubscriptionId) -> Vec<ShardId> {
        let Some(subscription) = self.view.subscriptions.get(id) else {
            return Vec::new();
        };
        let partitions = self.view.partitions_of(subscription);
        let mut shards: Vec<_> =
            partitions.map(|partition| shard_of(partition.id, self.shards)).collect();
        shards.sort();
        shards.dedup();
        shards
    }

    /// Asks the next shard, or begins to wait.
    fn ask(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        let me = self.me;
        let Some(pull) = self.routes.pulls.get_mut(&id) else {
            return;
        };
        if let Some(shard) = pull.to_ask.pop_front() {
            pull.asking = true;
            let (subscription, count_max) = (pull.subscription.clone(), pull.count_max);
            if shard == me {
                self.pull_here(ReplyTo::Own(id), &subscription, count_max, now, effects);
            } else {
                let request = Request::Pull { subscription, count_max, wait: Duration::ZERO };
                let message = Message::Forward { id, request };
                effects.push(ShardEffect::Send { to: shard, message });
            }
            return;
        }
        pull.asking = false;
        let lasts = pull.deadline.since(now.since_start);
        if lasts.is_zero() {
            return self.end_pull(id, Response::Pulled(Vec::new()), now, effects);
        }
        let subscription = pull.subscription.clone();
        for shard in self.shards_of(&subscription) {
            let subscription = subscription.clone();
            if shard == me {
                self.watch(me, id, subscription, lasts, now, effects);
            } else {
                let message = Message::Watch { id, subscription, lasts };
                effects.push(ShardEffect::Send { to: shard, message });
            }
        }
    }

    fn end_pull(
        &mut self,
        id: RequestId,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(pull) = self.routes.pulls.remove(&id) {
            self.routes.pull_deadlines.remove(&(pull.deadline, id));
            self.bench.desk(now, effects).answer(pull.reply, response);
        }
    }

    /// Gives what this shard has, from the first partition that has some.
    pub(super) fn pull_here(
        &mut self,
        reply: ReplyTo,
        subscription: &SubscriptionId,
        count_max: usize,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let view = self.view.clone();
        let Some(found) = view.subscriptions.get(subscription) else {
            let refused = Refused::NoSubscription(subscription.clone());
            return self.bench.desk(now, effects).refuse(reply, refused);
        };
        let ids: Vec<PartitionId> = view.partitions_of(found).map(|held| held.id).collect();
        // Where to begin moves on with each pull, so that no partition starves behind a busy one,
        // nor behind one whose next message is damaged.
        let start = self.watchers.partition_turn.next(ids.len());
        for id in ids[start..].iter().chain(&ids[..start]) {
            let pulled = self.on(*id, now, effects, |held, _, desk| {
                held.pull(reply, subscription, count_max, desk)
            });
            if pulled == Some(true) {
                return;
            }
        }
        self.bench.desk(now, effects).answer(reply, Response::Pulled(Vec::new()));
    }

    /// A shard answered the pull's question.
    pub(super) fn pull_answered(
        &mut self,
        id: RequestId,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        match response {
            Response::Pulled(messages) if messages.is_empty() => self.ask(id, now, effects),
            response @ (Response::Pulled(_)
            | Response::Published { .. }
            | Response::Fetched { .. }
            | Response::Acknowledged { .. }
            | Response::Described(_)
            | Response::Refused(_)
            | Response::Unknown) => self.end_pull(id, response, now, effects),
        }
    }

    /// Somebody wants to be called; at once, if there is something already.
    pub(super) fn watch(
        &mut self,
        from: ShardId,
        id: RequestId,
        subscription: SubscriptionId,
        lasts: Duration,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.partitions_with(&subscription).any(|held| held) {
            return self.call(from, id, now, effects);
        }
        let until = now.since_start + lasts;
        let watchers = self.watchers.by_subscription.entry(subscription).or_default();
        watchers.retain(|watcher| {
            watcher.until > now.since_start && (watcher.shard, watcher.id) != (from, id)
        });
        let crowded = watchers.len() >= WATCHERS_MAX;
        let oldest = crowded.then(|| watchers.remove(0));
        watchers.push(Watcher { shard: from, id, until });
        if let Some(oldest) = oldest {
            self.call(oldest.shard, oldest.id, now, effects);
        }
    }

    /// For each partition of a subscription in this shard, whether it has something for it.
    fn partitions_with<'a>(&'a self, id: &'a SubscriptionId) -> impl Iterator<Item = bool> + 'a {
        let subscription = self.view.subscriptions.get(id);
        let partitions = subscription.into_iter().flat_map(|found| self.view.partitions_of(found));
        let held = partitions.filter_map(|partition| self.partitions.get(&partition.id));
        held.map(move |held| held.has_some(id))
    }

    /// Something was committed in a partition: calls who watches for it.
    pub(super) fn call_watchers(
        &mut self,
        partition: PartitionId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.watchers.by_subscription.is_empty() {
            return;
        }
        let Some(held) = self.partitions.get(&partition) else {
            return;
        };
        let ready = held.subscriptions().filter(|id| held.has_some(id));
        let ready: Vec<SubscriptionId> = ready.cloned().collect();
        for subscription in ready {
            let watchers = self.watchers.by_subscription.remove(&subscription);
            for Watcher { shard, id, until } in watchers.into_iter().flatten() {
                if until > now.since_start {
                    self.call(shard, id, now, effects);
                }
            }
        }
    }

    fn call(&mut self, to: ShardId, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if to == self.me {
            self.ready(to, id, now, effects);
        } else {
            effects.push(ShardEffect::Send { to, message: Message::Ready { id } });
        }
    }

    /// A watched shard has something: it is asked next.
    pub(super) fn ready(
        &mut self,
        from: ShardId,
        id: RequestId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(pull) = self.routes.pulls.get_mut(&id) else {
            return;
        };
        if !pull.to_ask.contains(&from) {
            pull.to_ask.push_back(from);
        }
        if !pull.asking {
            self.ask(id, now, effects);
        }
    }

    /// Hands a request to the shard that it belongs to.
    pub(super) fn forward(
        &mut self,
        to: ShardId,
        what: Forwarded,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) -> bool {
        if self.routes.forwards.len() >= FORWARDS_MAX {
            if let Forwarded::Request(reply) = what {
                let refused = Refused::Overloaded("too many requests are under way");
                self.bench.desk(now, effects).refuse(reply, refused);
            }
            return false;
        }
        let id = self.routes.name();
        self.routes.forwards.insert(id, what);
        self.bench.counters.forwarded += 1;
        effects.push(ShardEffect::Send { to, message: Message::Forward { id, request } });
        true
    }
}
