//! The clients of a run: they know the node by its HTTP API alone.

mod administrator;
mod http;
mod judge;
mod publisher;
mod reader;
mod subscriber;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sprawl_core::ids::Offset;
use tokio::sync::Notify;

pub(crate) use administrator::{administrate, configure};
pub(crate) use http::{Answer, Http};
pub(crate) use judge::{look, probe, read_back, read_letters};
pub(crate) use publisher::{publish, rush};
pub(crate) use reader::read;
pub(crate) use subscriber::subscribe;

use crate::history::{Asked, History, Seen};
use crate::invariants::{Findings, check_alive, check_seen};
use crate::trace::SimTrace;

/// What every client of a run shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) findings: Findings,
    pub(crate) trace: SimTrace,
    /// How often the node has started.
    starts: Arc<AtomicU64>,
    began: tokio::time::Instant,
    /// The phase of the run.
    phase: Arc<Mutex<Phase>>,
    /// Whoever waits for a message to be acknowledged, and for a repeat of one.
    acknowledged: Arc<[Notify; 2]>,
}

/// What clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Work, and bear what comes.
    Chaos,
    /// All is healed: publish nothing new, forget nothing, receive the rest.
    Drain,
    /// Stop.
    Over,
}

impl Shared {
    pub(crate) fn new(
        history: History,
        findings: Findings,
        trace: SimTrace,
        starts: Arc<AtomicU64>,
    ) -> Self {
        let began = tokio::time::Instant::now();
        let phase = Arc::new(Mutex::new(Phase::Chaos));
        let history = Arc::new(Mutex::new(history));
        let acknowledged = Arc::default();
        Self { history, findings, trace, starts, began, phase, acknowledged }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// A message was acknowledged, the first time or again.
    fn acknowledge(&self, repeat: bool) {
        self.acknowledged[0].notify_waiters();
        if repeat {
            self.acknowledged[1].notify_waiters();
        }
    }

    /// Comes to an end when the next message is acknowledged, or the next repeat of one.
    pub(crate) async fn acknowledged(&self, repeat: bool) {
        self.acknowledged[usize::from(repeat)].notified().await;
    }

    /// Simulated milliseconds since the run began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A request begins.
    fn ask(&self) -> Asked {
        let (now_ms, starts) = (self.now_ms(), self.starts.load(Ordering::Relaxed));
        let overlapped = false;
        Asked { from_ms: now_ms, to_ms: now_ms, starts, starts_after: starts, overlapped }
    }

    /// A request's answer came.
    fn answered(&self, asked: Asked) -> Asked {
        let starts_after = self.starts.load(Ordering::Relaxed);
        Asked { to_ms: self.now_ms(), starts_after, ..asked }
    }

    /// Takes a message that the node gave to a reader or subscriber past the checkers.
    fn saw(&self, message: &Value, asked: Asked) -> Option<Seen> {
        let Some(seen) = seen(message) else {
            let detail = format!("an answer holds what is no message: {message}");
            self.findings.violated("NoPhantom", detail);
            return None;
        };
        let mut history = self.history();
        history.seen += 1;
        check_seen(&history, &seen, &self.findings);
        check_alive(&history, &seen, asked, &self.findings);
        if let Some(message) = history.published.get_mut(&seen.id) {
            message.known(asked.to_ms);
        }
        drop(history);
        self.trace.client(&seen);
        Some(seen)
    }
}

/// The name of a topic of the plan.
pub(crate) fn topic_name(topic: u32) -> String {
    format!("topic.{topic}")
}

/// The name of the topic of its dead letters.
pub(crate) fn dead_letters_name(topic: u32) -> String {
    format!("_dead.{}", topic_name(topic))
}

/// The number of a topic of the plan.
fn topic_number(name: &str) -> Option<u32> {
    name.strip_prefix("topic.")?.parse().ok()
}

/// Reads a message of an answer.
fn seen(message: &Value) -> Option<Seen> {
    let payload = match message.get("payload") {
        Some(text) => text.as_str()?.as_bytes().to_vec(),
        // Clients of the simulation publish text only: bytes that are none were never published.
        None => message.get("payload_base64")?.as_str()?.as_bytes().to_vec(),
    };
    Some(Seen {
        id: message.get("id")?.as_str()?.to_owned(),
        topic: topic_number(message.get("topic")?.as_str()?)?,
        partition: u32::try_from(message.get("partition")?.as_u64()?).ok()?,
        offset: Offset(message.get("offset")?.as_u64()?),
        payload,
        attempt: message.get("attempt").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// How long a client waits after the `n`th failure in a row.
fn back_off(n: u32) -> Duration {
    Duration::from_millis((20 << n.min(6)).min(1_000))
}
