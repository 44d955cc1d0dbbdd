//! The control machine of a node: it registers this run, carries wishes into the metadata log,
//! and shows each new view to the shards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::metadata::{Change, View};
use super::pattern::TopicPattern;
use super::subscription::{Delivery, DeliveryAsked, StartFrom};
use super::time::ClusterClock;
use super::topic::{ConfigPatch, TopicConfig};
use crate::ids::{
    Boot, ChangeIndex, ClusterId, DiskId, PartitionId, RequestId, SubscriptionId, TopicName,
};
use crate::machine::{
    Broken, ControlEffect, ControlInput, ControlRequest, ControlResponse, Digest, DiskSpace,
    Machine, Now, Refused, Report, Time, WallTime,
};

/// How long a subscriber waits for its cursors before it is told that nobody knows.
pub const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// How many subscribers wait at most.
pub const SUBSCRIBES_MAX: usize = 4_096;
/// How many topics are being made at once, at most.
pub const CREATIONS_MAX: usize = 4_096;
/// How long a change may take to be agreed before its client is told that nobody knows.
pub const CHANGE_WAIT: Duration = Duration::from_secs(10);
/// How many clients wait for changes at most.
pub const CHANGES_MAX: usize = 4_096;
/// How many clients wait at most until this run is registered.
pub const EARLY_MAX: usize = 4_096;
/// The longest pause between two looks for subscriptions that nobody uses.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// The shortest one.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Into how many parts a subscription's lifetime is divided: so exactly its use is noted.
const LIFETIME_PARTS: u32 = 8;

/// What a control machine is made from.
#[derive(Debug)]
pub struct ControlSeed {
    /// The node's identity.
    pub disk: DiskId,
    /// This run of it.
    pub boot: Boot,
    /// Its name, for people.
    pub name: String,
    /// The identity of the cluster, should this node found one.
    pub cluster: ClusterId,
    /// The metadata as the log has it.
    pub view: View,
    /// Both clocks at the node's start.
    pub origin: Now,
}

/// A subscriber that waits until each partition has committed where it begins.
#[derive(Debug)]
struct Subscribing {
    subscription: SubscriptionId,
    topics: Vec<TopicPattern>,
    /// When to answer unknown.
    deadline: Time,
}

/// A client that waits for a change to be agreed.
#[derive(Debug)]
struct Changing {
    change: Change,
    /// When to answer unknown.
    deadline: Time,
}

/// A request that came before this run was registered, and waits for that.
#[derive(Debug)]
struct Early {
    id: RequestId,
    request: ControlRequest,
    /// When it came.
    since: Time,
}

impl Early {
    /// When to refuse it.
    fn deadline(&self) -> Time {
        self.since + CHANGE_WAIT
    }
}

/// The control machine.
///
/// Invariants, checked by `check`: (1) the view keeps its own invariants; (2) the bounds above
/// hold.
#[derive(Debug)]
pub struct Control {
    disk: DiskId,
    boot: Boot,
    name: String,
    cluster: ClusterId,
    view: View,
    begun: bool,
    space: DiskSpace,
    failed: bool,
    /// Requests that wait for this run to be registered, in the order in which they came.
    early: VecDeque<Early>,
    /// Topics that are wanted and not yet decided; proposed as soon as this run is registered.
    creating: BTreeSet<TopicName>,
    subscribing: BTreeMap<RequestId, Subscribing>,
    deadlines: BTreeSet<(Time, RequestId)>,
    /// The partitions that have committed where a subscription begins.
    fixed: BTreeMap<SubscriptionId, BTreeSet<PartitionId>>,
    changing: BTreeMap<RequestId, Changing>,
    clock: ClusterClock,
    /// When subscriptions were used, as far as this run knows.
    used: BTreeMap<SubscriptionId, WallTime>,
    /// When to look for subscriptions that nobody uses.
    sweep_at: Option<Time>,
    /// The time of the input that is handled.
    now: Time,
}

impl Control {
    /// A control machine as the disk left it. It proposes its registration when first woken.
    #[must_use]
    pub fn recover(seed: ControlSeed) -> Self {
        let ControlSeed { disk, boot, name, cluster, view, origin } = seed;
        Self {
            disk,
            boot,
            name,
            cluster,
            view,
            begun: false,
            space: DiskSpace::Free,
            failed: false,
            early: VecDeque::new(),
            creating: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            fixed: BTreeMap::new(),
            changing: BTreeMap::new(),
            clock: ClusterClock::new(origin),
            used: BTreeMap::new(),
            sweep_at: None,
            now: Time(0),
        }
    }

