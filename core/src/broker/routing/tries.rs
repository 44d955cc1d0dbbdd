//! Requests for partitions that other nodes lead: whom to ask, when again, and for how long.
//!
//! A try that certainly did not arrive, and a node that says that it is not ready, may be followed
//! by another try, after a pause. Once a try has an unknown outcome, the request ends as done or as
//! unknown: that another try was refused does not prove that the first one had no effect.

use std::sync::Arc;
use std::time::Duration;

use super::calls::{Answer, Ask, CallFailed, ROUTES_TOLD_MAX, Told};
use super::errands::{
    ANSWER_WAIT, Errand, Leader, Purpose, READ_WAIT, ROUTE_WAIT, Trip, answers, bytes_of,
    is_repeatable, wait_of,
};
use super::wire::{ENVELOPES_BYTES_MAX, MESSAGES_BYTES_MAX};
use crate::broker::desk::ReplyTo;
use crate::broker::shard::Shard;
use crate::ids::RequestId;
use crate::machine::{Now, Refused, Request, Response, ShardEffect};

impl Shard {
    /// How far the request has come that is to be answered so; nothing, where it does not leave the
    /// node: a sibling has judged where it belongs by a view of its own.
    pub(crate) fn trip_of(&self, reply: ReplyTo, wait: Duration, now: Now) -> Option<Trip> {
        match reply {
            ReplyTo::Peer(id) => self.errands.asked.get(&id).map(Trip::of),
            ReplyTo::Errand(id) => self.errands.under_way.get(&id).map(|errand| errand.trip),
            ReplyTo::Item(batch, _) => self.routes.batches.get(&batch).map(|batch| batch.trip),
            ReplyTo::Shard(..) => None,
            ReplyTo::Client(_) | ReplyTo::Own(_) | ReplyTo::Grave(_) | ReplyTo::Nobody => {
                Some(Trip::new(now.since_start + wait))
            }
        }
    }

    /// Hands a request to the node that leads its partition.
    pub(crate) fn hand_over(
        &mut self,
        reply: ReplyTo,
        request: Request,
        leader: Leader,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        if let ReplyTo::Errand(id) = reply {
            return self.call(id, leader, now, effects);
        }
        let wait = match &request {
            Request::Fetch { wait, .. } => READ_WAIT.max(*wait),
            Request::Publish(_)
            | Request::PublishBatch(..)
            | Request::Trim { .. }
            | Request::Pull { .. }
            | Request::Settle { .. }
            | Request::Await { .. }
            | Request::Describe => ROUTE_WAIT,
        };
        match self.trip_of(reply, wait, now) {
            Some(trip) => self.embark(Purpose::Whole(reply), request, leader, trip, now, effects),
            None => self.bench.desk(now, effects).refuse(reply, Refused::NotReady),
        }
    }

    /// Sets a request on its way to another node.
    pub(crate) fn embark(
        &mut self,
        purpose: Purpose,
        request: Request,
        leader: Leader,
        trip: Trip,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let (bytes, heads) = bytes_of(&request);
        let until = now.since_start + wait_of(&request);
        let request = Arc::new(request);
        let errand = Errand { bytes, until, ..Errand::idle(purpose, request, trip) };
        if bytes > MESSAGES_BYTES_MAX || heads > ENVELOPES_BYTES_MAX {
            let refused = Response::Refused(Refused::TooLargeToForward);
            return self.conclude(errand, refused, now, effects);
        }
        let id = self.routes.name();
        match self.errands.put(id, errand) {
            Ok(()) => self.call(id, leader, now, effects),
            Err(errand) => {
                let why = "too many requests are on their way to other nodes";
                let refused = Response::Refused(Refused::Overloaded(why));
                self.conclude(*errand, refused, now, effects);
            }
        }
    }

