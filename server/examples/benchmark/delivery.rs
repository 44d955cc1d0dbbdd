//! How long messages take to whoever subscribed, while they are published: a subscriber a topic,
//! who pulls and acknowledges, of whatever system.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use super::latency::DIGITS;
use super::load::TOPICS;
use super::system::{Reader, Received, System};

/// When the messages of each request were due: by the writer and the number of the request.
type Due = Mutex<HashMap<String, Instant>>;

/// Those who receive what is published.
pub(crate) struct Subscribers {
    due: Arc<Due>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<anyhow::Result<Histogram<u64>>>>,
}

impl Subscribers {
    /// Subscribes to what comes from now on.
    pub(crate) async fn start<S: System>(system: &S) -> anyhow::Result<Self> {
        let (due, is_over) = (Arc::<Due>::default(), Arc::<AtomicBool>::default());
        let mut tasks = Vec::new();
        for topic in 0..TOPICS {
            let reader = system.reader(topic).await?;
            tasks.push(tokio::spawn(receive(reader, due.clone(), is_over.clone())));
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
async fn receive<R: Reader>(
    mut reader: R,
    due: Arc<Due>,
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new(DIGITS)?;
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let Received { at, ids } = reader.receive().await?;
        if ids.is_empty() {
            if was_over {
                return Ok(latencies);
            }
            continue;
        }
        {
            let due = due.lock().unwrap_or_else(PoisonError::into_inner);
            for id in &ids {
                let request = id.rsplit_once('-').context("an id has three parts")?.0;
                if let Some(moment) = due.get(request) {
                    latencies.record(at.duration_since(*moment).as_micros() as u64)?;
                }
            }
        }
        reader.acknowledge().await?;
    }
}
