//! Subscribers' pulls and the door of a shard: who is asked, who waits, who is called.
//!
//! A subscription's partitions may live in several shards, and be led by several nodes. The shard
//! at whose door a pull arrives asks them one at a time, because what is handed out is leased:
//! asking all at once would lease messages that nobody takes. When none has any, it watches all of
//! them, and the first one to call is asked again. A pull of another node is about this node's own
//! partitions only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::desk::ReplyTo;
use super::routing::errands::{Leader, Purpose, Trip};
use super::routing::{PULLS_MAX, Place, Pull};
use super::shard::Shard;
use crate::ids::{PartitionId, RequestId, ShardId, SubscriptionId, TopicName};
use crate::machine::{Message, Now, Refused, Report, Request, Response, ShardEffect, Time};
use crate::node::shard_of;
use crate::zoo::{Bug, planted};

/// How many pulls watch one subscription in one shard at most; the oldest is called in vain.
pub(super) const WATCHERS_MAX: usize = 1_024;

/// For how long what a pull gets at another node is waited for.
const TAKE_WAIT: Duration = Duration::from_secs(5);
/// Of how many topics it is counted in which places a subscription has partitions.
const TOPICS_COUNTED_MAX: usize = 16;
/// How often the use of a subscription is reported at most.
const USE_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A pull at some shard's door that wants to be called.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    shard: ShardId,
    id: RequestId,
    until: Time,
}

/// What a shard knows of one subscription beside its partitions.
#[derive(Debug, Default)]
struct Following {
    /// The partitions that have something for it.
    available: BTreeSet<PartitionId>,
    /// The partition that was asked last: the next one is asked first, so that no partition
    /// starves behind a busy one, nor behind one whose next message is damaged.
    asked: PartitionId,
    /// Who wants to be called.
    watchers: Vec<Watcher>,
    /// When its use was last reported.
    reported: Option<Time>,
}

/// Who wants to be called for which subscription, and who has something for it.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_subscription: BTreeMap<SubscriptionId, Following>,
    /// Whose partitions have got something since the last look.
    called: Vec<SubscriptionId>,
    /// Counts pulls at this door, to begin each at another shard.
    turn: usize,
}

impl Watchers {
    /// A partition has something for a subscription now, or nothing any more.
    pub(super) fn note(&mut self, id: SubscriptionId, partition: PartitionId, has_some: bool) {
        let following = self.by_subscription.entry(id.clone()).or_default();
        if has_some {
            following.available.insert(partition);
            if !following.watchers.is_empty() {
                self.called.push(id);
            }
        } else {
            following.available.remove(&partition);
        }
    }

    /// A partition is gone.
    pub(super) fn forget_partition(&mut self, partition: PartitionId) {
        for following in self.by_subscription.values_mut() {
            following.available.remove(&partition);
        }
    }

