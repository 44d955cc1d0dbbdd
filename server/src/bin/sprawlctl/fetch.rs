//! `sprawlctl fetch`: prints the messages of a partition from an offset on, without a subscription.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use sprawl_core::ids::TopicName;
use sprawl_server::duration;

use crate::client::Client;
use crate::output::{self, Format};

/// How many messages one request takes.
const TAKEN_MAX: u64 = 1_000;
/// For how long a node that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to read.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The topic
    #[arg(short, long)]
    topic: TopicName,
    /// The partition, by its number within the topic
    #[arg(long, default_value_t = 0)]
    partition: u32,
    /// The first offset to print
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// Stop after so many messages; without it, all there are now
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// How long to wait for the first message when there is none yet, such as 10s; up to 30s
    #[arg(long, value_parser = duration::parse)]
    wait: Option<Duration>,
    /// How messages are printed: the payload alone, or all of it as JSON
    #[arg(short, long, value_enum)]
    format: Option<Format>,
}

/// Prints messages up to the end that the partition had when it was asked.
pub(crate) async fn fetch(
    client: Client,
    arguments: Arguments,
    output: Format,
) -> anyhow::Result<bool> {
    let Arguments { topic, partition, .. } = &arguments;
    let format = arguments.format.unwrap_or(output);
    let node = client.patient(PATIENCE);
    let mut wait = arguments.wait.unwrap_or_default();
    let (mut next, mut left) = (arguments.offset, arguments.max.unwrap_or(u64::MAX));
    let mut end = None;
    while left > 0 && end.is_none_or(|end| next < end) {
        let (max, millis) = (left.min(TAKEN_MAX), wait.as_millis());
        let path = format!(
            "/topics/{topic}/messages?partition={partition}&offset={next}&max={max}&wait={millis}ms"
        );
        let page = node.ask(Method::GET, &path, None, wait).await?;
        let messages = page["messages"].as_array().context("an answer without messages")?;
        for message in messages {
            output::message(message, format)?;
        }
        left = left.saturating_sub(messages.len() as u64);
        let numbers = (page["next_offset"].as_u64(), page["end_offset"].as_u64());
        let (Some(then), Some(last)) = numbers else {
            anyhow::bail!("the node's answer does not say where to go on");
        };
        // What is published from now on is not waited for, or a busy topic would never end.
        end.get_or_insert(last);
        anyhow::ensure!(then > next || messages.is_empty(), "the node's answers do not go on");
        if then <= next {
            break;
        }
        next = then;
        wait = Duration::ZERO;
    }
    Ok(true)
}
