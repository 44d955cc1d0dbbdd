//! The control machine of a node: it registers this run, carries wishes into the metadata log,
//! shows each new view to the shards, and decides for the cluster while its node leads.

mod beats;
mod beginnings;
mod enrolment;
mod farewell;
mod replicas;
mod unused;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

pub use beats::HEARTBEAT_INTERVAL;
pub use enrolment::{JOIN_INTERVAL, REFUSAL_PATIENCE};
pub use farewell::FAREWELL_WAIT;
pub use wishes::{
    CHANGE_WAIT, CHANGES_MAX, CREATIONS_MAX, EARLY_MAX, SUBSCRIBE_WAIT, SUBSCRIBES_MAX,
};

use self::beginnings::{CURIOUS_MAX, Curious, Fixed};
use self::enrolment::Enrolment;
use self::farewell::Farewell;
use self::replicas::Replicas;
use self::wishes::{Changing, Early, Subscribing, create, refuse};
use super::controller::{Controller, is_registered};
use super::message::ControlMessage;
use super::metadata::{Change, Registration, View};
use super::time::{ClusterClock, VoterClocks};
use super::verdicts::Verdicts;
use crate::ids::{Boot, ClusterId, DiskId, RequestId, SubscriptionId, TopicName};
use crate::machine::{
    Broken, ControlEffect, ControlInput, ControlResponse, Digest, DiskSpace, Machine, Now, Refused,
    Time, WallTime,
};

/// After what time a topic that is wanted and not made is proposed again.
const CREATE_AGAIN: Duration = Duration::from_secs(1);

/// What a control machine is made from.
#[derive(Debug)]
pub struct ControlSeed {
    /// The node and this run of it.
    pub said: Registration,
    /// The identity of the cluster that this node founds; `None` where it joins, or has joined.
    pub founds: Option<ClusterId>,
    /// The metadata as the disk has them.
    pub view: Arc<View>,
    /// Both clocks at the node's start.
    pub origin: Now,
    /// The newest time in anything that the disk holds: it was cluster time once.
    pub newest: WallTime,
}

/// The control machine.
///
/// Invariants, checked by `check`: (1) the view keeps its own invariants; (2) the bounds above
/// hold, and the controller's.
#[derive(Debug)]
pub struct Control {
    said: Registration,
    founds: Option<ClusterId>,
    view: Arc<View>,
    controller: Controller,
    enrolment: Enrolment,
    verdicts: Arc<Verdicts>,
    /// When to look around; `None` where there is nobody else.
    tick_at: Option<Time>,
    /// When to tell the voters that this node lives.
    beat_at: Time,
    /// When to correct cluster time.
    correct_at: Time,
    space: DiskSpace,
    failed: bool,
    /// Requests that wait for this run to be registered, in the order in which they came.
    early: VecDeque<Early>,
    /// Topics that are wanted and not made, and when to propose each again.
    creating: BTreeMap<TopicName, Time>,
    subscribing: BTreeMap<RequestId, Subscribing>,
    deadlines: BTreeSet<(Time, RequestId)>,
    /// The partitions that have committed where a subscription begins.
    fixed: Fixed,
    /// Other nodes that wait to be told when subscriptions have begun.
    curious: BTreeMap<(SubscriptionId, DiskId), Curious>,
    changing: BTreeMap<RequestId, Changing>,
    replicas: Replicas,
    /// That this run is about to end.
    farewell: Option<Farewell>,
    clock: ClusterClock,
    clocks: VoterClocks,
    /// What cluster time was at least, as this disk has it.
    newest: WallTime,
    /// When subscriptions were used, as far as this run knows.
    used: BTreeMap<SubscriptionId, WallTime>,
    /// When to look for subscriptions that nobody uses.
    sweep_at: Option<Time>,
    /// Messages of other nodes that made no sense, or came too late to matter.
    ignored: u64,
    /// The time of the input that is handled.
    now: Time,
}

