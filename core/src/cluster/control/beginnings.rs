//! Where subscriptions have begun: what the own shards report, and what is asked of the nodes that
//! lead the other partitions. That a partition has committed it stays true, whoever leads later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Control;
use crate::cluster::message::{BEGUN_MAX, Begun, ControlMessage};
use crate::cluster::metadata::View;
use crate::cluster::subscription::Subscription;
use crate::ids::{ChangeIndex, DiskId, PartitionId, SubscriptionId};
use crate::machine::{ControlEffect, Now, Time};

/// After what time a node that has not said where a subscription has begun is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// For how long a node that asked is told by itself: it asks again before.
const CURIOUS_WAIT: Duration = Duration::from_secs(1);
/// How many nodes are told by themselves at most, each of one subscription.
pub(super) const CURIOUS_MAX: usize = 1_024;

/// The partitions that have committed where a subscription begins, of its newest birth.
#[derive(Debug, Default)]
pub(super) struct Fixed(BTreeMap<SubscriptionId, (ChangeIndex, BTreeSet<PartitionId>)>);

impl Fixed {
    /// A partition has committed it.
    pub(super) fn note(&mut self, id: &SubscriptionId, created: ChangeIndex, at: PartitionId) {
        if !self.0.contains_key(id) {
            self.0.insert(id.clone(), (created, BTreeSet::new()));
        }
        let Some((newest, partitions)) = self.0.get_mut(id) else { return };
        if *newest < created {
            (*newest, *partitions) = (created, BTreeSet::new());
        }
        if *newest == created {
            partitions.insert(at);
        }
    }

    /// Whether a partition has committed it.
    pub(super) fn has(&self, subscription: &Subscription, partition: PartitionId) -> bool {
        let of_it = self.of(&subscription.id, subscription.created);
        of_it.is_some_and(|partitions| partitions.contains(&partition))
    }

    fn of(&self, id: &SubscriptionId, created: ChangeIndex) -> Option<&BTreeSet<PartitionId>> {
        let (newest, partitions) = self.0.get(id)?;
        (*newest == created).then_some(partitions)
    }

    pub(super) fn remove(&mut self, id: &SubscriptionId) {
        self.0.remove(id);
    }

    pub(super) fn retain(&mut self, view: &View) {
        self.0.retain(|id, _| view.subscriptions.contains_key(id));
    }
}

/// What another node waits for.
#[derive(Debug)]
pub(super) struct Curious {
    asked: Begun,
    /// When it has asked again, or does not want to know any more.
    until: Time,
}

impl Control {
    /// Asks who leads partitions of subscriptions that clients wait for, where it is time to.
    pub(super) fn ask_begun(&mut self, now: Now, effects: &mut Vec<ControlEffect>) {
        let (view, fixed, me) = (&self.view, &self.fixed, self.said.disk);
        for waiting in self.subscribing.values_mut() {
            let Some(found) = view.subscriptions.get(&waiting.subscription) else { continue };
            if waiting.ask_at > now.since_start {
                continue;
            }
            waiting.ask_at = now.since_start + ASK_AGAIN;
            let mut missing: BTreeMap<DiskId, Vec<PartitionId>> = BTreeMap::new();
            for partition in view.partitions_of(found) {
                if partition.leader != me && !fixed.has(found, partition.id) {
                    missing.entry(partition.leader).or_default().push(partition.id);
                }
            }
            for (to, mut partitions) in missing {
                partitions.sort_unstable();
                partitions.truncate(BEGUN_MAX);
                let (subscription, created) = (found.id.clone(), found.created);
                let asked = Begun { subscription, created, partitions };
                let message = ControlMessage::AskBegun(asked);
                effects.push(ControlEffect::Send { to, run: None, message });
            }
        }
    }

    /// When to ask again.
    pub(super) fn next_ask_begun(&self) -> Option<Time> {
        let known = |id: &SubscriptionId| self.view.subscriptions.contains_key(id);
        let waiting = self.subscribing.values().filter(|one| known(&one.subscription));
        waiting.map(|one| one.ask_at).min()
    }

    /// Another node asks where a subscription has begun: it is told when it has in all partitions
    /// that it names, and when it asks again.
    pub(super) fn asked_begun(
        &mut self,
        from: DiskId,
        asked: Begun,
        now: Now,
        effects: &mut Vec<ControlEffect>,
    ) {
        self.curious.retain(|_, curious| curious.until > now.since_start);
        if asked.partitions.len() > BEGUN_MAX {
            self.ignored += 1;
            return;
        }
        let key = (asked.subscription.clone(), from);
        let is_repeat = self.curious.remove(&key).is_some();
        let begun = self.begun_of(&asked);
        if begun.len() == asked.partitions.len() || is_repeat && !begun.is_empty() {
            tell(from, &asked, begun, effects);
        } else if self.curious.len() < CURIOUS_MAX {
            let until = now.since_start + CURIOUS_WAIT;
            self.curious.insert(key, Curious { asked, until });
        }
    }

    /// Those of the partitions that a node named in which the subscription has begun.
    fn begun_of(&self, asked: &Begun) -> Vec<PartitionId> {
        let fixed = self.fixed.of(&asked.subscription, asked.created);
        let has = |partition: &PartitionId| fixed.is_some_and(|fixed| fixed.contains(partition));
        asked.partitions.iter().copied().filter(has).collect()
    }

    /// A subscription has begun in one more partition: whoever waits for the last one is told.
    pub(super) fn tell_curious(&mut self, id: &SubscriptionId, effects: &mut Vec<ControlEffect>) {
        let from = (id.clone(), DiskId(0));
        let of_it = self.curious.range(from..).take_while(|((other, _), _)| other == id);
        let mut told = Vec::new();
        for ((_, node), Curious { asked, .. }) in of_it {
            let begun = self.begun_of(asked);
            if begun.len() == asked.partitions.len() {
                tell(*node, asked, begun, effects);
                told.push((id.clone(), *node));
            }
        }
        for key in told {
            self.curious.remove(&key);
        }
    }

    /// Another node says where a subscription has begun.
    pub(super) fn begun(&mut self, begun: Begun, now: Now, effects: &mut Vec<ControlEffect>) {
        let Begun { subscription, created, partitions } = begun;
        let known = self.view.subscriptions.get(&subscription);
        if known.is_none_or(|known| known.created != created) {
            return;
        }
        for partition in partitions {
            self.fixed.note(&subscription, created, partition);
        }
        self.answer_subscribed(effects);
        // What one question had no room for is asked at once.
        for waiting in self.subscribing.values_mut() {
            if waiting.subscription == subscription {
                waiting.ask_at = now.since_start;
            }
        }
        self.ask_begun(now, effects);
    }
}

fn tell(to: DiskId, asked: &Begun, partitions: Vec<PartitionId>, effects: &mut Vec<ControlEffect>) {
    let Begun { subscription, created, .. } = asked.clone();
    let message = ControlMessage::Begun(Begun { subscription, created, partitions });
    effects.push(ControlEffect::Send { to, run: None, message });
}
