//! Requests that touch several partitions: batches of messages, and verdicts on many tokens.

use std::collections::BTreeMap;

use super::delivery::AckToken;
use super::desk::ReplyTo;
use super::replica::Submission;
use super::routing::{BATCH_ITEMS_MAX, BATCHES_MAX, Batch, Forwarded, Routed, Verdicts, target_of};
use super::shard::Shard;
use crate::ids::{PartitionId, RequestId, ShardId, SubscriptionId};
use crate::machine::{Now, Refused, Request, Response, ShardEffect, Verdict};

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
        let parts = BTreeMap::new();
        self.routes.batches.insert(batch, Batch { reply, outcomes, missing, parts });
        let mut here: Vec<(PartitionId, u32)> = Vec::with_capacity(items.len());
        let mut away: BTreeMap<ShardId, (Vec<u32>, Vec<Submission>)> = BTreeMap::new();
        let mut items: Vec<Option<Submission>> = items.into_iter().map(Some).collect();
        for (at, item) in (0..).zip(&mut items) {
            let routed = routed.of(&self.view, at);
            let partition = routed.or_else(|| target_of(&self.view, item.as_ref()?));
            let elsewhere = partition.map(|partition| self.elsewhere(partition));
            match (partition, elsewhere.flatten()) {
                (Some(partition), None) => here.push((partition, at)),
                (Some(_), Some(shard)) => {
                    let (places, items) = away.entry(shard).or_default();
                    places.push(at);
                    items.extend(item.take());
                }
                (None, _) => {
                    if let Some(item) = item.take() {
                        self.want(ReplyTo::Item(batch, at), item, now, effects);
                    }
                }
            }
        }
        here.sort_unstable();
        for part in here.chunk_by(|one, other| one.0 == other.0) {
            let of = |&(_, at): &(PartitionId, u32)| {
                Some((ReplyTo::Item(batch, at), items[at as usize].take()?))
            };
            let mut messages = Vec::with_capacity(part.len());
            messages.extend(part.iter().filter_map(of));
            self.enter(part[0].0, messages, now, effects);
        }
        for (shard, (places, items)) in away {
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
        self.end_batch(batch, now, effects);
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
        if let Some(held) = self.routes.batches.get_mut(&batch) {
            let places = held.parts.remove(&part).unwrap_or_default();
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

    fn end_batch(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
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
        subscription: SubscriptionId,
        tokens: Vec<AckToken>,
        verdict: Verdict,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let id = self.routes.name();
        let (mut missing, mut count, mut unknown) = (0, 0, false);
        let (mut expired, mut away) = (Vec::new(), BTreeMap::new());
        for token in tokens {
            let elsewhere = self.elsewhere(token.partition);
            if let Some(shard) = elsewhere
                && self.view.partitions.contains_key(&token.partition)
            {
                away.entry(shard).or_insert_with(Vec::new).push(token);
                continue;
            }
            let taken = self.on(token.partition, now, effects, |held, _, desk| {
                held.settle(&subscription, token, verdict, desk)
            });
            if taken == Some(true) { count += 1 } else { expired.push(token) }
        }
        for (shard, tokens) in away {
            let request = Request::Settle { subscription: subscription.clone(), tokens, verdict };
            let sent = self.forward(shard, Forwarded::Verdicts(id), request, now, effects);
            missing += usize::from(sent.is_some());
            unknown |= sent.is_none();
        }
        self.routes.verdicts.insert(id, Verdicts { reply, missing, count, expired, unknown });
        self.end_verdicts(id, now, effects);
    }

    /// Another shard answered for the tokens that it took.
    pub(super) fn verdicts_answered(
        &mut self,
        id: RequestId,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(verdicts) = self.routes.verdicts.get_mut(&id) {
            verdicts.missing -= 1;
            if let Response::Settled { count, expired } = response {
                verdicts.count += count;
                verdicts.expired.extend(expired);
            } else {
                verdicts.unknown = true;
            }
        }
        self.end_verdicts(id, now, effects);
    }

    fn end_verdicts(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if self.routes.verdicts.get(&id).is_some_and(|verdicts| verdicts.missing > 0) {
            return;
        }
        if let Some(verdicts) = self.routes.verdicts.remove(&id) {
            let Verdicts { reply, count, expired, unknown, .. } = verdicts;
            let whole = Response::Settled { count, expired };
            let response = if unknown { Response::Unknown } else { whole };
            self.bench.desk(now, effects).answer(reply, response);
        }
    }
}

impl Batch {
    fn fill(&mut self, at: u32, response: Response) {
        if let Some(place @ None) = self.outcomes.get_mut(at as usize) {
            *place = Some(response);
            self.missing -= 1;
        }
    }
}