impl Control {
    /// A control machine as the disk left it. It sees to its registration when first woken.
    #[must_use]
    pub fn recover(seed: ControlSeed) -> Self {
        let ControlSeed { said, founds, view, origin, newest } = seed;
        let mut controller = Controller::new(said.disk);
        controller.adopt(&view, origin);
        Self {
            said,
            founds,
            view,
            controller,
            enrolment: Enrolment::default(),
            verdicts: Arc::default(),
            tick_at: Some(Time(0)),
            beat_at: Time(0),
            correct_at: Time(0),
            space: DiskSpace::Free,
            failed: false,
            early: VecDeque::new(),
            creating: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            fixed: Fixed::default(),
            curious: BTreeMap::new(),
            changing: BTreeMap::new(),
            replicas: Replicas::default(),
            farewell: None,
            clock: ClusterClock::new(origin),
            clocks: VoterClocks::default(),
            newest,
            used: BTreeMap::new(),
            sweep_at: None,
            ignored: 0,
            now: origin.since_start,
        }
    }

    /// The metadata have gone on to `view`, by one change or by a snapshot of many.
    fn adopt(&mut self, view: Arc<View>, now: Now, effects: &mut Vec<ControlEffect>) {
        assert!(view.version >= self.view.version, "the metadata never go back");
        self.view = view.clone();
        self.controller.adopt(&self.view, now);
        self.check_standing(effects);
        self.begin(now, effects);
        let waits = is_registered(&view, &self.said) && !self.registered();
        effects.push(if waits { ControlEffect::Meet(view) } else { ControlEffect::Show(view) });
        self.answer_joins(now, effects);
    }

    /// What follows from a newer view for those who wait.
    fn adopted(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        self.plan_sweep();
        self.take_leave(now, effects);
        self.answer_subscribed(effects);
        self.ask_begun(now, effects);
        if self.registered() {
            self.serve_early(now, effects);
        }
    }

    /// Cluster time may be known now, which a run waited for that is registered.
    fn begin_late(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if self.begin(now, effects) {
            effects.push(ControlEffect::Show(self.view.clone()));
            self.adopted(now, effects);
        }
    }

    /// A snapshot took the place of changes that this node has not seen one by one. Clients whose
    /// changes were among them are told that nobody knows, when their time is over.
    fn installed(&mut self, view: Arc<View>, now: Now, effects: &mut Vec<ControlEffect>) {
        self.adopt(view, now, effects);
        let view = &self.view;
        self.creating.retain(|name, _| !view.topics.contains_key(name));
        self.fixed.retain(view);
        self.used.retain(|id, _| view.subscriptions.contains_key(id));
        self.adopted(now, effects);
    }

    fn decided(
        &mut self,
        change: &Change,
        view: Arc<View>,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        self.adopt(view, now, effects);
        if let Change::CreateTopic { name, .. } = change {
            self.creating.remove(name);
        }
        if let Change::Unsubscribe { id, .. } = change
            && !self.view.subscriptions.contains_key(id)
        {
            self.fixed.remove(id);
            self.used.remove(id);
        }
        let decided = self.changing.extract_if(.., |_, waiting| waiting.change == *change);
        for (id, Changing { change, deadline }) in decided.collect::<Vec<_>>() {
            self.deadlines.remove(&(deadline, id));
            let response = self.outcome(&change);
            effects.push(ControlEffect::Reply { id, response });
        }
        self.adopted(now, effects);
    }

    fn heard(
        &mut self,
        from: (DiskId, Boot),
        message: ControlMessage,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        match message {
            ControlMessage::Heartbeat(beat) => self.beaten(from, &beat, now, effects),
            ControlMessage::HeartbeatAnswer(answer) => {
                self.beat_answered(from.0, &answer, now, effects);
            }
            ControlMessage::Join { said, cluster, via } => {
                self.asked_to_join(from, said, (cluster, via), now, effects);
            }
            ControlMessage::JoinAnswer { disk, boot, answer } => {
                self.join_answered((disk, boot), answer, now, effects);
            }
            ControlMessage::AskBegun(asked) => self.asked_begun(from.0, asked, now, effects),
            ControlMessage::Begun(begun) => self.begun(begun, now, effects),
            ControlMessage::AskLogEnds(ask) => self.asked_log_ends(from.0, ask, effects),
            ControlMessage::LogEnds(ends) => self.log_ends_told(from.0, ends, now, effects),
            ControlMessage::Complaint(complaint) => self.complained(from.0, &complaint),
            ControlMessage::Farewell => self.controller.bid_farewell(from, now),
            ControlMessage::Rebalance => self.controller.failover().rebalance(),
        }
    }

