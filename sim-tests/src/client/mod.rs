//! The clients of a run: they know the node by its HTTP API alone.

mod http;
mod publisher;
mod reader;
mod subscriber;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sprawl_core::ids::Offset;

pub(crate) use http::{Answer, Http};
pub(crate) use publisher::publish;
pub(crate) use reader::{probe, read, read_back};
pub(crate) use subscriber::subscribe;

use crate::history::{History, Seen};
use crate::invariants::{Findings, check_seen};
use crate::trace::SimTrace;

/// What every client of a run shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) findings: Findings,
    pub(crate) trace: SimTrace,
    began: tokio::time::Instant,
    /// The phase of the run.
    phase: Arc<Mutex<Phase>>,
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
    pub(crate) fn new(findings: Findings, trace: SimTrace) -> Self {
        let began = tokio::time::Instant::now();
        let phase = Arc::new(Mutex::new(Phase::Chaos));
        Self { history: Arc::default(), findings, trace, began, phase }
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

    /// Simulated milliseconds since the run began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Takes a message that the node gave to a reader or subscriber past the checkers.
    fn saw(&self, message: &Value) -> Option<Seen> {
        let Some(seen) = seen(message) else {
            let detail = format!("an answer holds what is no message: {message}");
            self.findings.violated("NoPhantom", detail);
            return None;
        };
        let mut history = self.history();
        history.seen += 1;
        check_seen(&history, &seen, &self.findings);
        drop(history);
        self.trace.client(&seen);
        Some(seen)
    }
}

/// The name of a topic of the plan.
pub(crate) fn topic_name(topic: u32) -> String {
    format!("topic-{topic}")
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
        topic: message.get("topic")?.as_str()?.strip_prefix("topic-")?.parse().ok()?,
        partition: u32::try_from(message.get("partition")?.as_u64()?).ok()?,
        offset: Offset(message.get("offset")?.as_u64()?),
        payload,
    })
}

/// How long a client waits after the `n`th failure in a row.
fn back_off(n: u32) -> Duration {
    Duration::from_millis((20 << n.min(6)).min(1_000))
}
