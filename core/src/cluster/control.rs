//! The control machine of a node: it registers this run, carries wishes into the metadata log,
//! and shows each new view to the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::metadata::{Change, TopicConfig, View};
use crate::ids::{
    Boot, ChangeIndex, ClusterId, DiskId, PartitionId, RequestId, SubscriptionId, TopicName,
};
use crate::machine::{
    Broken, ControlEffect, ControlInput, ControlRequest, ControlResponse, Digest, DiskSpace,
    Machine, Now, Refused, Report, Time,
};

/// How long a subscriber waits for its cursors before it is told that nobody knows.
pub const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);
/// How many subscribers wait at most.
pub const SUBSCRIBES_MAX: usize = 4_096;
/// How many topics are being made at once, at most.
pub const CREATIONS_MAX: usize = 4_096;

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
}

/// A subscriber that waits until each partition has committed where it begins.
#[derive(Debug)]
struct Subscribing {
    subscription: SubscriptionId,
    topics: Vec<TopicName>,
    /// When to answer unknown.
    deadline: Time,
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
    /// Topics that are wanted and not yet decided; proposed as soon as this run is registered.
    creating: BTreeSet<TopicName>,
    subscribing: BTreeMap<RequestId, Subscribing>,
    deadlines: BTreeSet<(Time, RequestId)>,
    /// The partitions that have committed where a subscription begins.
    fixed: BTreeMap<SubscriptionId, BTreeSet<PartitionId>>,
}

impl Control {
    /// A control machine as the disk left it. It proposes its registration when first woken.
    #[must_use]
    pub fn recover(seed: ControlSeed) -> Self {
        let ControlSeed { disk, boot, name, cluster, view } = seed;
        Self {
            disk,
            boot,
            name,
            cluster,
            view,
            begun: false,
            space: DiskSpace::Free,
            failed: false,
            creating: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            fixed: BTreeMap::new(),
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

    fn requested(
        &mut self,
        id: RequestId,
        request: ControlRequest,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        let ControlRequest::Subscribe { id: subscription, mut topics, from, ack_wait } = request;
        topics.sort();
        topics.dedup();
        let refused = match self.view.subscriptions.get(&subscription) {
            Some(known) if known.topics != topics => {
                Some(Refused::SubscriptionDiffers(subscription.clone()))
            }
            Some(_) => None,
            None if !self.registered() => Some(Refused::NotReady),
            None if self.space == DiskSpace::Full => Some(Refused::DiskFull),
            None if self.subscribing.len() >= SUBSCRIBES_MAX => {
                Some(Refused::Overloaded("too many subscriptions are being made"))
            }
            None => {
                let (id, topics) = (subscription.clone(), topics.clone());
                let change = Change::Subscribe { id, topics, from, ack_wait };
                effects.push(ControlEffect::Propose(change));
                None
            }
        };
        if let Some(refused) = refused {
            let response = ControlResponse::Refused(refused);
            return effects.push(ControlEffect::Reply { id, response });
        }
        let deadline = now.since_start + SUBSCRIBE_WAIT;
        self.subscribing.insert(id, Subscribing { subscription, topics, deadline });
        self.deadlines.insert((deadline, id));
        self.answer_subscribed(effects);
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
                ControlResponse::Refused(Refused::SubscriptionDiffers(subscription))
            };
            effects.push(ControlEffect::Reply { id, response });
        }
    }

    fn decided(&mut self, index: ChangeIndex, change: &Change, effects: &mut Vec<ControlEffect>) {
        let registered = self.registered();
        self.view.apply(index, change);
        if !registered && self.registered() {
            // Topics that were wanted before this run could propose anything.
            effects.extend(self.creating.iter().cloned().map(create));
        }
        if let Change::CreateTopic { name, .. } = change {
            self.creating.remove(name);
        }
        effects.push(ControlEffect::Show(Arc::new(self.view.clone())));
        self.answer_subscribed(effects);
    }

    fn reported(&mut self, report: Report, effects: &mut Vec<ControlEffect>) {
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
        }
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        if !self.begun {
            self.begin(effects);
        }
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now.since_start {
                break;
            }
            self.deadlines.pop_first();
            self.subscribing.remove(&id);
            effects.push(ControlEffect::Reply { id, response: ControlResponse::Unknown });
        }
    }
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
        match input {
            ControlInput::Requested { id, request } => self.requested(id, request, now, effects),
            ControlInput::Decided { index, change } => self.decided(index, &change, effects),
            ControlInput::Reported { from: _, report } => self.reported(report, effects),
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
        self.deadlines.first().map(|&(deadline, _)| deadline)
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
            ("deadlines", self.deadlines.len(), self.subscribing.len()),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(broken(format!("{len} {what}, the bound is {max}"))),
            None => Ok(()),
        }
    }
}