    /// Makes the next try of a request.
    pub(crate) fn call(
        &mut self,
        call: RequestId,
        leader: Leader,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Leader { disk: to, believed } = leader;
        let Some(errand) = self.errands.under_way.get_mut(&call) else { return };
        errand.to = Some(to);
        let address = self.view.nodes.get(&to).map(|node| node.address);
        let hops = errand.trip.hops.next();
        let (Some(address), Some(hops)) = (address, hops) else {
            return self.came_back(call, Err(CallFailed::NotDelivered), false, now, effects);
        };
        if !self.errands.breakers.admits(to, now.since_start) {
            return self.came_back(call, Err(CallFailed::NotDelivered), false, now, effects);
        }
        let (mut request, until) = (errand.request.clone(), errand.until);
        if let Request::Fetch { wait, .. } = &*request
            && !wait.is_zero()
            && let Request::Fetch { wait, .. } = Arc::make_mut(&mut request)
        {
            *wait = until.since(now.since_start);
        }
        let wait = match wait_of(&request) {
            Duration::ZERO => errand.trip.deadline.since(now.since_start),
            span => span + ANSWER_WAIT,
        };
        self.bench.counters.calls += 1;
        self.bench.counters.call_retries += u64::from(errand.trip.tries > 0);
        errand.trip.tries += 1;
        let ask = Ask { hops, lasts: wait, believed, request };
        effects.push(ShardEffect::Call { call, to, address, ask, wait });
    }

    /// A call has its outcome.
    pub(crate) fn called(
        &mut self,
        call: RequestId,
        result: Result<Answer, CallFailed>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(to) = self.errands.under_way.get(&call).and_then(|errand| errand.to) else {
            return;
        };
        let breakers = &mut self.errands.breakers;
        let mut learned = false;
        let result = match result {
            Ok(Answer { routes, response }) => {
                breakers.answered(to);
                learned = self.learn(routes);
                Ok(response)
            }
            Err(CallFailed::NotDelivered) => {
                let opened = breakers.failed(to, now.since_start);
                self.bench.counters.breakers_opened += u64::from(opened);
                Err(CallFailed::NotDelivered)
            }
            Err(CallFailed::Unknown) => {
                breakers.doubted(to, now.since_start);
                Err(CallFailed::Unknown)
            }
        };
        self.came_back(call, result, learned, now, effects);
    }

    /// Remembers who leads partitions; whether any of it is news.
    fn learn(&mut self, routes: Vec<Told>) -> bool {
        let dht = &mut self.errands.dht;
        let told = routes.into_iter().take(ROUTES_TOLD_MAX);
        told.fold(false, |news, Told { topic, number, route }| {
            let says = !route.owners.is_empty();
            (says && dht.redirected(&topic, number, route)) || news
        })
    }

    /// A try has ended, at another node or here: the request ends, or is tried again.
    pub(crate) fn came_back(
        &mut self,
        id: RequestId,
        result: Result<Response, CallFailed>,
        learned: bool,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(errand) = self.errands.under_way.get_mut(&id) else { return };
        let result = result.and_then(|response| {
            if answers(&errand.request, &response) {
                Ok(response)
            } else {
                Err(CallFailed::Unknown)
            }
        });
        match &errand.purpose {
            Purpose::Pull(pull) => {
                let pull = *pull;
                self.errands.remove(id);
                // A node that does not know the subscription yet has nothing for it either.
                let response = match result {
                    Ok(Response::Refused(Refused::NoSubscription(_) | Refused::Overloaded(_)))
                    | Err(_) => Response::Refused(Refused::NotReady),
                    Ok(response) => response,
                };
                self.bench.desk(now, effects).answer(ReplyTo::Own(pull), response);
                return;
            }
            Purpose::Await(..) => return self.awaited(id, result, now, effects),
            Purpose::Items(..) => return self.items_came_back(id, result, learned, now, effects),
            Purpose::Whole(_) | Purpose::Tokens(_) => {}
        }
        let is_unknown = matches!(result, Err(CallFailed::Unknown) | Ok(Response::Unknown));
        errand.trip.doubtful |= is_unknown;
        let may = matches!(result, Err(CallFailed::NotDelivered))
            || matches!(result, Ok(Response::Refused(Refused::NotReady)))
            || is_unknown && is_repeatable(&errand.request);
        if may && !errand.trip.is_peers && self.errands.rest(id, learned, now.since_start) {
            return;
        }
        let response = result.unwrap_or_else(|failed| match failed {
            CallFailed::NotDelivered => Response::Refused(Refused::NotReady),
            CallFailed::Unknown => Response::Unknown,
        });
        if let Some(errand) = self.errands.remove(id) {
            self.conclude(errand, response, now, effects);
        }
    }

