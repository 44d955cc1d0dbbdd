//! The second half of a check: a subscription receives every message, and none again after it was
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::Check;
use super::log::Place;

/// After which time a message that is not acknowledged comes again.
const ACK_WAIT: Duration = Duration::from_millis(500);
/// How long one request waits for messages.
const WAIT: Duration = Duration::from_secs(1);
/// How many messages one request takes.
const TAKEN_MAX: usize = 200;

impl Check {
    /// Subscribes from the earliest message, receives all and acknowledges each; gives how many.
    /// What comes again before its acknowledgement was taken is in order.
    pub(super) async fn receive(&self, places: &[Place]) -> anyhow::Result<usize> {
        let wanted = json!({
            "topics": [self.name], "id": self.name, "from": "earliest",
            "ack_wait": format!("{}ms", ACK_WAIT.as_millis()),
        });
        self.node.ask(Method::POST, "/subscribe", Some(&wanted), Duration::ZERO).await?;
        let numbers: BTreeMap<Place, usize> = places.iter().copied().zip(0..).collect();
        let mut left: BTreeSet<usize> = numbers.values().copied().collect();
        let mut progress = Instant::now();
        while !left.is_empty() {
            let messages = self.pull(WAIT, TAKEN_MAX).await?;
            if messages.is_empty() && progress.elapsed() > self.node.patience {
                break;
            }
            let mut taken = BTreeMap::new();
            for message in &messages {
                let place = Place::of(message)?;
                let Some(number) = numbers.get(&place) else {
                    anyhow::bail!("a message was delivered that nobody published ({place})");
                };
                self.compare("delivered", *number, place, message)?;
                let token = message["ack_token"].as_str().context("a message without ack_token")?;
                taken.insert(token.to_owned(), *number);
            }
            for number in self.acknowledge(taken).await? {
                progress = Instant::now();
                left.remove(&number);
            }
        }
        let lost: Vec<_> = left.iter().map(|number| (*number, Some(places[*number]))).collect();
        self.none_went("lost: not delivered, or its acknowledgement never taken", &lost)?;
        Ok(places.len())
    }

    /// Fails when a message comes although all are acknowledged.
    pub(super) async fn silence(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let silence = self.silence.max(2 * ACK_WAIT);
        while began.elapsed() < silence {
            let wait = silence.saturating_sub(began.elapsed()).min(WAIT);
            let messages = self.pull(wait, TAKEN_MAX).await?;
            let Some(message) = messages.first() else { continue };
            let (id, place) = (message["id"].as_str().unwrap_or_default(), Place::of(message)?);
            let more = match messages.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            anyhow::bail!(
                "doubled: delivered again after its acknowledgement: message {id} ({place}) of \
                 topic {}{more}",
                self.name
            );
        }
        Ok(())
    }

    async fn pull(&self, wait: Duration, max: usize) -> anyhow::Result<Vec<Value>> {
        let (name, millis) = (&self.name, wait.as_millis());
        let path = format!("/subscriptions/{name}/messages?max={max}&wait={millis}ms");
        let mut pulled = self.node.ask(Method::GET, &path, None, wait).await?;
        match pulled["messages"].take() {
            Value::Array(messages) => Ok(messages),
            _ => anyhow::bail!("the node's answer has no messages"),
        }
    }

    /// Acknowledges; gives the numbers of the messages whose tokens were taken.
    async fn acknowledge(
        &self,
        mut taken: BTreeMap<String, usize>,
    ) -> anyhow::Result<impl Iterator<Item = usize>> {
        if !taken.is_empty() {
            let path = format!("/subscriptions/{}/ack", self.name);
            let tokens = json!({ "tokens": taken.keys().collect::<Vec<_>>() });
            let answer = self.node.ask(Method::POST, &path, Some(&tokens), Duration::ZERO).await?;
            for expired in answer["expired"].as_array().into_iter().flatten() {
                taken.remove(expired.as_str().unwrap_or_default());
            }
        }
        Ok(taken.into_values())
    }
}