    fn begin(&mut self, effects: &mut Vec<ControlEffect>) {
        self.begun = true;
        if self.view.cluster.is_none() {
            effects.push(ControlEffect::Propose(Change::Found { cluster: self.cluster }));
        }
        let (disk, boot, name) = (self.disk, self.boot, self.name.clone());
        effects.push(ControlEffect::Propose(Change::Register { disk, boot, name }));
    }

    fn registered(&self) -> bool {
        self.view.nodes.get(&self.disk).is_some_and(|node| node.boot == self.boot)
    }

    /// A client's request; nothing can be agreed on before this run is registered.
    fn requested(
        &mut self,
        id: RequestId,
        request: ControlRequest,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let since = now.since_start;
        if self.registered() {
            self.serve(Early { id, request, since }, now, effects);
        } else if self.early.len() < EARLY_MAX {
            self.early.push_back(Early { id, request, since });
        } else {
            refuse(id, Refused::Overloaded("too many requests wait for the node's start"), effects);
        }
    }

    /// This run is registered: those who came before are served.
    fn serve_early(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        for early in std::mem::take(&mut self.early) {
            self.serve(early, now, effects);
        }
    }

    fn serve(&mut self, asked: Early, now: Now, effects: &mut Vec<ControlEffect>) {
        let Early { id, request, since } = asked;
        let refused = match request {
            ControlRequest::Subscribe { id: subscription, topics, from, delivery } => {
                let wanted = Subscribing { subscription, topics, deadline: since + SUBSCRIBE_WAIT };
                self.subscribe(id, wanted, (from, delivery), now, effects)
            }
            ControlRequest::Unsubscribe { id: subscription } => {
                if self.view.subscriptions.contains_key(&subscription) {
                    let change = Change::Unsubscribe { id: subscription, unused_since: None };
                    self.change(id, change, since, effects)
                } else {
                    Some(Refused::NoSubscription(subscription))
                }
            }
            ControlRequest::ConfigureTopic { name, patch, reset } => {
                match self.partitions_refused(&name, &patch) {
                    None => {
                        let change = Change::ConfigureTopic { name, patch, reset };
                        self.change(id, change, since, effects)
                    }
                    refused @ Some(_) => refused,
                }
            }
            ControlRequest::DeleteTopic { name } => {
                if self.view.topics.contains_key(&name) {
                    self.change(id, Change::DeleteTopic { name }, since, effects)
                } else {
                    Some(Refused::NoTopic(name))
                }
            }
        };
        if let Some(refused) = refused {
            refuse(id, refused, effects);
        }
    }

    fn partitions_refused(&self, name: &TopicName, patch: &ConfigPatch) -> Option<Refused> {
        let held = self.view.topics.get(name)?.config.partitions;
        let fixed = patch.partitions.is_some_and(|wanted| wanted != held);
        fixed.then(|| Refused::PartitionsFixed(name.clone(), held))
    }