    pub(super) fn forget(&mut self, id: &SubscriptionId) {
        self.by_subscription.remove(id);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let most = self.by_subscription.values().map(|following| following.watchers.len()).max();
        match most {
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
        let pull = Pull::new(reply, subscription, count_max, now.since_start + wait);
        self.begin_pull(pull, now, effects);
    }

    /// A pull begins, each at another place; one that takes nothing begins with waiting.
    pub(super) fn begin_pull(&mut self, mut pull: Pull, now: Now, effects: &mut Vec<ShardEffect>) {
        if self.routes.pulls.len() >= PULLS_MAX {
            let refused = Refused::Overloaded("too many subscribers wait");
            return self.bench.desk(now, effects).refuse(pull.reply, refused);
        }
        if !pull.own {
            self.report_use(&pull.subscription, now, effects);
        }
        if !pull.tells {
            pull.to_ask = self.places_of(&pull.subscription, pull.own).into();
            self.watchers.turn = self.watchers.turn.wrapping_add(1);
            let turn = self.watchers.turn.checked_rem(pull.to_ask.len()).unwrap_or(0);
            pull.to_ask.rotate_left(turn);
        }
        let id = self.routes.name();
        self.routes.pull_deadlines.insert((pull.deadline, id), ());
        self.routes.pulls.insert(id, pull);
        self.ask(id, now, effects);
    }

    /// Says now and then that a subscription is in use.
    fn report_use(&mut self, id: &SubscriptionId, now: Now, effects: &mut Vec<ShardEffect>) {
        let following = self.watchers.by_subscription.entry(id.clone()).or_default();
        let now = now.since_start;
        if following.reported.is_none_or(|at| now.since(at) >= USE_REPORT_INTERVAL) {
            following.reported = Some(now);
            effects.push(ShardEffect::Report(Report::Used(id.clone())));
        }
    }

    /// The places in which a subscription has partitions, each once; all of them, where counting
    /// would cost more than asking.
    fn places_of(&self, id: &SubscriptionId, own: bool) -> Vec<Place> {
        let Some(subscription) = self.view.subscriptions.get(id) else {
            return Vec::new();
        };
        let me = self.node.0;
        let others = !own && self.view.nodes.len() > 1;
        let is_other = |place: &Place| match place {
            Place::Shard(_) => true,
            Place::Node(node) => others && *node != me && self.view.nodes.contains_key(node),
        };
        if subscription.matched.len() > TOPICS_COUNTED_MAX {
            let nodes = self.view.nodes.keys().copied().map(Place::Node).filter(is_other);
            return (0..self.shards).map(|at| Place::Shard(ShardId(at))).chain(nodes).collect();
        }
        let place = |id, leader| {
            if leader == me { Place::Shard(shard_of(id, self.shards)) } else { Place::Node(leader) }
        };
        let partitions = self.view.partitions_of(subscription);
        let places = partitions.map(|partition| place(partition.id, partition.leader));
        let mut places: Vec<Place> = places.filter(is_other).collect();
        places.sort();
        places.dedup();
        places
    }

    /// Asks the next place, or begins to wait.
    pub(super) fn ask(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        let me = self.me;
        let Some(pull) = self.routes.pulls.get_mut(&id) else {
            return;
        };
        if let Some(place) = pull.to_ask.pop_front() {
            pull.asking = true;
            let (subscription, count_max) = (pull.subscription.clone(), pull.count_max);
            let wait = Duration::ZERO;
            match place {
                Place::Shard(shard) if shard == me => {
                    self.pull_here(ReplyTo::Own(id), &subscription, count_max, now, effects);
                }
                Place::Shard(to) => {
                    let request = Request::Pull { subscription, count_max, wait };
                    let message = Message::Forward { id, request };
                    effects.push(ShardEffect::Send { to, message });
                }
                Place::Node(disk) => {
                    let request = Request::Pull { subscription, count_max, wait };
                    let leader = Leader { disk, believed: Vec::new() };
                    let trip = Trip::new(now.since_start + TAKE_WAIT);
                    self.embark(Purpose::Pull(id), request, leader, trip, now, effects);
                }
            }
            return;
        }
        pull.asking = false;
        let (own, lasts) = (pull.own, pull.deadline.since(now.since_start));
        if lasts.is_zero() {
            let nothing = pull.nothing();
            return self.end_pull(id, nothing, now, effects);
        }
        let subscription = pull.subscription.clone();
        for place in self.places_of(&subscription, own) {
            let subscription = subscription.clone();
            match place {
                Place::Shard(shard) if shard == me => {
                    self.watch(me, id, subscription, lasts, now, effects);
                }
                Place::Shard(to) => {
                    let message = Message::Watch { id, subscription, lasts };
                    effects.push(ShardEffect::Send { to, message });
                }
                Place::Node(node) => self.await_node(subscription, node, now, effects),
            }
        }
    }

    /// Partitions of these topics came, or have another leader: pulls that wait look at all places
    /// again.
    pub(super) fn look_again(
        &mut self,
        topics: &BTreeSet<TopicName>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.routes.pulls.is_empty() {
            return;
        }
        let subscribers = topics.iter().filter_map(|topic| self.view.subscribers.get(topic));
        let meant: BTreeSet<&SubscriptionId> =
            subscribers.flat_map(|subscriptions| subscriptions.iter()).collect();
        let pulls = self.routes.pulls.iter();
        let waiting = pulls.filter(|(_, pull)| !pull.asking && meant.contains(&pull.subscription));
        let waiting: Vec<RequestId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            let Some(pull) = self.routes.pulls.get(&id).filter(|pull| !pull.asking) else {
                continue;
            };
            let places = self.places_of(&pull.subscription, pull.own);
            if let Some(pull) = self.routes.pulls.get_mut(&id).filter(|pull| !pull.tells) {
                pull.to_ask = places.into();
            }
            self.ask(id, now, effects);
        }
    }