    /// A request of a batch's messages came back: those that may be are tried again.
    fn items_came_back(
        &mut self,
        id: RequestId,
        result: Result<Response, CallFailed>,
        learned: bool,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Some(mut errand) = self.errands.remove(id) else { return };
        let Purpose::Items(batch, places) = &mut errand.purpose else { return };
        let batch = *batch;
        let outcome = |at: usize| match &result {
            Err(CallFailed::NotDelivered) => Response::Refused(Refused::NotReady),
            Err(CallFailed::Unknown) => Response::Unknown,
            Ok(Response::Batch(all)) => all.get(at).cloned().unwrap_or(Response::Unknown),
            Ok(other) => other.clone(),
        };
        let mut again = Vec::new();
        for (at, place) in std::mem::take(places).into_iter().enumerate() {
            let outcome = outcome(at);
            let is_unknown = matches!(outcome, Response::Unknown);
            let may = is_unknown || matches!(outcome, Response::Refused(Refused::NotReady));
            if let Some(held) = self.routes.batches.get_mut(&batch) {
                if is_unknown {
                    held.doubtful.insert(place);
                }
                if may && !errand.trip.is_peers {
                    again.push((at, place));
                } else {
                    held.fill(place, outcome);
                }
            }
        }
        if !again.is_empty() {
            let Request::PublishBatch(items, _) = &*errand.request else { return };
            let items = again.iter().map(|&(at, _)| items[at].clone()).collect();
            let request = Request::PublishBatch(items, super::Routed::default());
            errand.bytes = bytes_of(&request).0;
            errand.request = Arc::new(request);
            errand.purpose = Purpose::Items(batch, again.into_iter().map(|(_, at)| at).collect());
            // It was there a moment ago, and is no larger.
            let errand = match self.errands.put(id, errand) {
                Ok(()) if self.errands.rest(id, learned, now.since_start) => return,
                Ok(()) => self.errands.remove(id),
                Err(errand) => Some(*errand),
            };
            if let Some(errand) = errand {
                let refused = Response::Refused(Refused::NotReady);
                return self.conclude(errand, refused, now, effects);
            }
        }
        self.end_batch(batch, now, effects);
    }

    /// Gives a request its last answer.
    fn conclude(
        &mut self,
        errand: Errand,
        response: Response,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let Errand { purpose, request, trip, .. } = errand;
        let is_refused = matches!(response, Response::Refused(_));
        let reads = matches!(&*request, Request::Fetch { .. });
        let response =
            if is_refused && trip.doubtful && !reads { Response::Unknown } else { response };
        match purpose {
            Purpose::Whole(reply) => self.bench.desk(now, effects).answer(reply, response),
            Purpose::Items(batch, places) => {
                self.places_answered(batch, places, &response, now, effects);
            }
            Purpose::Tokens(verdicts) => self.verdicts_answered(verdicts, response, now, effects),
            Purpose::Pull(pull) => {
                self.bench.desk(now, effects).answer(ReplyTo::Own(pull), response);
            }
            // Whoever waits there is served by the next pull.
            Purpose::Await(..) => {}
        }
    }

    /// Goes on with what was in a pause.
    pub(crate) fn go_on(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some(id) = self.errands.due(now.since_start) {
            let Some(errand) = self.errands.under_way.get(&id) else { continue };
            match &errand.purpose {
                Purpose::Whole(_) => {
                    let request = (*errand.request).clone();
                    self.serve(ReplyTo::Errand(id), request, now, effects);
                }
                Purpose::Items(..) | Purpose::Tokens(_) | Purpose::Pull(_) => {
                    self.begin_anew(id, now, effects);
                }
                Purpose::Await(..) => self.await_again(id, now, effects),
            }
        }
    }

    /// What touches several partitions is divided anew: another node may lead some of them now.
    fn begin_anew(&mut self, id: RequestId, now: Now, effects: &mut Vec<ShardEffect>) {
        let Some(Errand { purpose, request, trip, .. }) = self.errands.remove(id) else { return };
        match (purpose, Arc::unwrap_or_clone(request)) {
            (Purpose::Items(batch, places), Request::PublishBatch(items, routed)) => {
                let items = places.into_iter().zip(items).collect();
                self.scatter(batch, items, &routed, trip, now, effects);
            }
            (Purpose::Tokens(id), Request::Settle { subscription, tokens, verdict }) => {
                if let Some(held) = self.routes.verdicts.get_mut(&id) {
                    held.missing -= 1;
                }
                self.hand_out(id, (&subscription, tokens, verdict), Some(trip), now, effects);
                self.end_verdicts(id, now, effects);
            }
            (purpose, request) => panic!("{request:?} is not divided for {purpose:?}"),
        }
    }
}
