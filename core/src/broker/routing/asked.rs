//! What other nodes ask this one to do for their clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Answer, Ask, Hops, Told};
use super::errands::Leader;
use crate::broker::desk::ReplyTo;
use crate::broker::shard::Shard;
use crate::cluster::dht::Route;
use crate::cluster::metadata::Partition;
use crate::ids::{Epoch, PartitionId, RequestId, ShardId};
use crate::machine::{Now, Refused, Request, Response, ShardEffect, Time};
use crate::node::shard_of;

/// How many requests of other nodes a shard has before it at most.
pub(crate) const ASKED_MAX: usize = 16_384;
/// For how long what another node asks is worked on at most.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(60);

/// What another node has asked and is not answered.
#[derive(Debug)]
pub(crate) struct AskedBy {
    pub(crate) hops: Hops,
    /// When whoever asked gives it up.
    pub(crate) deadline: Time,
    /// What it believes of the partitions that it is about.
    believed: BTreeMap<PartitionId, Epoch>,
    /// What it is to be told about them.
    routes: BTreeMap<PartitionId, Told>,
}

/// Where a partition is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// In this shard.
    Here,
    /// In another shard of this node.
    Sibling(ShardId),
    /// At another node.
    Node(Leader),
    /// Nowhere, as far as this node knows; whoever asks may know better in a moment.
    Nowhere,
}

impl Shard {
    /// Another node asks for something.
    pub(crate) fn asked(
        &mut self,
        id: RequestId,
        ask: Ask,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        self.bench.counters.asked += 1;
        let Ask { hops, lasts, believed, request } = ask;
        if !hops.hold() {
            self.errands.uncounted = Some(hops);
        }
        if self.errands.asked.len() >= ASKED_MAX {
            let refused = Refused::Overloaded("too many requests of other nodes are under way");
            let answer = Answer::from(Response::Refused(refused));
            return effects.push(ShardEffect::Answer { id, answer });
        }
        let deadline = now.since_start + lasts.min(ASKED_WAIT_MAX);
        let (believed, routes) = (believed.into_iter().collect(), BTreeMap::new());
        self.errands.asked.insert(id, AskedBy { hops, deadline, believed, routes });
        let reply = ReplyTo::Peer(id);
        match Arc::unwrap_or_clone(request) {
            Request::Pull { subscription, count_max, .. } => {
                self.pull(reply, subscription, count_max, Duration::ZERO, now, effects);
            }
            Request::Await { subscription, lasts } => {
                self.await_here(reply, subscription, lasts.min(ASKED_WAIT_MAX), now, effects);
            }
            Request::Fetch { topic, partition, from, count_max, wait } => {
                let wait = wait.min(ASKED_WAIT_MAX);
                let request = Request::Fetch { topic, partition, from, count_max, wait };
                self.serve(reply, request, now, effects);
            }
            // Nobody asks it of another node.
            Request::Describe => {
                self.bench.desk(now, effects).refuse(reply, Refused::NotReady);
            }
            request @ (Request::Publish(_)
            | Request::PublishBatch(..)
            | Request::Trim { .. }
            | Request::Settle { .. }) => self.serve(reply, request, now, effects),
        }
    }

    /// Sends another node the answer.
    pub(crate) fn answer_peer(
        &mut self,
        id: RequestId,
        response: Response,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let Some(asked) = self.errands.asked.remove(&id) {
            let routes = asked.routes.into_values().collect();
            effects.push(ShardEffect::Answer { id, answer: Answer { routes, response } });
        }
    }

    /// Which request of another node this is for, if it is for one.
    pub(crate) fn peers(&self, reply: ReplyTo) -> Option<RequestId> {
        match reply {
            ReplyTo::Peer(id) => Some(id),
            ReplyTo::Item(batch, _) => match self.routes.batches.get(&batch)?.reply {
                ReplyTo::Peer(id) => Some(id),
                ReplyTo::Client(_)
                | ReplyTo::Own(_)
                | ReplyTo::Grave(_)
                | ReplyTo::Nobody
                | ReplyTo::Item(..)
                | ReplyTo::Shard(..)
                | ReplyTo::Errand(_) => None,
            },
            ReplyTo::Client(_)
            | ReplyTo::Own(_)
            | ReplyTo::Grave(_)
            | ReplyTo::Nobody
            | ReplyTo::Shard(..)
            | ReplyTo::Errand(_) => None,
        }
    }

    /// Where a partition is served; `None` where there is none of this name.
    pub(crate) fn seat(&mut self, id: PartitionId, reply: ReplyTo) -> Option<Seat> {
        let partition = self.view.partitions.get(&id)?;
        let asked = self.peers(reply);
        if partition.leader == self.node.0 && asked.is_none() {
            return Some(self.seat_here(id));
        }
        let partition = partition.clone();
        let route = self.route_of(&partition);
        let leader = route.owners.first().copied().unwrap_or(self.node.0);
        let knows_more = match asked.map(|asked| self.judge(asked, &partition, &route)) {
            None => true,
            Some(Some(knows_more)) => knows_more,
            Some(None) => return Some(Seat::Nowhere),
        };
        Some(if leader == self.node.0 {
            self.seat_here(id)
        } else if knows_more && self.view.nodes.contains_key(&leader) {
            Seat::Node(Leader { disk: leader, believed: vec![(route.partition, route.epoch)] })
        } else {
            Seat::Nowhere
        })
    }

    /// In which shard of this node a partition is served that it leads.
    fn seat_here(&self, id: PartitionId) -> Seat {
        let shard = shard_of(id, self.shards);
        if shard == self.me { Seat::Here } else { Seat::Sibling(shard) }
    }

    /// Who leads a partition, by the newest that is known. Of what this node leads itself nobody
    /// else knows more than it will be shown.
    fn route_of(&mut self, partition: &Partition) -> Route {
        let found = (partition.leader != self.node.0)
            .then(|| self.errands.dht.find(&self.view, &partition.topic, partition.number));
        found.flatten().unwrap_or_else(|| Route {
            partition: partition.id,
            epoch: partition.epoch,
            owners: vec![partition.leader],
        })
    }

    /// Whether this node knows more of a partition than who asks for it, whom that is told then.
    /// `None` when it knows less.
    fn judge(&mut self, asked: RequestId, partition: &Partition, route: &Route) -> Option<bool> {
        let asked = self.errands.asked.get_mut(&asked)?;
        let knows_more = match asked.believed.get(&route.partition) {
            Some(epoch) if route.epoch < *epoch => return None,
            Some(epoch) => route.epoch > *epoch,
            // Its topic was made again, later than what is believed or before it.
            None if asked.believed.keys().any(|other| *other > route.partition) => return None,
            None => true,
        };
        if knows_more {
            let (topic, number) = (partition.topic.clone(), partition.number);
            let told = Told { topic, number, route: route.clone() };
            asked.routes.insert(route.partition, told);
        }
        Some(knows_more)
    }
}
