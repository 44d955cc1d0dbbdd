//! The other end: subscriptions that take every message, and when each was first received.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::messages::{Messages, Numbers};
use super::schedule::Schedule;
use super::tally::Latencies;
use crate::client::Patient;

/// The most subscriptions that share the topics.
const SUBSCRIPTIONS_MAX: usize = 8;
/// How many messages one request takes.
const TAKEN_MAX: usize = 1_000;
/// How long one request waits for messages.
const WAIT: Duration = Duration::from_secs(5);

/// The subscriptions of a run.
#[derive(Debug)]
pub(super) struct Delivery {
    node: Patient,
    messages: Arc<Messages>,
    received: Mutex<Received>,
    news: watch::Sender<()>,
}

/// What has arrived.
#[derive(Debug)]
pub(super) struct Received {
    /// From when a message was due to be published to when it was first received.
    pub(super) latencies: Latencies,
    /// Which messages.
    pub(super) numbers: Numbers,
    /// How many came more than once.
    pub(super) repeated: u64,
}

impl Delivery {
    /// Subscribes to all topics of the run, from their beginning.
    pub(super) async fn subscribe(node: Patient, messages: Arc<Messages>) -> anyhow::Result<Self> {
        let received = Mutex::new(Received {
            latencies: Latencies::new(),
            numbers: Numbers::below(0),
            repeated: 0,
        });
        let news = watch::Sender::new(());
        let delivery = Self { node, messages, received, news };
        for (part, topics) in delivery.parts() {
            let id = delivery.messages.subscription(part);
            let wanted = json!({ "id": id, "topics": topics, "from": "earliest" });
            delivery.node.ask(Method::POST, "/subscribe", Some(&wanted), Duration::ZERO).await?;
        }
        Ok(delivery)
    }

    /// The topics, divided over the subscriptions.
    fn parts(&self) -> impl Iterator<Item = (usize, &[String])> {
        let topics = &self.messages.topics;
        topics.chunks(topics.len().div_ceil(SUBSCRIPTIONS_MAX)).enumerate()
    }

    /// The names of the subscriptions.
    pub(super) fn ids(&self) -> Vec<String> {
        self.parts().map(|(part, _)| self.messages.subscription(part)).collect()
    }

    /// Receives and acknowledges, until the tasks are dropped.
    pub(super) fn follow(self: &Arc<Self>, schedule: Schedule) -> JoinSet<anyhow::Result<()>> {
        self.with_received(|received| received.numbers = Numbers::below(schedule.messages));
        let mut tasks = JoinSet::new();
        for id in self.ids() {
            tasks.spawn(self.clone().pull(id, schedule));
        }
        tasks
    }

    async fn pull(self: Arc<Self>, id: String, schedule: Schedule) -> anyhow::Result<()> {
        let path = format!("/subscriptions/{id}/messages?max={TAKEN_MAX}&wait={}s", WAIT.as_secs());
        let ack = format!("/subscriptions/{id}/ack");
        let mut tokens: Vec<Value> = Vec::new();
        loop {
            let taken = json!({ "tokens": tokens });
            let acknowledge = async {
                match tokens.is_empty() {
                    true => Ok(Value::Null),
                    false => self.node.ask(Method::POST, &ack, Some(&taken), Duration::ZERO).await,
                }
            };
            // The next messages are on their way while the last ones are acknowledged.
            let pull = self.node.ask(Method::GET, &path, None, WAIT);
            let (pulled, acknowledged) = tokio::join!(pull, acknowledge);
            acknowledged?;
            let mut pulled = pulled?;
            let now = Instant::now();
            let messages = pulled["messages"].as_array_mut().context("an answer of no node")?;
            self.with_received(|received| received.take(&self.messages, messages, &schedule, now));
            self.news.send_replace(());
            tokens = messages.iter_mut().map(|message| message["ack_token"].take()).collect();
        }
    }

    /// Waits until all of `stored` has arrived, for as long as there is patience.
    pub(super) async fn complete(&self, stored: &Numbers) {
        let mut news = self.news.subscribe();
        let all = news.wait_for(|()| self.missing(stored) == 0);
        // What is missing when the patience is over is told in the report.
        let _ = tokio::time::timeout(self.node.patience, all).await;
    }

    /// How many messages of `stored` have not arrived.
    pub(super) fn missing(&self, stored: &Numbers) -> u64 {
        self.with_received(|received| stored.lacking_in(&received.numbers))
    }

    /// Looks at what has arrived.
    pub(super) fn with_received<T>(&self, look: impl FnOnce(&mut Received) -> T) -> T {
        look(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Received {
    fn take(&mut self, run: &Messages, messages: &[Value], schedule: &Schedule, now: Instant) {
        for message in messages {
            let number = message["id"].as_str().and_then(|id| run.number(id));
            let Some(number) = number.filter(|number| *number < schedule.messages) else {
                continue;
            };
            if self.numbers.insert(number) {
                let due = schedule.due_of(number);
                self.latencies.add(now.saturating_duration_since(due), 1);
            } else {
                self.repeated += 1;
            }
        }
    }
}