    /// Proposes a change; its client is answered when it is decided.
    fn change(
        &mut self,
        id: RequestId,
        change: Change,
        since: Time,
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Refused> {
        // What removes is agreed on with a full disk too: it makes room.
        let removes = matches!(change, Change::DeleteTopic { .. } | Change::Unsubscribe { .. });
        if self.space == DiskSpace::Full && !removes {
            return Some(Refused::DiskFull);
        }
        if self.changing.len() >= CHANGES_MAX {
            return Some(Refused::Overloaded("too many changes wait to be agreed on"));
        }
        effects.push(ControlEffect::Propose(change.clone()));
        let deadline = since + CHANGE_WAIT;
        self.changing.insert(id, Changing { change, deadline });
        self.deadlines.insert((deadline, id));
        None
    }

    fn subscribe(
        &mut self,
        id: RequestId,
        wanted: Subscribing,
        (from, asked): (StartFrom, DeliveryAsked),
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Refused> {
        let Subscribing { subscription, mut topics, deadline } = wanted;
        topics.sort();
        topics.dedup();
        if let Some(known) = self.view.subscriptions.get(&subscription) {
            if known.topics != topics {
                return Some(Refused::SubscriptionDiffers(subscription, "topics"));
            }
            if asked.over(&known.delivery) != known.delivery {
                return Some(Refused::SubscriptionDiffers(subscription, "delivery settings"));
            }
        } else {
            if self.space == DiskSpace::Full {
                return Some(Refused::DiskFull);
            }
            if self.subscribing.len() >= SUBSCRIBES_MAX {
                return Some(Refused::Overloaded("too many subscriptions are being made"));
            }
            let (delivery, at) = (asked.over(&Delivery::default()), self.clock.at(now));
            let (id, topics) = (subscription.clone(), topics.clone());
            let change = Change::Subscribe { id, topics, from, delivery, at };
            effects.push(ControlEffect::Propose(change));
        }
        self.subscribing.insert(id, Subscribing { subscription, topics, deadline });
        self.deadlines.insert((deadline, id));
        self.answer_subscribed(effects);
        None
    }

    /// Answers whose subscription has a cursor in each of its partitions.
    fn answer_subscribed(&mut self, effects: &mut Vec<ControlEffect>) {
        let (view, fixed) = (&self.view, &self.fixed);
        let whole = |waiting: &Subscribing| {
            let Some(found) = view.subscriptions.get(&waiting.subscription) else {
                return false;
            };
            let fixed = fixed.get(&waiting.subscription);
            found.topics != waiting.topics
                || view
                    .partitions_of(found)
                    .all(|partition| fixed.is_some_and(|fixed| fixed.contains(&partition.id)))
        };
        let ready: Vec<_> = self.subscribing.extract_if(.., |_, waiting| whole(waiting)).collect();
        for (id, Subscribing { subscription, topics, deadline }) in ready {
            self.deadlines.remove(&(deadline, id));
            // Two clients may have raced for the id with different topics: one of them lost.
            let won = self.view.subscriptions.get(&subscription).map(|found| &found.topics);
            let response = if won == Some(&topics) {
                ControlResponse::Subscribed { topics }
            } else {
                ControlResponse::Refused(Refused::SubscriptionDiffers(subscription, "topics"))
            };
            effects.push(ControlEffect::Reply { id, response });
        }
    }

    fn decided(
        &mut self,
        index: ChangeIndex,
        change: &Change,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let registered = self.registered();
        self.view.apply(index, change);
        if !registered && self.registered() {
            // Topics that were wanted before this run could propose anything.
            effects.extend(self.creating.iter().cloned().map(create));
        }
        if let Change::CreateTopic { name, .. } = change {
            self.creating.remove(name);
        }
        if let Change::Unsubscribe { id, .. } = change
            && !self.view.subscriptions.contains_key(id)
        {
            self.fixed.remove(id);
            self.used.remove(id);
        }
        effects.push(ControlEffect::Show(Arc::new(self.view.clone())));
        let decided = self.changing.extract_if(.., |_, waiting| waiting.change == *change);
        for (id, Changing { change, deadline }) in decided.collect::<Vec<_>>() {
            self.deadlines.remove(&(deadline, id));
            let response = self.outcome(&change);
            effects.push(ControlEffect::Reply { id, response });
        }
        self.plan_sweep();
        self.answer_subscribed(effects);
        if self.registered() {
            self.serve_early(now, effects);
        }
    }

    /// The metadata as they are now, without the changes that led there: whoever waits for one of
    /// those finds out by asking again.
    fn installed(&mut self, view: &View, now: Now, effects: &mut Vec<ControlEffect>) {
        self.view = view.clone();
        effects.push(ControlEffect::Show(Arc::new(self.view.clone())));
        self.creating.retain(|name| !self.view.topics.contains_key(name));
        self.fixed.retain(|id, _| self.view.subscriptions.contains_key(id));
        self.used.retain(|id, _| self.view.subscriptions.contains_key(id));
        self.plan_sweep();
        self.answer_subscribed(effects);
        if self.registered() {
            self.serve_early(now, effects);
        }
    }

    /// What a decided change has led to: of two clients who raced one may have lost.
    fn outcome(&self, change: &Change) -> ControlResponse {
        if let Change::ConfigureTopic { name, patch, .. } = change
            && let Some(refused) = self.partitions_refused(name, patch)
        {
            return ControlResponse::Refused(refused);
        }
        ControlResponse::Done
    }

    /// Looks for unused subscriptions a few times within the shortest lifetime of any.
    fn plan_sweep(&mut self) {
        let lifetimes = self.view.subscriptions.values().map(|held| held.delivery.expires);
        let Some(shortest) = lifetimes.min() else {
            self.sweep_at = None;
            return;
        };
        let interval = shortest / LIFETIME_PARTS;
        let interval = interval.clamp(SWEEP_INTERVAL_MIN, SWEEP_INTERVAL_MAX);
        let at = self.now + interval;
        self.sweep_at = Some(self.sweep_at.map_or(at, |before| before.min(at)));
    }

    /// Notes who was used, and removes whom nobody used for too long.
    fn sweep(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let at = self.clock.at(now);
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for (id, subscription) in &self.view.subscriptions {
            let lifetime = subscription.delivery.expires.as_millis() as u64;
            let known = self.used.get(id).copied().unwrap_or_default().max(subscription.used);
            if known.0 + lifetime < at.0 {
                unused.push((id.clone(), known));
            } else if known.0 > subscription.used.0 + lifetime / u64::from(LIFETIME_PARTS) {
                used.push(id.clone());
            }
        }
        if !used.is_empty() {
            effects.push(ControlEffect::Propose(Change::Used { subscriptions: used, at }));
        }
        for (id, since) in unused {
            let change = Change::Unsubscribe { id, unused_since: Some(since) };
            effects.push(ControlEffect::Propose(change));
        }
        self.sweep_at = None;
        self.plan_sweep();
    }

    fn reported(&mut self, report: Report, now: Now, effects: &mut Vec<ControlEffect>) {
        match report {
            Report::TopicWanted(name) => {
                let known = self.view.topics.contains_key(&name) || self.creating.contains(&name);
                // What is too much now is not made: its messages are refused when they have waited.
                if known || self.creating.len() >= CREATIONS_MAX {
                    return;
                }
                self.creating.insert(name.clone());
                if self.registered() {
                    effects.push(create(name));
                }
            }
            Report::CursorFixed { subscription, partition } => {
                self.fixed.entry(subscription).or_default().insert(partition);
                self.answer_subscribed(effects);
            }
            Report::Used(subscription) => {
                self.used.insert(subscription, self.clock.at(now));
            }
        }
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if !self.begun {
            self.begin(effects);
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
        if self.sweep_at.is_some_and(|at| at <= now.since_start) {
            self.sweep(now, effects);
        }
    }
}

fn refuse(id: RequestId, refused: Refused, effects: &mut Vec<ControlEffect>) {
    effects.push(ControlEffect::Reply { id, response: ControlResponse::Refused(refused) });
}

fn create(name: TopicName) -> ControlEffect {
    ControlEffect::Propose(Change::CreateTopic { name, config: TopicConfig::default() })
}

impl Machine for Control {
    type Input = ControlInput;
    type Effect = ControlEffect;

    fn handle(&mut self, now: Now, input: ControlInput, effects: &mut Vec<ControlEffect>) {
        if self.failed {
            return;
        }
        self.now = now.since_start;
        match input {
            ControlInput::Requested { id, request } => self.requested(id, request, now, effects),
            ControlInput::Decided { index, change } => self.decided(index, &change, now, effects),
            ControlInput::Installed(view) => self.installed(&view, now, effects),
            ControlInput::Reported { from: _, report } => self.reported(report, now, effects),
            ControlInput::DiskSpace(space) => self.space = space,
            ControlInput::DiskFailed => self.failed = true,
            ControlInput::Woke => self.wake(now, effects),
        }
    }

    fn wakeup(&self) -> Option<Time> {
        if self.failed {
            return None;
        }
        if !self.begun {
            return Some(Time(0));
        }
        let deadline = self.deadlines.first().map(|&(deadline, _)| deadline);
        let early = self.early.front().map(Early::deadline);
        [deadline, early, self.sweep_at].into_iter().flatten().min()
    }

    fn digest(&self, hash: &mut Digest) {
        self.view.digest(hash);
        (self.begun, self.failed, self.subscribing.len()).hash(hash);
    }

    fn check(&self) -> Result<(), Broken> {
        let broken = |detail| Broken { invariant: "BoundsHold", detail };
        self.view.check().map_err(broken)?;
        let bounds = [
            ("subscribers waiting", self.subscribing.len(), SUBSCRIBES_MAX),
            ("topics being made", self.creating.len(), CREATIONS_MAX),
            ("clients waiting for the start", self.early.len(), EARLY_MAX),
            ("clients waiting for changes", self.changing.len(), CHANGES_MAX),
            ("deadlines", self.deadlines.len(), self.subscribing.len() + self.changing.len()),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(broken(format!("{len} {what}, the bound is {max}"))),
            None => Ok(()),
        }
    }
}
