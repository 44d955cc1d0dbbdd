//! The end of a run: everything is read back, subscriptions receive the rest, and the clients'
//! history is judged.

use std::collections::BTreeMap;
use std::time::Duration;

use sprawl_core::ids::TopicName;

use super::World;
use crate::client::{self, Http, Phase};
use crate::history;
use crate::invariants::{
    Findings, ReadBack, check_messages, check_numbers, check_published, check_removals,
    check_skipped, check_sought, check_subscriptions,
};

/// How long subscriptions may take to receive the rest.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks whether they have.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// How long a pull may be under way, whatever hinders the node.
const PULL_LIMIT: Duration = Duration::from_secs(45);

/// What was read back, by topic.
type Back = BTreeMap<u32, ReadBack>;

impl World {
    /// Whether a fault destroyed something of a topic's only copy.
    pub(super) fn is_damaged(&self, topic: u32) -> bool {
        self.is_named_damaged(&client::topic_name(topic))
    }

    fn is_named_damaged(&self, name: &str) -> bool {
        let name = name.parse::<TopicName>().expect("a name");
        let view = self.shared.trace.view();
        let mut ranges = view.topics.get(&name).into_iter().flat_map(|found| &found.partitions);
        ranges.any(|range| self.disk.lock().atlas.is_damaged(range.partition))
    }

    pub(super) async fn judge(&mut self) {
        // Publishers may be within a last retry, which no limit of healing concerns.
        for publisher in std::mem::take(&mut self.publishers) {
            publisher.await.expect("nobody kills a publisher");
        }
        while self.shared.history().published.values().any(|message| message.open > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let back = self.read_back().await;
        self.drain(&back).await;
        self.shared.enter(Phase::Over);
        let findings = &self.shared.findings;
        if let Some(stuck) = self.shared.trace.stuck(PULL_LIMIT) {
            findings.violated("EveryRequestResolves", stuck);
        }
        let history = self.shared.history();
        for (id, message) in &history.published {
            check_published(id, message, findings);
        }
        check_messages(&history, &back, findings);
        check_numbers(&history, &back, findings);
        check_subscriptions(&history, &back, self.shared.now_ms(), findings);
        check_skipped(&history, findings);
        let is_damaged = |topic| back.get(&topic).is_some_and(|read| read.damaged);
        check_sought(&history, is_damaged, findings);
        check_removals(&history, findings);
        drop(history);
        self.count(&back);
    }

    /// Reads all topics.
    async fn read_back(&self) -> Back {
        let mut back = BTreeMap::new();
        for topic in 0..self.plan.topics {
            let shared = self.shared.clone();
            let read = async move { client::read_back(&shared, topic).await };
            let mut read = self.judge.spawn(read).await.expect("nobody kills the judge");
            read.damaged |= self.is_damaged(topic);
            back.insert(topic, read);
        }
        back
    }

    /// Subscriptions receive what was read back, or the time for it is over.
    async fn drain(&mut self, back: &Back) {
        let quiet = tokio::time::Instant::now();
        loop {
            self.look().await;
            if self.is_drained(back) {
                return;
            }
            if quiet.elapsed() > DRAIN_LIMIT {
                let detail = format!("a subscription lacks messages after {DRAIN_LIMIT:?}");
                return self.shared.findings.violated("GroupsDrain", detail);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Reads what has come to the dead letters, and where topics begin by now.
    async fn look(&mut self) {
        for topic in 0..self.plan.topics {
            if self.is_named_damaged(&client::dead_letters_name(topic)) {
                self.shared.history().buried.damage(topic);
            }
            let (shared, from) = (self.shared.clone(), self.letters.get(&topic).copied());
            let look = async move {
                client::look(&shared, topic).await;
                let mut http = Http::default();
                client::read_letters(&shared, &mut http, topic, from.unwrap_or(0)).await.0
            };
            let next = self.judge.spawn(look).await.expect("nobody kills the judge");
            self.letters.insert(topic, next);
        }
    }

    fn is_drained(&self, back: &Back) -> bool {
        let findings = Findings::default();
        check_subscriptions(&self.shared.history(), back, self.shared.now_ms(), &findings);
        findings.violations().is_empty()
    }

    /// Counts what happened that no client counts.
    fn count(&self, back: &Back) {
        let mut history = self.shared.history();
        let (mut expired, mut filtered, mut retired) = (0, 0, 0);
        for message in history.published.values() {
            let Some((_, offset)) = message.place() else { continue };
            let read = back.get(&message.topic);
            let over = message.expires_by().zip(read).is_some_and(|(by, read)| by < read.at_ms);
            let of_topic =
                history.subscribed.values().filter(|one| one.topics.contains(&message.topic));
            let unwanted = of_topic.filter(|one| !one.wants(&message.terms));
            let removed = offset < history.start_of(message.topic);
            let purged = history.purged.get(&message.topic).is_some_and(|at| offset < *at);
            expired += u64::from(over);
            filtered += unwanted.count() as u64;
            retired += u64::from(removed && !purged);
        }
        let buried = history.buried.len() as u64;
        let counted = [
            (history::EXPIRED, expired),
            (history::FILTERED, filtered),
            (history::RETIRED, retired),
            (history::BURIED, buried),
        ];
        counted.into_iter().for_each(|(what, times)| history.count(what, times));
    }
}
