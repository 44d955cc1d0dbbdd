//! The door of a shard: what a client asks is done here, handed on, or made to wait.

use super::delivery::AckToken;
use super::desk::ReplyTo;
use super::replica::Draft;
use super::routing::{Acks, Forwarded, TOPIC_WAIT, WANTED_BYTES_MAX, WANTED_MAX, Wanting, target};
use super::shard::Shard;
use crate::ids::{ChangeIndex, PartitionId, RequestId, ShardId, SubscriptionId, TopicName};
use crate::machine::{Message, Now, Refused, Report, Request, Response, ShardEffect};
use crate::node::shard_of;

impl Shard {
    /// A client's request.
    pub(super) fn requested(
        &mut self,
        id: RequestId,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        self.serve(ReplyTo::Client(id), request, now, effects);
    }

    /// A request that another shard handed on. A pull asks this shard alone.
    pub(super) fn forwarded(
        &mut self,
        from: ShardId,
        id: RequestId,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let reply = ReplyTo::Shard(from, id);
        match request {
            Request::Pull { subscription, count_max, .. } => {
                self.pull_here(reply, &subscription, count_max, now, effects);
            }
            request @ (Request::Publish { .. }
            | Request::Fetch { .. }
            | Request::Acknowledge { .. }
            | Request::Describe) => self.serve(reply, request, now, effects),
        }
    }

    fn serve(
        &mut self,
        reply: ReplyTo,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let partition = target(&self.view, &request);
        let blind = self.view.version == ChangeIndex(0);
        if blind && !matches!(request, Request::Publish { .. } | Request::Describe) {
            // Without a view nobody can say what exists.
            return self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
        }
        match request {
            Request::Publish { topic, draft } => match partition {
                Some(id) => self.publish(reply, id, topic, draft, now, effects),
                None => self.want(
                    Wanting { reply, topic, draft, deadline: now.since_start + TOPIC_WAIT },
                    now,
                    effects,
                ),
            },
            Request::Fetch { topic, partition: number, from, count_max, wait } => {
                let Some(id) = partition else {
                    let refused = match self.view.topics.contains_key(&topic) {
                        true => Refused::NoPartition(topic, number),
                        false => Refused::NoTopic(topic),
                    };
                    return self.bench.desk(now, effects).refuse(reply, refused);
                };
                if let Some(shard) = self.elsewhere(id) {
                    let partition = number;
                    let request = Request::Fetch { topic, partition, from, count_max, wait };
                    self.forward(shard, Forwarded::Request(reply), request, now, effects);
                } else {
                    self.here(id, reply, now, effects, |held, desk| {
                        held.fetch(reply, from, count_max, wait, desk);
                    });
                }
            }
            Request::Pull { subscription, count_max, wait } => {
                if self.view.subscriptions.contains_key(&subscription) {
                    self.pull(reply, subscription, count_max, wait, now, effects);
                } else {
                    let refused = Refused::NoSubscription(subscription);
                    self.bench.desk(now, effects).refuse(reply, refused);
                }
            }
            Request::Acknowledge { subscription, tokens } => {
                self.acknowledge(reply, subscription, tokens, now, effects);
            }
            Request::Describe => {
                let status = self.status();
                self.bench.desk(now, effects).answer(reply, Response::Described(status));
            }
        }
    }

    /// The other shard in which a partition lives, if it is another.
    fn elsewhere(&self, id: PartitionId) -> Option<ShardId> {
        Some(shard_of(id, self.shards)).filter(|&shard| shard != self.me)
    }