    /// A subscription is gone: whoever waits for it is told.
    pub(super) fn end_pulls_of(
        &mut self,
        subscription: &SubscriptionId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let waiting = self
            .routes
            .pulls
            .iter()
            .filter(|(_, pull)| !pull.asking && pull.subscription == *subscription);
        let waiting: Vec<RequestId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            let refused = Refused::NoSubscription(subscription.clone());
            self.end_pull(id, Response::Refused(refused), now, effects);
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
        if !self.view.subscriptions.contains_key(subscription) {
            let refused = Refused::NoSubscription(subscription.clone());
            return self.bench.desk(now, effects).refuse(reply, refused);
        }
        if planted(Bug::LatestAtFirstPull) {
            self.begin_late(subscription, now, effects);
        }
        let following = self.watchers.by_subscription.get(subscription);
        let ids: Vec<PartitionId> = following.map_or_else(Vec::new, |following| {
            let (available, asked) = (&following.available, following.asked);
            let after = available.range((Bound::Excluded(asked), Bound::Unbounded));
            after.chain(available.range(..=asked)).copied().collect()
        });
        for id in ids {
            let pulled = self
                .on(id, now, effects, |held, desk| held.pull(reply, subscription, count_max, desk));
            if pulled == Some(true) {
                if let Some(following) = self.watchers.by_subscription.get_mut(subscription) {
                    following.asked = id;
                }
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
            Response::Pulled(messages) if messages.is_empty() => {
                if let Some(pull) = self.routes.pulls.get_mut(&id) {
                    pull.heard_nothing = true;
                }
                self.ask(id, now, effects);
            }
            // What it would have brought comes again, when its leases have ended.
            Response::Refused(Refused::NotReady) | Response::Unknown
                if self.routes.pulls.contains_key(&id) =>
            {
                if let Some(pull) = self.routes.pulls.get_mut(&id) {
                    pull.heard_unready = true;
                }
                self.ask(id, now, effects);
            }
            response @ (Response::Pulled(_)
            | Response::Published { .. }
            | Response::Batch(_)
            | Response::Fetched { .. }
            | Response::Trimmed { .. }
            | Response::Settled { .. }
            | Response::Available(_)
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
        let following = self.watchers.by_subscription.entry(subscription).or_default();
        if !following.available.is_empty() {
            return self.tell(from, id, now, effects);
        }
        let until = now.since_start + lasts;
        let watchers = &mut following.watchers;
        watchers.retain(|watcher| {
            watcher.until > now.since_start && (watcher.shard, watcher.id) != (from, id)
        });
        let crowded = watchers.len() >= WATCHERS_MAX;
        let oldest = crowded.then(|| watchers.remove(0));
        watchers.push(Watcher { shard: from, id, until });
        if let Some(oldest) = oldest {
            self.tell(oldest.shard, oldest.id, now, effects);
        }
    }

    /// Calls those for whose subscriptions something has come; false when there was nobody.
    pub(super) fn call_watchers(&mut self, now: Now, effects: &mut Vec<ShardEffect>) -> bool {
        let called = std::mem::take(&mut self.watchers.called);
        for id in &called {
            let following = self.watchers.by_subscription.get_mut(id);
            let watchers = following.map(|held| std::mem::take(&mut held.watchers));
            for Watcher { shard, id, until } in watchers.into_iter().flatten() {
                if until > now.since_start {
                    self.tell(shard, id, now, effects);
                }
            }
        }
        !called.is_empty()
    }

    fn tell(&mut self, to: ShardId, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if to == self.me {
            self.ready(Place::Shard(to), id, now, effects);
        } else {
            effects.push(ShardEffect::Send { to, message: Message::Ready { id } });
        }
    }

    /// A watched place has something: it is asked next.
    pub(super) fn ready(
        &mut self,
        from: Place,
        id: RequestId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(pull) = self.routes.pulls.get_mut(&id) else {
            return;
        };
        if pull.tells {
            return self.end_pull(id, Response::Available(true), now, effects);
        }
        if !pull.to_ask.contains(&from) {
            pull.to_ask.push_back(from);
        }
        if !pull.asking {
            self.ask(id, now, effects);
        }
    }
}
