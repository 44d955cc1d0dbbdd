//! `sprawlctl bench`: publishes at a steady rate and says how long that took, from when each
//! message was due.
//!
//! The load is open: a slow answer does not delay what is due after it, so that a node which
//! stands still for a second has a second in its percentiles, and not one slow request.

mod delivery;
mod load;
mod messages;
mod report;
mod schedule;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use sprawl_server::duration;

use self::delivery::Delivery;
use self::load::Load;
use self::messages::Messages;
use self::report::Report;
use self::schedule::Schedule;
use crate::client::{Client, Patient};
use crate::output::Format;
use crate::progress;

/// The highest rate.
const RATE_MAX: u64 = 10_000_000;
/// The most messages of a run.
const MESSAGES_MAX: u64 = 1_000_000_000;
/// The largest payload, in bytes.
const SIZE_MAX: u64 = 64 << 20;
/// The most topics.
const TOPICS_MAX: u64 = 8_000;
/// The most connections.
const CONNECTIONS_MAX: u64 = 10_000;
/// The most messages of one request.
const BATCH_MAX: u64 = 100_000;

/// What load to put on.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Messages per second
    #[arg(
        long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=RATE_MAX)
    )]
    rate: u64,
    /// For how long
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// The payload of each message, in bytes
    #[arg(
        long, default_value_t = 1_024,
        value_parser = clap::value_parser!(u64).range(0..=SIZE_MAX)
    )]
    size: u64,
    /// Over how many topics the messages go; they are made for the run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=TOPICS_MAX))]
    topics: u64,
    /// How many requests may be under way at once, each on a connection of its own
    #[arg(
        long, default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX)
    )]
    connections: u64,
    /// How many messages go in one request; all of them are due together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=BATCH_MAX))]
    batch: u64,
    /// Receive the messages too, and say how long that took from when each was due to be sent
    #[arg(long)]
    subscribe: bool,
    /// How long after the end to try again what may yet pass, and to wait for messages
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    patience: Duration,
}

/// Puts the load on and reports; gives whether every message was stored, and received.
pub(crate) async fn bench(
    client: Client,
    arguments: Arguments,
    format: Format,
) -> anyhow::Result<bool> {
    let messages = u128::from(arguments.rate) * arguments.duration.as_millis() / 1_000;
    anyhow::ensure!(
        messages <= u128::from(MESSAGES_MAX),
        "{messages} messages are too many for one run: at most {MESSAGES_MAX}"
    );
    let size = usize::try_from(arguments.size)?;
    let messages = Arc::new(Messages::new(arguments.topics, size)?);
    let node = client.patient(arguments.patience);
    prepare(&node, &messages).await?;
    let delivery = match arguments.subscribe {
        true => Some(Arc::new(Delivery::subscribe(node, messages.clone()).await?)),
        false => None,
    };
    let ran = run(&client, &arguments, &messages, delivery.as_ref(), format).await;
    clean(&client, &messages, delivery.as_deref()).await;
    ran
}

/// Makes the topics, so that making them is not measured, and finds a node that does not answer.
async fn prepare(node: &Patient, messages: &Messages) -> anyhow::Result<()> {
    for topic in &messages.topics {
        let first = messages.first(topic);
        node.ask(Method::POST, "/publish", Some(&first), Duration::ZERO).await?;
    }
    Ok(())
}

async fn run(
    client: &Client,
    arguments: &Arguments,
    messages: &Arc<Messages>,
    delivery: Option<&Arc<Delivery>>,
    format: Format,
) -> anyhow::Result<bool> {
    let schedule = Schedule::start(arguments.rate, arguments.batch, arguments.duration);
    let mut followers = delivery.map(|delivery| delivery.follow(schedule));
    let bar = progress::bar(schedule.messages);
    let (by_batch, deadline) = (arguments.batch > 1, schedule.end() + arguments.patience);
    let (client, messages) = (client.clone(), messages.clone());
    let load = Load::new(client, schedule, messages, by_batch, deadline, bar.clone());
    let load = Arc::new(load);
    let loaded = load.run(usize::try_from(arguments.connections)?).await;
    bar.finish_and_clear();
    let tally = loaded?;
    if let (Some(delivery), Some(followers)) = (delivery, &mut followers) {
        tokio::select! {
            biased;
            () = delivery.complete(&tally.stored) => {}
            // They end by an error only.
            Some(ended) = followers.join_next() => ended.context("a subscriber's task")??,
        }
    }
    let delivery = delivery.map(Arc::as_ref);
    let report = Report { arguments, schedule: &schedule, tally: &tally, delivery };
    report.print(format)?;
    Ok(report.good())
}

/// Deletes what the run made: first who reads the topics, then the topics.
async fn clean(client: &Client, messages: &Messages, delivery: Option<&Delivery>) {
    let subscriptions = delivery.map(Delivery::ids).unwrap_or_default();
    let subscriptions = subscriptions.iter().map(|id| format!("/subscriptions/{id}"));
    let topics = messages.topics.iter().map(|topic| format!("/topics/{topic}"));
    client.clean(subscriptions.chain(topics)).await;
}
