//! `sprawlctl subscribe`: prints messages, then acknowledges them, until it is interrupted.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Patient};
use crate::output::{self, Format};
use crate::random;

/// How long one request waits for messages.
const WAIT: Duration = Duration::from_secs(20);
/// How many messages one request takes.
const TAKEN_MAX: u64 = 100;
/// For how long a node that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to subscribe to.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A topic; give it again for each further one
    #[arg(short, long = "topic", required = true)]
    topics: Vec<String>,
    /// The subscription; the same id again goes on where it stopped. A new one if none is given
    #[arg(long)]
    id: Option<String>,
    /// Where a new subscription begins: latest, earliest, or an offset
    #[arg(long, default_value = "latest")]
    from: String,
    /// Stop after so many messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// How messages are printed: the payload alone, or all of it as JSON
    #[arg(short, long, value_enum)]
    format: Option<Format>,
}

/// Subscribes and prints; gives true when it was interrupted or has printed `--max` messages.
pub(crate) async fn subscribe(
    client: Client,
    arguments: Arguments,
    output: Format,
) -> anyhow::Result<bool> {
    let format = arguments.format.unwrap_or(output);
    let node = client.patient(PATIENCE);
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot listen for signals")?;
            Ok(true)
        }
        ended = follow(&node, &arguments, format) => ended,
    }
}

async fn follow(node: &Patient, arguments: &Arguments, format: Format) -> anyhow::Result<bool> {
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => random::id()?,
    };
    let wanted = json!({ "topics": arguments.topics, "id": id, "from": arguments.from });
    node.ask(Method::POST, "/subscribe", Some(&wanted), Duration::ZERO).await?;
    if arguments.id.is_none() {
        eprintln!("sprawlctl: subscription {id}; --id {id} goes on with it later");
    }
    let mut left = arguments.max.unwrap_or(u64::MAX);
    while left > 0 {
        let max = left.min(TAKEN_MAX);
        let path = format!("/subscriptions/{id}/messages?max={max}&wait={}s", WAIT.as_secs());
        let pulled = node.ask(Method::GET, &path, None, WAIT).await?;
        let Some(messages) = pulled["messages"].as_array() else {
            bail!("the node's answer has no messages");
        };
        if messages.is_empty() {
            continue;
        }
        for message in messages {
            output::message(message, format)?;
            left -= 1;
        }
        let tokens: Vec<&Value> = messages.iter().map(|message| &message["ack_token"]).collect();
        let path = format!("/subscriptions/{id}/ack");
        node.ask(Method::POST, &path, Some(&json!({ "tokens": tokens })), Duration::ZERO).await?;
    }
    Ok(true)
}