    /// Works on a partition that lives here, once a view has brought it.
    fn here(
        &mut self,
        id: PartitionId,
        reply: ReplyTo,
        now: Now,
        effects: &mut Vec<ShardEffect>,
        work: impl FnOnce(&mut super::partition::Partition, &mut super::desk::Desk<'_>),
    ) {
        if self.on(id, now, effects, |held, _, desk| work(held, desk)).is_none() {
            self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
        }
    }

    fn publish(
        &mut self,
        reply: ReplyTo,
        id: PartitionId,
        topic: TopicName,
        draft: Draft,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(shard) = self.elsewhere(id) {
            let request = Request::Publish { topic, draft };
            self.forward(shard, Forwarded::Request(reply), request, now, effects);
        } else {
            self.here(id, reply, now, effects, |held, desk| held.publish(reply, draft, desk));
        }
    }

    /// A message whose topic does not exist waits for it to be made.
    fn want(&mut self, wanting: Wanting, now: Now, effects: &mut Vec<ShardEffect>) {
        let bytes = wanting.draft.payload.len();
        let mut desk = self.bench.desk(now, effects);
        if !desk.may_write() {
            return desk.refuse(wanting.reply, Refused::DiskFull);
        }
        if self.routes.wanting.len() >= WANTED_MAX
            || self.routes.wanting_bytes + bytes > WANTED_BYTES_MAX
        {
            let refused = Refused::Overloaded("too many messages wait for their topics");
            return desk.refuse(wanting.reply, refused);
        }
        effects.push(ShardEffect::Report(Report::TopicWanted(wanting.topic.clone())));
        self.routes.wanting_bytes += bytes;
        self.routes.wanting.push_back(wanting);
    }

    /// A view came: messages whose topics it brought go on.
    pub(super) fn retry_wanting(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        for wanting in std::mem::take(&mut self.routes.wanting) {
            let Wanting { reply, topic, draft, deadline } = wanting;
            if self.view.topics.contains_key(&topic) {
                self.routes.wanting_bytes -= draft.payload.len();
                self.serve(reply, Request::Publish { topic, draft }, now, effects);
            } else {
                self.routes.wanting.push_back(Wanting { reply, topic, draft, deadline });
            }
        }
    }

    /// Ends what waited too long.
    pub(super) fn give_up(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        let routes = &mut self.routes;
        while let Some(wanting) =
            routes.wanting.pop_front_if(|wanting| wanting.deadline <= now.since_start)
        {
            routes.wanting_bytes -= wanting.draft.payload.len();
            self.bench.desk(now, effects).refuse(wanting.reply, Refused::NotReady);
        }
        while let Some((&(deadline, id), ())) = routes.pull_deadlines.first_key_value() {
            if deadline > now.since_start {
                break;
            }
            routes.pull_deadlines.pop_first();
            // A pull that is asking ends when the answer comes: what it brings is leased to it.
            if routes.pulls.get(&id).is_some_and(|pull| !pull.asking)
                && let Some(pull) = routes.pulls.remove(&id)
            {
                let nothing = Response::Pulled(Vec::new());
                self.bench.desk(now, effects).answer(pull.reply, nothing);
            }
        }
    }

    fn acknowledge(
        &mut self,
        reply: ReplyTo,
        subscription: SubscriptionId,
        tokens: Vec<AckToken>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let id = self.routes.name();
        let (mut missing, mut acked, mut unknown) = (0, 0, false);
        let (mut expired, mut away) = (Vec::new(), std::collections::BTreeMap::new());
        for token in tokens {
            let elsewhere = self.elsewhere(token.partition);
            if let Some(shard) = elsewhere
                && self.view.partitions.contains_key(&token.partition)
            {
                away.entry(shard).or_insert_with(Vec::new).push(token);
                continue;
            }
            let taken = self.on(token.partition, now, effects, |held, _, desk| {
                held.acknowledge(&subscription, token, desk)
            });
            if taken == Some(true) { acked += 1 } else { expired.push(token) }
        }
        for (shard, tokens) in away {
            let request = Request::Acknowledge { subscription: subscription.clone(), tokens };
            let sent = self.forward(shard, Forwarded::Acks(id), request, now, effects);
            missing += usize::from(sent);
            unknown |= !sent;
        }
        self.routes.acks.insert(id, Acks { reply, missing, acked, expired, unknown });
        self.end_acks(id, now, effects);
    }

    fn end_acks(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        if self.routes.acks.get(&id).is_some_and(|acks| acks.missing > 0) {
            return;
        }
        if let Some(acks) = self.routes.acks.remove(&id) {
            let Acks { reply, acked, expired, unknown, .. } = acks;
            let whole = Response::Acknowledged { acked, expired };
            let response = if unknown { Response::Unknown } else { whole };
            self.bench.desk(now, effects).answer(reply, response);
        }
    }

    /// Another shard answered something that this one asked or handed on.
    pub(super) fn answered(
        &mut self,
        id: RequestId,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        match self.routes.forwards.remove(&id) {
            Some(Forwarded::Request(reply)) => {
                self.bench.desk(now, effects).answer(reply, response);
            }
            Some(Forwarded::Acks(whole)) => {
                if let Some(acks) = self.routes.acks.get_mut(&whole) {
                    acks.missing -= 1;
                    if let Response::Acknowledged { acked, expired } = response {
                        acks.acked += acked;
                        acks.expired.extend(expired);
                    } else {
                        acks.unknown = true;
                    }
                }
                self.end_acks(whole, now, effects);
            }
            None => self.pull_answered(id, response, now, effects),
        }
    }

    /// Sends each answer where it belongs; an answer to an own pull may bring further ones.
    pub(super) fn give_answers(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some((reply, response)) = self.bench.answers.pop_front() {
            match reply {
                ReplyTo::Client(id) => {
                    self.bench.counters.refused +=
                        u64::from(matches!(response, Response::Refused(_)));
                    effects.push(ShardEffect::Reply { id, response });
                }
                ReplyTo::Own(id) => self.pull_answered(id, response, now, effects),
                ReplyTo::Shard(to, id) => {
                    let message = Message::Answer { id, response };
                    effects.push(ShardEffect::Send { to, message });
                }
            }
        }
    }
}
