//! How long messages take to whoever subscribed, while they are published: a subscriber a topic,
//! who pulls and acknowledges.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::connection::{Connection, get, post};
use super::latency::DIGITS;
use super::load::TOPICS;

/// How long a subscriber waits for a message.
pub(crate) const PULL_WAIT: Duration = Duration::from_secs(1);

/// When the messages of each request were due: by the writer and the number of the request.
type Due = Mutex<HashMap<String, Instant>>;

/// Those who receive what is published.
pub(crate) struct Subscribers {
    due: Arc<Due>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<anyhow::Result<Histogram<u64>>>>,
}

#[derive(Deserialize)]
struct Pulled<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    id: &'a str,
    ack_token: &'a str,
}

impl Subscribers {
    /// Subscribes to what comes from now on, each through the next one of some nodes.
    pub(crate) async fn start(addresses: &[String]) -> anyhow::Result<Self> {
        let (due, is_over) = (Arc::<Due>::default(), Arc::<AtomicBool>::default());
        let mut tasks = Vec::new();
        for topic in 0..TOPICS {
            // Not the node that its publisher asks.
            let mut connection =
                Connection::open(&addresses[(topic + 1) % addresses.len()]).await?;
            let body = format!("{{\"id\":\"reader-{topic}\",\"topics\":[\"topic-{topic}\"]}}");
            connection.exchange(&post("/subscribe", body.as_bytes())).await?;
            tasks.push(tokio::spawn(receive(connection, topic, due.clone(), is_over.clone())));
        }
        Ok(Self { due, is_over, tasks })
    }

    /// The messages of a request were due at this moment.
    pub(crate) fn expect(&self, (writer, number): (usize, usize), moment: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.insert(format!("{writer}-{number}"), moment);
    }

    /// All is published. In microseconds, from when each message was due until it was received, if
    /// that was said.
    pub(crate) async fn finish(self) -> anyhow::Result<Histogram<u64>> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut latencies = Histogram::<u64>::new(DIGITS)?;
        for task in self.tasks {
            latencies.add(task.await??).map_err(|error| anyhow!("{error}"))?;
        }
        Ok(latencies)
    }
}

/// Receives until all is published and nothing more comes.
async fn receive(
    mut connection: Connection,
    topic: usize,
    due: Arc<Due>,
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new(DIGITS)?;
    let wait = PULL_WAIT.as_secs();
    let pull = get(&format!("/subscriptions/reader-{topic}/messages?max=1000&wait={wait}s"));
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let answer = connection.exchange(&pull).await?;
        let at = Instant::now();
        let Pulled { messages } = serde_json::from_slice(answer)?;
        if messages.is_empty() && was_over {
            return Ok(latencies);
        }
        let mut acks = String::from("{\"tokens\":[");
        {
            let due = due.lock().unwrap_or_else(PoisonError::into_inner);
            for (place, message) in messages.iter().enumerate() {
                let request = message.id.rsplit_once('-').context("an id has three parts")?.0;
                if let Some(moment) = due.get(request) {
                    latencies.record(at.duration_since(*moment).as_micros() as u64)?;
                }
                let comma = if place == 0 { "" } else { "," };
                acks += &format!("{comma}\"{}\"", message.ack_token);
            }
        }
        if !messages.is_empty() {
            acks += "]}";
            let path = format!("/subscriptions/reader-{topic}/ack");
            connection.exchange(&post(&path, acks.as_bytes())).await?;
        }
    }
}
