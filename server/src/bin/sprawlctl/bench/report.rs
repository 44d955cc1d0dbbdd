//! What a run is told as: a few lines, or one JSON object.

use std::time::Duration;

use serde_json::{Value, json};

use super::Arguments;
use super::delivery::Delivery;
use super::schedule::Schedule;
use super::tally::{Kinds, Latencies, Tally};
use crate::output::{self, Format};

/// From which delay of the last turn on the node, or the connections, did not keep up: this part
/// of the run's length,
const BEHIND_SHARE: u32 = 100;
/// and at least this much.
const BEHIND_MIN: Duration = Duration::from_millis(100);

/// The figures of a run.
pub(super) struct Report<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) schedule: &'a Schedule,
    pub(super) tally: &'a Tally,
    pub(super) delivery: Option<&'a Delivery>,
}

impl Report<'_> {
    /// Whether every message was stored and, if somebody subscribed, received.
    pub(super) fn good(&self) -> bool {
        self.tally.failed.is_empty() && self.missing() == 0
    }

    pub(super) fn print(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Json => output::line(&self.json().to_string()),
            Format::Text => self.text(),
        }
    }

    fn missing(&self) -> u64 {
        self.delivery.map_or(0, |delivery| delivery.missing(&self.tally.stored))
    }

    /// From the beginning to the last acknowledgement, but not less than the schedule's length: a
    /// rate above the one that was asked for would be an artefact of the end.
    fn span(&self) -> Duration {
        let last = self.tally.last.unwrap_or(self.schedule.began());
        last.max(self.schedule.end()) - self.schedule.began()
    }

    fn rate(&self) -> f64 {
        self.tally.stored.count() as f64 / self.span().as_secs_f64()
    }

    fn kept_up(&self) -> bool {
        let length = self.schedule.end() - self.schedule.began();
        self.tally.behind <= BEHIND_MIN.max(length / BEHIND_SHARE)
    }

    fn json(&self) -> Value {
        let (arguments, tally) = (self.arguments, self.tally);
        let delivery = self.delivery.map(|delivery| {
            delivery.with_received(|received| {
                json!({
                    "received": received.numbers.count(),
                    "repeated": received.repeated,
                    "missing": tally.stored.lacking_in(&received.numbers),
                    "latency_ms": received.latencies.json(),
                })
            })
        });
        json!({
            "ok": self.good(),
            "asked_rate": arguments.rate,
            "achieved_rate": self.rate(),
            "kept_up": self.kept_up(),
            "behind_ms": tally.behind.as_secs_f64() * 1_000.0,
            "seconds": self.span().as_secs_f64(),
            "messages": self.schedule.messages,
            "size": arguments.size,
            "topics": arguments.topics,
            "connections": arguments.connections,
            "batch": arguments.batch,
            "stored": tally.stored.count(),
            "duplicates": tally.duplicates,
            "retried": tally.retried,
            "failed": tally.failed,
            "latency_ms": tally.latencies.json(),
            "delivery": delivery,
        })
    }

    fn text(&self) -> anyhow::Result<()> {
        let (arguments, tally) = (self.arguments, self.tally);
        let Arguments { rate, size, topics, connections, batch, .. } = arguments;
        output::line(&format!(
            "{rate} messages/s asked, {:.1} messages/s stored, {:.1} s; {size} bytes, \
             {topics} topics, {connections} connections, batches of {batch}",
            self.rate(),
            self.span().as_secs_f64(),
        ))?;
        let mut rows = vec![row("ms from when it was due", &tally.latencies, |name, _| name)];
        rows.push(row("to its acknowledgement", &tally.latencies, |_, value| value));
        if let Some(delivery) = self.delivery {
            delivery.with_received(|received| {
                rows.push(row("to its reception", &received.latencies, |_, value| value));
            });
        }
        output::table(&rows)?;
        self.tell("tried again", &tally.retried)?;
        self.tell("failed", &tally.failed)?;
        if !self.kept_up() {
            output::line(&format!(
                "the rate was not kept up: the last messages were sent {:.1} s after they were \
                 due. The latencies contain that wait; lower --rate, or raise --connections",
                tally.behind.as_secs_f64(),
            ))?;
        }
        match self.missing() {
            0 => Ok(()),
            missing => output::line(&format!("{missing} stored messages were not received")),
        }
    }

    fn tell(&self, what: &str, kinds: &Kinds) -> anyhow::Result<()> {
        for (kind, times) in kinds {
            output::line(&format!("{what}: {times} × {kind}"))?;
        }
        Ok(())
    }
}

/// A row of the table: of each figure its name, or its value.
fn row(title: &str, latencies: &Latencies, cell: fn(String, String) -> String) -> Vec<String> {
    let figures = latencies.figures();
    let cells = figures.iter().map(|(name, value)| cell((*name).to_owned(), format!("{value:.2}")));
    [title.to_owned()].into_iter().chain(cells).collect()
}
