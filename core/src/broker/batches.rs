//! Requests that touch several partitions: batches of messages, and verdicts on many tokens.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::delivery::AckToken;
use super::desk::ReplyTo;
use super::replica::Submission;
use super::routing::asked::Seat;
use super::routing::errands::{Leader, Purpose, Trip};
use super::routing::{
    BATCH_ITEMS_MAX, BATCHES_MAX, Batch, Forwarded, ROUTE_WAIT, Routed, VERDICTS_MAX, Verdicts,
    target_of,
};
use super::shard::Shard;
use crate::ids::{DiskId, Epoch, PartitionId, RequestId, ShardId, SubscriptionId};
use crate::machine::{Now, Refused, Request, Response, ShardEffect, Verdict};

/// Messages of a batch with their places in it, and what is believed of their partitions.
#[derive(Default)]
struct Share {
    places: Vec<u32>,
    items: Vec<Submission>,
    believed: BTreeMap<PartitionId, Epoch>,
}

impl Share {
    fn add(&mut self, at: u32, item: Submission) {
        self.places.push(at);
        self.items.push(item);
    }
}

impl Shard {
    /// Stores messages side by side, those of one partition in their order and with one write.
    pub(super) fn publish_batch(
        &mut self,
        reply: ReplyTo,
        items: Vec<Submission>,
        routed: &Routed,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.routes.batches.len() >= BATCHES_MAX || items.len() > BATCH_ITEMS_MAX {
            let refused = Refused::Overloaded("too many batches are under way");
            return self.bench.desk(now, effects).refuse(reply, refused);
        }
        let batch = self.routes.name();
        let (outcomes, missing) = (vec![None; items.len()], items.len());
        let (parts, doubtful) = (BTreeMap::new(), BTreeSet::new());
        let trip = self.trip_of(reply, ROUTE_WAIT, now);
        let trip = trip.unwrap_or_else(|| Trip::new(now.since_start));
        let held = Batch { reply, outcomes, missing, parts, trip, doubtful };
        self.routes.batches.insert(batch, held);
        self.scatter(batch, (0..).zip(items).collect(), routed, trip, now, effects);
    }

