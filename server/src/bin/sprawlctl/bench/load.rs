//! The load: connections that take turn after turn as they become due, and each try's fate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use super::messages::Messages;
use super::schedule::Schedule;
use super::tally::Tally;
use crate::client::{Answer, Client, Failure};

/// The pause before a further try where the node names none.
const PAUSE: Duration = Duration::from_millis(100);
/// What became of messages for which there was no time any more.
const UNSENT: &str = "not sent before the end";
/// What became of messages whose answer did not come before the end.
const UNANSWERED: &str = "no answer before the end";

/// Everything that the connections have in common.
#[derive(Debug)]
pub(super) struct Load {
    client: Client,
    schedule: Schedule,
    messages: Arc<Messages>,
    by_batch: bool,
    /// A permit for each turn that is due and not taken.
    due: Arc<Semaphore>,
    next: AtomicU64,
    /// When what is not stored has failed.
    deadline: Instant,
    tally: Mutex<Tally>,
    bar: ProgressBar,
}

/// What became of one message in one try.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stored { duplicate: bool },
    Again { kind: String, after: Option<Duration> },
    Failed { kind: String },
}

impl Load {
    pub(super) fn new(
        client: Client,
        schedule: Schedule,
        messages: Arc<Messages>,
        by_batch: bool,
        deadline: Instant,
        bar: ProgressBar,
    ) -> Self {
        let (due, next) = (schedule.pace(), AtomicU64::new(0));
        let tally = Mutex::new(Tally::new(schedule.messages));
        Self { client, schedule, messages, by_batch, due, next, deadline, tally, bar }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all of the schedule, or as much as there is time for, and gives what came of it.
    ///
    /// # Errors
    ///
    /// When a node does not have the endpoint; what was published until then is stored.
    pub(super) async fn run(self: &Arc<Self>, connections: usize) -> anyhow::Result<Tally> {
        let mut workers = JoinSet::new();
        for connection in 0..connections {
            workers.spawn(self.clone().work(connection));
        }
        while let Some(ended) = workers.join_next().await {
            ended.context("a connection's task")??;
        }
        for turn in self.next.load(Ordering::Relaxed)..self.schedule.turns() {
            let unsent = self.schedule.of_turn(turn);
            let due = self.schedule.due(turn);
            self.tally().unsent(self.deadline.saturating_duration_since(due));
            self.fail(turn, UNSENT, unsent.end - unsent.start);
        }
        Ok(std::mem::replace(&mut *self.tally(), Tally::new(0)))
    }

    async fn work(self: Arc<Self>, connection: usize) -> anyhow::Result<()> {
        loop {
            match timeout_at(self.deadline.into(), self.due.acquire()).await {
                Ok(Ok(permit)) => permit.forget(),
                // The last turn is taken, or the time is over.
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
            if Instant::now() >= self.deadline {
                return Ok(());
            }
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            if turn + 1 == self.schedule.turns() {
                self.due.close();
            }
            self.publish(turn, connection).await?;
        }
    }

    /// Publishes a turn's messages, again and again those that may pass later.
    async fn publish(&self, turn: u64, connection: usize) -> anyhow::Result<()> {
        self.tally().sent(self.schedule.due(turn).elapsed());
        let mut left: Vec<u64> = self.schedule.of_turn(turn).collect();
        let nodes = self.client.nodes();
        for attempt in 0_usize.. {
            let node = &nodes[connection.wrapping_add(attempt) % nodes.len()];
            let asked = timeout_at(self.deadline.into(), self.send(node, &left)).await;
            let Ok(fates) = asked else {
                self.fail(turn, UNANSWERED, left.len() as u64);
                return Ok(());
            };
            let (mut again, mut rest) = (Vec::new(), PAUSE);
            for (number, fate) in left.iter().zip(fates?) {
                if let Fate::Again { after, .. } = &fate {
                    again.push(*number);
                    rest = rest.max(after.unwrap_or_default());
                }
                self.settle(turn, *number, fate);
            }
            left = again;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() + rest > self.deadline {
                self.fail(turn, "refused until the end", left.len() as u64);
                return Ok(());
            }
            sleep(rest).await;
        }
        Ok(())
    }

    fn settle(&self, turn: u64, number: u64, fate: Fate) {
        let mut tally = self.tally();
        match fate {
            Fate::Stored { duplicate } => {
                tally.stored(number, self.schedule.due(turn), duplicate);
                self.bar.inc(1);
            }
            Fate::Again { kind, .. } => tally.retried(kind),
            Fate::Failed { kind } => {
                drop(tally);
                self.fail(turn, &kind, 1);
            }
        }
    }

    /// What is not stored counts as if it had taken until the end, or else a node would look the
    /// faster the more it refuses.
    fn fail(&self, turn: u64, kind: &str, messages: u64) {
        let waited = self.deadline.saturating_duration_since(self.schedule.due(turn));
        self.tally().failed(kind, waited, messages);
        self.bar.inc(messages);
    }

    /// Tries once; gives a fate for each message.
    async fn send(&self, node: &str, numbers: &[u64]) -> anyhow::Result<Vec<Fate>> {
        let (path, media_type, body) = match numbers {
            [number] if !self.by_batch => {
                ("/publish", "application/json", self.messages.body(*number))
            }
            numbers => ("/publish/batch", "application/x-ndjson", self.messages.lines(numbers)),
        };
        let asked = self.client.post_at(node, path, media_type, body.into_bytes()).await;
        let absent = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        if let Ok(answer) = &asked
            && self.by_batch
            && absent.contains(&answer.status)
        {
            bail!("{node} does not have POST {path}: leave --batch out, or update the node");
        }
        Ok(if self.by_batch { of_batch(&asked, numbers.len()) } else { vec![of_one(&asked)] })
    }
}

/// What an answer says about the one message, or about all of a batch alike.
fn of_one(asked: &Result<Answer, Failure>) -> Fate {
    match asked {
        Ok(answer) if answer.status.is_success() => of_item(&answer.body),
        Ok(answer) if answer.may_pass() => Fate::Again {
            kind: kind(answer.status.as_u16(), &answer.body),
            after: answer.retry_after(),
        },
        Ok(answer) => Fate::Failed { kind: kind(answer.status.as_u16(), &answer.body) },
        Err(Failure::Unreachable { why, .. }) => Fate::Again { kind: why.clone(), after: None },
        Err(Failure::Refused(why)) => Fate::Failed { kind: why.clone() },
    }
}

fn of_batch(asked: &Result<Answer, Failure>, messages: usize) -> Vec<Fate> {
    let items = match asked {
        Ok(answer) if answer.status.is_success() => answer.body.as_array(),
        Ok(_) | Err(_) => return (0..messages).map(|_| of_one(asked)).collect(),
    };
    match items {
        Some(items) if items.len() == messages => items.iter().map(of_item).collect(),
        Some(_) | None => (0..messages).map(|_| of_item(&Value::Null)).collect(),
    }
}

/// What the answer to one message says, by itself or as an item of a batch's.
fn of_item(item: &Value) -> Fate {
    match (&item["status"], item["status"].as_u64()) {
        (Value::String(word), _) if word == "published" => {
            Fate::Stored { duplicate: item["duplicate"] == true }
        }
        (_, Some(status)) => {
            let status = u16::try_from(status).unwrap_or_default();
            match status {
                429 | 503 | 504 => Fate::Again { kind: kind(status, item), after: None },
                _ => Fate::Failed { kind: kind(status, item) },
            }
        }
        _ => Fate::Failed { kind: "an answer that is no node's".to_owned() },
    }
}

/// The kind of a refusal: its status and the last word of its problem type.
fn kind(status: u16, problem: &Value) -> String {
    let word = problem["type"].as_str().and_then(|name| name.rsplit(':').next());
    word.map_or_else(|| status.to_string(), |word| format!("{status} {word}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_items_of_a_batch_have_fates_of_their_own() {
        let stored = |duplicate| Fate::Stored { duplicate };
        let failed = |kind: &str| Fate::Failed { kind: kind.to_owned() };
        let full = json!({ "type": "urn:sprawl:problem:disk-full", "status": 503 });
        let again = Fate::Again { kind: "503 disk-full".to_owned(), after: None };
        for (item, fate) in [
            (json!({ "status": "published", "offset": 1 }), stored(false)),
            (json!({ "status": "published", "duplicate": true }), stored(true)),
            (full, again),
            (json!({ "type": "urn:sprawl:problem:malformed", "status": 400 }), {
                failed("400 malformed")
            }),
            (json!({ "status": "ok" }), failed("an answer that is no node's")),
            (Value::Null, failed("an answer that is no node's")),
        ] {
            assert_eq!(of_item(&item), fate, "{item}");
        }
    }
}
