//! What the node publishes about its own load, on the topic `_events`.

use std::time::Duration;

use bytes::Bytes;

use crate::broker::replica::{Draft, Envelope, Submission, Terms};
use crate::ids::Source;
use crate::machine::{AdmissionStatus, LoadLevel, Now, Time};

/// The topic of events.
const TOPIC: &str = "_events";
/// Events are at least so far apart: what changes in between is told as one.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Tells when the load becomes high, severe, and when it is over.
#[derive(Debug)]
pub(super) struct Announcer {
    /// Whose load it is; makes the events' ids unique.
    name: String,
    told: LoadLevel,
    /// What it is now, as far as it is told.
    level: LoadLevel,
    last: Option<Time>,
    count: u64,
}

impl Announcer {
    pub(super) fn new(name: String) -> Self {
        Self { name, told: LoadLevel::Calm, level: LoadLevel::Calm, last: None, count: 0 }
    }

    /// The event that the load calls for, if it has changed and the last one is old enough. An
    /// elevated load is told only by its end.
    pub(super) fn announce(&mut self, now: Now, status: &AdmissionStatus) -> Option<Submission> {
        self.level = match status.level {
            LoadLevel::Elevated => self.told,
            level @ (LoadLevel::Calm | LoadLevel::High | LoadLevel::Severe) => level,
        };
        if self.level == self.told || self.wakeup().is_some_and(|at| at > now.since_start) {
            return None;
        }
        (self.told, self.last) = (self.level, Some(now.since_start));
        self.count += 1;
        let payload = format!(
            "{{\"event\":\"load\",\"level\":\"{}\",\"waiting_bytes\":{},\"waiting_clients\":{},\
             \"window_bytes\":{},\"commit_latency_ms\":{}}}",
            self.level.name(),
            status.waiting_bytes,
            status.waiting_clients,
            status.window_bytes,
            status.commit_latency.as_millis(),
        );
        let id = format!("load-{}-{}", self.name, self.count);
        let id = id.parse().expect("digits and hyphens are an id");
        let content_type = Some("application/json".into());
        let envelope =
            Envelope { id, key: None, sequence: None, content_type, headers: Vec::new() };
        let draft = Draft { envelope, payload: Bytes::from(payload) };
        let source = Source::NODE;
        let topic = TOPIC.parse().expect("it is a name");
        let terms = Terms { ttl: Some(KEPT), ..Terms::default() };
        Some(Submission { source, topic, draft, terms })
    }

    /// When to tell what was held back.
    pub(super) fn wakeup(&self) -> Option<Time> {
        let last = self.last.filter(|_| self.level != self.told)?;
        Some(last + PAUSE)
    }
}
