//! The door of a shard: what a client asks is done here, handed on, or made to wait.

use super::admission::{Waiting, source};
use super::desk::{Desk, ReplyTo};
use super::partition::Partition;
use super::replica::Submission;
use super::routing::asked::Seat;
use super::routing::{
    Forwarded, TOPIC_WAIT, WANTED_BYTES_MAX, WANTED_MAX, Wanting, target, target_of,
};
use super::shard::Shard;
use crate::ids::{ChangeIndex, PartitionId, RequestId, ShardId, Source, TopicName};
use crate::machine::{DiskSpace, Message, Now, Refused, Report, Request, Response, ShardEffect};

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
            request @ (Request::Publish(_)
            | Request::PublishBatch(..)
            | Request::Fetch { .. }
            | Request::Trim { .. }
            | Request::Settle { .. }
            | Request::Await { .. }
            | Request::Describe) => self.serve(reply, request, now, effects),
        }
    }

    /// Does what is asked, or hands it to whoever does.
    pub(super) fn serve(
        &mut self,
        reply: ReplyTo,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let blind = self.view.version == ChangeIndex(0);
        let waits =
            matches!(request, Request::Publish(_) | Request::PublishBatch(..) | Request::Describe);
        if blind && !waits {
            // Without a view nobody can say what exists.
            return self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
        }
        match request {
            Request::Publish(submission) => self.publish(reply, submission, now, effects),
            Request::PublishBatch(items, routed) => {
                self.publish_batch(reply, items, &routed, now, effects);
            }
            Request::Fetch { .. } | Request::Trim { .. } => {
                self.serve_partition(reply, request, now, effects);
            }
            Request::Pull { subscription, count_max, wait } => {
                if self.view.subscriptions.contains_key(&subscription) {
                    self.pull(reply, subscription, count_max, wait, now, effects);
                } else {
                    let refused = Refused::NoSubscription(subscription);
                    self.bench.desk(now, effects).refuse(reply, refused);
                }
            }
            Request::Settle { subscription, tokens, verdict } => {
                self.settle(reply, &subscription, tokens, verdict, now, effects);
            }
            Request::Await { subscription, lasts } => {
                self.await_here(reply, subscription, lasts, now, effects);
            }
            Request::Describe => {
                let status = Box::new(self.status());
                self.bench.desk(now, effects).answer(reply, Response::Described(status));
            }
        }
    }

    /// A request about one partition that is named by its topic and number.
    fn serve_partition(
        &mut self,
        reply: ReplyTo,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(id) = target(&self.view, &request) else {
            if let Request::Fetch { topic, partition, .. }
            | Request::Trim { topic, partition, .. } = request
            {
                let refused = match self.peers(reply) {
                    None => self.no_partition(topic, partition),
                    // Whoever asks knows of it, or will soon know that it is gone.
                    Some(_) => Refused::NotReady,
                };
                self.bench.desk(now, effects).refuse(reply, refused);
            }
            return;
        };
        match self.seat(id, reply) {
            Some(Seat::Here) => {}
            Some(Seat::Sibling(shard)) => {
                self.forward(shard, Forwarded::Request(reply), request, now, effects);
                return;
            }
            Some(Seat::Node(leader)) => {
                return self.hand_over(reply, request, leader, now, effects);
            }
            Some(Seat::Nowhere) | None => {
                return self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
            }
        }
        self.here(id, reply, now, effects, |held, desk| match request {
            Request::Fetch { from, count_max, wait, .. } => {
                held.fetch(reply, from, count_max, wait, desk);
            }
            Request::Trim { below, .. } => held.trim(reply, below, desk),
            Request::Publish(_)
            | Request::PublishBatch(..)
            | Request::Pull { .. }
            | Request::Settle { .. }
            | Request::Await { .. }
            | Request::Describe => panic!("this request names no partition"),
        });
    }

    fn no_partition(&self, topic: TopicName, number: u32) -> Refused {
        if self.view.topics.contains_key(&topic) {
            Refused::NoPartition(topic, number)
        } else {
            Refused::NoTopic(topic)
        }
    }

    /// Works on a partition that lives here, once a view has brought it.
    fn here(
        &mut self,
        id: PartitionId,
        reply: ReplyTo,
        now: Now,
        effects: &mut Vec<ShardEffect>,
        work: impl FnOnce(&mut Partition, &mut Desk<'_>),
    ) {
        if self.on(id, now, effects, |held, desk| work(held, desk)).is_none() {
            self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
        }
    }

    pub(super) fn publish(
        &mut self,
        reply: ReplyTo,
        submission: Submission,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(id) = target_of(&self.view, &submission) else {
            return self.want(reply, submission, now, effects);
        };
        let request = Request::Publish;
        match self.seat(id, reply) {
            Some(Seat::Here) => self.enter(id, vec![(reply, submission)], now, effects),
            Some(Seat::Sibling(shard)) => {
                let what = Forwarded::Request(reply);
                self.forward(shard, what, request(submission), now, effects);
            }
            Some(Seat::Node(leader)) => {
                self.hand_over(reply, request(submission), leader, now, effects);
            }
            Some(Seat::Nowhere) | None => {
                self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
            }
        }
    }

    /// Publishes to one partition of this shard, all of one request, go to the disk or wait for
    /// their turn. What the node itself stores does not wait, and a full disk refuses at once.
    pub(super) fn enter(
        &mut self,
        partition: PartitionId,
        messages: Vec<(ReplyTo, Submission)>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.admission.is_open(self.bench.ledger.in_flight)
            || self.bench.disk == DiskSpace::Full
            || source(&messages) == Source::NODE
            || !self.partitions.contains_key(&partition)
        {
            return self.store(partition, messages, now, effects);
        }
        self.bench.counters.queued += messages.len() as u64;
        if let Err((waiting, refused)) = self.admission.wait(Waiting { partition, messages }, now) {
            self.shed(waiting, &refused, now, effects);
        }
    }

    fn shed(
        &mut self,
        waiting: Waiting,
        refused: &Refused,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        self.bench.counters.shed += waiting.messages.len() as u64;
        let mut desk = self.bench.desk(now, effects);
        for (reply, _) in waiting.messages {
            desk.refuse(reply, refused.clone());
        }
    }

    fn store(
        &mut self,
        partition: PartitionId,
        messages: Vec<(ReplyTo, Submission)>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if self.partitions.contains_key(&partition) {
            self.on(partition, now, effects, |held, desk| held.publish(messages, desk));
            return;
        }
        let mut desk = self.bench.desk(now, effects);
        for (reply, _) in messages {
            desk.refuse(reply, Refused::NotReady);
        }
    }

    /// Those whose turn it is go to the disk, as far as it takes more.
    pub(super) fn take_turns(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        let ledger = &self.bench.ledger;
        self.admission.observe(now, ledger.entered, ledger.in_flight);
        while let Some(Waiting { partition, messages }) =
            self.admission.next(self.bench.ledger.in_flight)
        {
            self.store(partition, messages, now, effects);
        }
    }

    /// Refuses those who have waited too long.
    pub(super) fn send_away(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some((waiting, refused)) = self.admission.give_up(now.since_start) {
            self.shed(waiting, &refused, now, effects);
        }
    }

    /// Publishes what has become of the load.
    pub(super) fn tell_load(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        if let Some(event) = self.admission.announce(now) {
            self.publish(ReplyTo::Nobody, event, now, effects);
        }
    }

    /// A message whose topic does not exist waits for it to be made.
    pub(super) fn want(
        &mut self,
        reply: ReplyTo,
        submission: Submission,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let bytes = submission.draft.payload.len();
        let is_peers = self.peers(reply).is_some();
        let mut desk = self.bench.desk(now, effects);
        if is_peers {
            // It waits where it came from, until both nodes have the topic.
            return desk.refuse(reply, Refused::NotReady);
        }
        if !desk.may_write() {
            return desk.refuse(reply, Refused::DiskFull);
        }
        if self.routes.wanting.len() >= WANTED_MAX
            || self.routes.wanting_bytes + bytes > WANTED_BYTES_MAX
        {
            let refused = Refused::Overloaded("too many messages wait for their topics");
            return desk.refuse(reply, refused);
        }
        let wanted = Report::TopicWanted(submission.topic.clone());
        effects.push(ShardEffect::Report(wanted));
        self.routes.wanting_bytes += bytes;
        let deadline = now.since_start + TOPIC_WAIT;
        self.routes.wanting.push_back(Wanting { reply, submission, deadline });
    }

    /// A view came: messages whose topics it brought go on.
    pub(super) fn retry_wanting(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        // Each is taken once, and stays in the memory in which all of them wait.
        for _ in 0..self.routes.wanting.len() {
            let wanting = self.routes.wanting.pop_front().expect("so many wait");
            if self.view.topics.contains_key(&wanting.submission.topic) {
                let Wanting { reply, submission, .. } = wanting;
                self.routes.wanting_bytes -= submission.draft.payload.len();
                self.publish(reply, submission, now, effects);
            } else {
                self.routes.wanting.push_back(wanting);
            }
        }
    }

    /// Ends what waited too long.
    pub(super) fn give_up(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        let routes = &mut self.routes;
        while let Some(wanting) =
            routes.wanting.pop_front_if(|wanting| wanting.deadline <= now.since_start)
        {
            routes.wanting_bytes -= wanting.submission.draft.payload.len();
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
                let nothing = pull.nothing();
                self.bench.desk(now, effects).answer(pull.reply, nothing);
            }
        }
    }

    /// Hands a request to the shard that it belongs to; gives the name under which it will
    /// answer, or refuses it: too much is under way.
    pub(super) fn forward(
        &mut self,
        to: ShardId,
        what: Forwarded,
        request: Request,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) -> Option<RequestId> {
        if self.routes.is_forwarding_enough() {
            if let Forwarded::Request(reply) = what {
                let refused = Refused::Overloaded("too many requests are under way");
                self.bench.desk(now, effects).refuse(reply, refused);
            }
            return None;
        }
        let id = self.routes.name();
        self.routes.forwards.insert(id, what);
        self.bench.counters.forwarded += 1;
        effects.push(ShardEffect::Send { to, message: Message::Forward { id, request } });
        Some(id)
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
            Some(Forwarded::Verdicts(whole)) => {
                self.verdicts_answered(whole, response, now, effects);
            }
            Some(Forwarded::Part(batch)) => {
                self.part_answered(batch, id, &response, now, effects);
            }
            None => self.pull_answered(id, response, now, effects),
        }
    }

    /// Sends each answer where it belongs. An answer to something of this shard's own may bring
    /// further ones.
    pub(super) fn give_answers(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some((reply, response)) = self.bench.answers.pop_front() {
            match reply {
                ReplyTo::Client(id) => {
                    self.bench.counters.refused +=
                        u64::from(matches!(response, Response::Refused(_)));
                    effects.push(ShardEffect::Reply { id, response });
                }
                ReplyTo::Own(id) => self.pull_answered(id, response, now, effects),
                ReplyTo::Item(batch, at) => {
                    self.item_answered(batch, at, response, now, effects);
                }
                ReplyTo::Nobody => {}
                ReplyTo::Grave(id) => self.buried(id, &response, now, effects),
                ReplyTo::Peer(id) => self.answer_peer(id, response, effects),
                ReplyTo::Errand(id) => self.came_back(id, Ok(response), false, now, effects),
                ReplyTo::Shard(to, id) => {
                    let message = Message::Answer { id, response };
                    effects.push(ShardEffect::Send { to, message });
                }
            }
        }
    }

    /// Has the dead letters stored that partitions have laid out.
    pub(super) fn send_graves(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some((grave, submission)) = self.bench.outbox.pop_front() {
            let id = self.routes.name();
            self.bench.graves.insert(id, grave);
            self.publish(ReplyTo::Grave(id), submission, now, effects);
        }
    }

    fn buried(
        &mut self,
        id: RequestId,
        response: &Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let stored = matches!(response, Response::Published { .. });
        if let Some(grave) = self.bench.graves.remove(&id) {
            self.on(grave.partition, now, effects, |held, desk| {
                held.buried(&grave, stored, desk);
            });
        }
    }
}