    /// Gives messages of a batch to whoever leads their partitions.
    pub(super) fn scatter(
        &mut self,
        batch: RequestId,
        items: Vec<(u32, Submission)>,
        routed: &Routed,
        trip: Trip,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let mut here: Vec<(PartitionId, u32, Submission)> = Vec::with_capacity(items.len());
        let mut siblings: BTreeMap<ShardId, Share> = BTreeMap::new();
        let mut nodes: BTreeMap<DiskId, Share> = BTreeMap::new();
        let mut seats: BTreeMap<PartitionId, Seat> = BTreeMap::new();
        for (at, item) in items {
            let reply = ReplyTo::Item(batch, at);
            let partition = routed.of(&self.view, at).or_else(|| target_of(&self.view, &item));
            let Some(partition) = partition else {
                self.want(reply, item, now, effects);
                continue;
            };
            let seat = match seats.entry(partition) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    vacant.insert(self.seat(partition, reply).unwrap_or(Seat::Nowhere))
                }
            };
            match seat {
                Seat::Here => here.push((partition, at, item)),
                Seat::Sibling(shard) => siblings.entry(*shard).or_default().add(at, item),
                Seat::Node(Leader { disk, believed }) if self.leaves(batch) => {
                    let share = nodes.entry(*disk).or_default();
                    share.believed.extend(believed.iter().copied());
                    share.add(at, item);
                }
                Seat::Node(_) | Seat::Nowhere => {
                    self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
                }
            }
        }
        self.enter_all(batch, here, now, effects);
        self.forward_all(batch, siblings, now, effects);
        for (disk, Share { places, items, believed }) in nodes {
            let request = Request::PublishBatch(items, Routed::default());
            let leader = Leader { disk, believed: believed.into_iter().collect() };
            self.embark(Purpose::Items(batch, places), request, leader, trip, now, effects);
        }
        self.end_batch(batch, now, effects);
    }

    /// Whether messages of a batch may go to other nodes: not, where a sibling handed them on.
    fn leaves(&self, batch: RequestId) -> bool {
        let held = self.routes.batches.get(&batch);
        held.is_some_and(|held| !matches!(held.reply, ReplyTo::Shard(..)))
    }

    /// Those of one partition in their order, and at once.
    fn enter_all(
        &mut self,
        batch: RequestId,
        mut here: Vec<(PartitionId, u32, Submission)>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        here.sort_by_key(|&(partition, at, _)| (partition, at));
        let mut here = here.into_iter().peekable();
        while let Some((partition, at, item)) = here.next() {
            let mut messages = vec![(ReplyTo::Item(batch, at), item)];
            while let Some((_, at, item)) = here.next_if(|(other, ..)| *other == partition) {
                messages.push((ReplyTo::Item(batch, at), item));
            }
            self.enter(partition, messages, now, effects);
        }
    }

    fn forward_all(
        &mut self,
        batch: RequestId,
        siblings: BTreeMap<ShardId, Share>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        for (shard, Share { places, items, .. }) in siblings {
            let request = Request::PublishBatch(items, Routed::default());
            match self.forward(shard, Forwarded::Part(batch), request, now, effects) {
                Some(part) => {
                    let held = self.routes.batches.get_mut(&batch).expect("it is not answered");
                    held.parts.insert(part, places);
                }
                None => {
                    let refused = Refused::Overloaded("too many requests are under way");
                    let mut desk = self.bench.desk(now, effects);
                    for at in places {
                        desk.refuse(ReplyTo::Item(batch, at), refused.clone());
                    }
                }
            }
        }
    }

    /// One message of a batch has its answer.
    pub(super) fn item_answered(
        &mut self,
        batch: RequestId,
        at: u32,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(held) = self.routes.batches.get_mut(&batch) {
            held.fill(at, response);
        }
        self.end_batch(batch, now, effects);
    }

    /// Another shard answered for the messages that it took.
    pub(super) fn part_answered(
        &mut self,
        batch: RequestId,
        part: RequestId,
        response: &Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let held = self.routes.batches.get_mut(&batch);
        let places = held.and_then(|held| held.parts.remove(&part)).unwrap_or_default();
        self.places_answered(batch, places, response, now, effects);
    }

    /// So many messages of a batch have their answers, in their order, or all of them this one.
    pub(super) fn places_answered(
        &mut self,
        batch: RequestId,
        places: Vec<u32>,
        response: &Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(held) = self.routes.batches.get_mut(&batch) {
            for (at, place) in places.into_iter().enumerate() {
                let outcome = if let Response::Batch(outcomes) = response {
                    outcomes.get(at).cloned()
                } else {
                    Some(response.clone())
                };
                held.fill(place, outcome.unwrap_or(Response::Unknown));
            }
        }
        self.end_batch(batch, now, effects);
    }

    pub(super) fn end_batch(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if self.routes.batches.get(&id).is_some_and(|batch| batch.missing > 0) {
            return;
        }
        if let Some(Batch { reply, outcomes, .. }) = self.routes.batches.remove(&id) {
            let outcomes = outcomes.into_iter().map(|one| one.unwrap_or(Response::Unknown));
            let response = Response::Batch(outcomes.collect());
            self.bench.desk(now, effects).answer(reply, response);
        }
    }

    /// Takes verdicts on messages of this shard, and hands on the others.
    pub(super) fn settle(
        &mut self,
        reply: ReplyTo,
        subscription: &SubscriptionId,
        tokens: Vec<AckToken>,
        verdict: Verdict,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.routes.verdicts.len() >= VERDICTS_MAX {
            let refused = Refused::Overloaded("too many acknowledgements are under way");
            return self.bench.desk(now, effects).refuse(reply, refused);
        }
        let id = self.routes.name();
        let verdicts = Verdicts::new(reply);
        self.routes.verdicts.insert(id, verdicts);
        let trip = self.trip_of(reply, ROUTE_WAIT, now);
        self.hand_out(id, (subscription, tokens, verdict), trip, now, effects);
        self.end_verdicts(id, now, effects);
    }

    /// Gives tokens to whoever leads their partitions.
    pub(super) fn hand_out(
        &mut self,
        id: RequestId,
        (subscription, tokens, verdict): (&SubscriptionId, Vec<AckToken>, Verdict),
        trip: Option<Trip>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(reply) = self.routes.verdicts.get(&id).map(|held| held.reply) else { return };
        let (mut count, mut expired, mut refused) = (0, Vec::new(), None);
        let is_handed_on = trip.is_none_or(|trip| trip.is_peers);
        let mut siblings: BTreeMap<ShardId, Vec<AckToken>> = BTreeMap::new();
        let mut nodes: BTreeMap<DiskId, (Leader, Vec<AckToken>)> = BTreeMap::new();
        for token in tokens {
            let seat = self.seat(token.partition, reply);
            match seat {
                Some(Seat::Sibling(shard)) => siblings.entry(shard).or_default().push(token),
                Some(Seat::Node(leader)) if trip.is_some() => {
                    let (to, of_it) = nodes
                        .entry(leader.disk)
                        .or_insert_with(|| (Leader { believed: Vec::new(), ..leader }, Vec::new()));
                    to.believed.extend(leader.believed);
                    of_it.push(token);
                }
                Some(Seat::Node(_) | Seat::Nowhere) => refused = Some(Refused::NotReady),
                // Whoever hands it on has heard of it.
                None if is_handed_on && !self.view.has_known(token.partition) => {
                    refused = Some(Refused::NotReady);
                }
                Some(Seat::Here) | None => {
                    let taken = self.on(token.partition, now, effects, |held, desk| {
                        held.settle(subscription, token, verdict, desk)
                    });
                    match taken {
                        Some(Ok(true)) => count += 1,
                        Some(Err(why)) => refused = Some(why),
                        // It leads it, and has not begun to.
                        None if seat.is_some() => refused = Some(Refused::NotReady),
                        Some(Ok(false)) | None => expired.push(token),
                    }
                }
            }
        }
        if let Some(held) = self.routes.verdicts.get_mut(&id) {
            held.count += count;
            held.expired.extend(expired);
            // An earlier try may have been taken.
            held.unknown |= refused.is_some() && trip.is_some_and(|trip| trip.doubtful);
            held.refused = refused.or(held.refused.take());
            held.missing += siblings.len() + nodes.len();
        }
        let request = |tokens| {
            let subscription = subscription.clone();
            Request::Settle { subscription, tokens, verdict }
        };
        for (shard, tokens) in siblings {
            let what = Forwarded::Verdicts(id);
            if self.forward(shard, what, request(tokens), now, effects).is_none() {
                self.verdicts_answered(id, Response::Unknown, now, effects);
            }
        }
        for (mut leader, tokens) in nodes.into_values() {
            leader.believed.sort_unstable();
            leader.believed.dedup();
            if let Some(trip) = trip {
                self.embark(Purpose::Tokens(id), request(tokens), leader, trip, now, effects);
            }
        }
    }

    /// Another shard or node answered for the tokens that it took.
    pub(super) fn verdicts_answered(
        &mut self,
        id: RequestId,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(verdicts) = self.routes.verdicts.get_mut(&id) {
            verdicts.missing -= 1;
            match response {
                Response::Settled { count, expired } => {
                    verdicts.count += count;
                    verdicts.expired.extend(expired);
                }
                Response::Refused(refused) => verdicts.refused = Some(refused),
                Response::Published { .. }
                | Response::Batch(_)
                | Response::Fetched { .. }
                | Response::Trimmed { .. }
                | Response::Pulled(_)
                | Response::Available(_)
                | Response::Described(_)
                | Response::Unknown => verdicts.unknown = true,
            }
        }
        self.end_verdicts(id, now, effects);
    }

    pub(super) fn end_verdicts(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if self.routes.verdicts.get(&id).is_some_and(|verdicts| verdicts.missing > 0) {
            return;
        }
        if let Some(verdicts) = self.routes.verdicts.remove(&id) {
            let Verdicts { reply, count, expired, unknown, refused, .. } = verdicts;
            let response = match refused {
                // Nothing of it was taken.
                Some(refused) if count == 0 && expired.is_empty() && !unknown => {
                    Response::Refused(refused)
                }
                None if !unknown => Response::Settled { count, expired },
                Some(_) | None => Response::Unknown,
            };
            self.bench.desk(now, effects).answer(reply, response);
        }
    }
}

impl Verdicts {
    fn new(reply: ReplyTo) -> Self {
        let (missing, count, unknown) = (0, 0, false);
        Self { reply, missing, count, expired: Vec::new(), unknown, refused: None }
    }
}
