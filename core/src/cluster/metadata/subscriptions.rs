//! Durable subscriptions, and which topics each of them means.

use std::sync::Arc;

use imbl::OrdSet;

use super::View;
use crate::cluster::pattern::TopicPattern;
use crate::cluster::subscription::{Delivery, StartFrom, Subscription};
use crate::cluster::topic::TopicConfig;
use crate::ids::{SubscriptionId, TopicName};
use crate::machine::WallTime;

impl View {
    pub(super) fn subscribe(
        &mut self,
        id: &SubscriptionId,
        topics: &[TopicPattern],
        from: StartFrom,
        delivery: &Delivery,
        used: WallTime,
    ) {
        if self.subscriptions.contains_key(id) {
            return;
        }
        let mut topics = topics.to_vec();
        topics.sort();
        topics.dedup();
        for name in topics.iter().filter_map(TopicPattern::plain) {
            self.create_topic(&name, &TopicConfig::default());
            self.plain.insert((name, id.clone()));
        }
        if topics.iter().any(|pattern| pattern.plain().is_none()) {
            self.patterned.insert(id.clone());
        }
        let matched = self.topics_meant(id, &topics);
        for name in &matched {
            self.add_subscriber(name, id);
        }
        let (id, created, delivery) = (id.clone(), self.version, delivery.clone());
        let subscription =
            Subscription { id: id.clone(), created, topics, matched, from, delivery, used };
        self.subscriptions.insert(id, Arc::new(subscription));
    }

    /// The topics that there are of those that a subscription names.
    pub(super) fn topics_meant(
        &self,
        id: &SubscriptionId,
        topics: &[TopicPattern],
    ) -> OrdSet<TopicName> {
        let means = |name: &&TopicName| topics.iter().any(|pattern| pattern.matches(name));
        if self.patterned.contains(id) {
            return self.topics.keys().filter(means).cloned().collect();
        }
        let plain = topics.iter().filter_map(TopicPattern::plain);
        plain.filter(|name| self.topics.contains_key(name)).collect()
    }

    pub(super) fn add_subscriber(&mut self, name: &TopicName, id: &SubscriptionId) {
        let mut ids = self.subscribers.get(name).map_or_else(Vec::new, |ids| ids.to_vec());
        if let Err(at) = ids.binary_search(id) {
            ids.insert(at, id.clone());
        }
        self.subscribers.insert(name.clone(), Arc::new(ids));
    }

    pub(super) fn unsubscribe(&mut self, id: &SubscriptionId, unused_since: Option<WallTime>) {
        let used = self.subscriptions.get(id).map(|subscription| subscription.used);
        if used.is_none() || unused_since.is_some_and(|since| used > Some(since)) {
            return;
        }
        let subscription = self.subscriptions.remove(id).expect("it was there");
        self.patterned.remove(id);
        for name in subscription.topics.iter().filter_map(TopicPattern::plain) {
            self.plain.remove(&(name, id.clone()));
        }
        for name in &subscription.matched {
            let ids = self.subscribers.get(name).map_or_else(Vec::new, |ids| ids.to_vec());
            let left: Vec<_> = ids.into_iter().filter(|other| other != id).collect();
            if left.is_empty() {
                self.subscribers.remove(name);
            } else {
                self.subscribers.insert(name.clone(), Arc::new(left));
            }
        }
    }

    pub(super) fn used(&mut self, subscriptions: &[SubscriptionId], at: WallTime) {
        for id in subscriptions {
            self.amend(id, |subscription| subscription.used = subscription.used.max(at));
        }
    }

    pub(super) fn amend(&mut self, id: &SubscriptionId, how: impl FnOnce(&mut Subscription)) {
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            how(Arc::make_mut(subscription));
        }
    }
}