    /// Looks around: what came in before has been heard by now.
    fn tick(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        self.check_standing(effects);
        self.correct_time(now, effects);
        self.begin_late(now, effects);
        self.beat(now, effects);
        self.enrol(now, effects);
        let time = self.clock.at(now);
        self.controller.decide(&self.view, now, time, effects);
        self.say_again(now, effects);
        self.take_leave(now, effects);
        if self.registered() {
            for (name, again) in &mut self.creating {
                if *again <= now.since_start {
                    *again = now.since_start + CREATE_AGAIN;
                    effects.push(create(name.clone()));
                }
            }
        }
        self.tick_at = self.rhythm().map(|rhythm| now.since_start + rhythm);
    }

    /// Keeps the promise of the next look around, or makes one where there is none and should be.
    fn keep_rhythm(&mut self) {
        if self.tick_at.is_none() && self.rhythm().is_some() {
            self.tick_at = Some(self.now);
        }
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if self.tick_at.is_some_and(|at| at <= now.since_start) {
            self.tick(now, effects);
        }
        let is_late = |early: &mut Early| early.deadline() <= now.since_start;
        while let Some(Early { id, .. }) = self.early.pop_front_if(is_late) {
            refuse(id, Refused::NotReady, effects);
        }
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now.since_start {
                break;
            }
            self.deadlines.pop_first();
            self.subscribing.remove(&id);
            self.changing.remove(&id);
            effects.push(ControlEffect::Reply { id, response: ControlResponse::Unknown });
        }
        self.ask_begun(now, effects);
        self.take_leave(now, effects);
        self.propose_adjustments(now, effects);
        if self.sweep_at.is_some_and(|at| at <= now.since_start) {
            self.sweep(now, effects);
        }
    }
}

impl Machine for Control {
    type Input = ControlInput;
    type Effect = ControlEffect;

    fn handle(&mut self, now: Now, input: ControlInput, effects: &mut Vec<ControlEffect>) {
        if self.failed {
            return;
        }
        crate::zoo::sit(self.said.disk.0);
        self.now = now.since_start;
        if let Some(at) = self.tick_at {
            self.controller.was_late(now.since_start.since(at), now);
        }
        match input {
            ControlInput::Requested { id, request } => self.requested(id, request, now, effects),
            ControlInput::Decided { index, change, view } => {
                assert_eq!(index, view.version, "the view is the one after the change");
                self.decided(&change, view, now, effects);
            }
            ControlInput::Installed { view } => self.installed(view, now, effects),
            ControlInput::Raft(status) => {
                self.controller.raft(status, &self.view, now);
                self.tick(now, effects);
            }
            ControlInput::Heard { from, message } => self.heard(from, message, now, effects),
            ControlInput::Judged(verdicts) => self.verdicts = verdicts,
            ControlInput::Reported { from: _, report } => self.reported(report, now, effects),
            ControlInput::DiskSpace(space) => self.space = space,
            ControlInput::DiskFailed => self.failed = true,
            ControlInput::Woke => self.wake(now, effects),
        }
        self.keep_rhythm();
    }

    fn wakeup(&self) -> Option<Time> {
        if self.failed {
            return None;
        }
        let deadline = self.deadlines.first().map(|&(deadline, _)| deadline);
        let early = self.early.front().map(Early::deadline);
        let ask = self.next_ask_begun();
        let adjust = self.replicas.wakeup();
        let next = [deadline, early, ask, adjust, self.sweep_at, self.tick_at, self.leaves_by()];
        next.into_iter().flatten().min()
    }

    fn digest(&self, hash: &mut Digest) {
        (self.view.fingerprint(), self.tick_at, self.failed, self.subscribing.len()).hash(hash);
        (self.controller.status(), self.clock, self.ignored).hash(hash);
    }

    fn check(&self) -> Result<(), Broken> {
        let broken = |detail| Broken { invariant: "BoundsHold", detail };
        self.controller.check().map_err(broken)?;
        self.replicas.check().map_err(broken)?;
        let bounds = [
            ("subscribers waiting", self.subscribing.len(), SUBSCRIBES_MAX),
            ("topics being made", self.creating.len(), CREATIONS_MAX),
            ("clients waiting for the start", self.early.len(), EARLY_MAX),
            ("nodes waiting for beginnings", self.curious.len(), CURIOUS_MAX),
            ("clients waiting for changes", self.changing.len(), CHANGES_MAX),
            ("deadlines", self.deadlines.len(), self.subscribing.len() + self.changing.len()),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(broken(format!("{len} {what}, the bound is {max}"))),
            None => Ok(()),
        }
    }
}
