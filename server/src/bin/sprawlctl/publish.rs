//! `sprawlctl publish`: COUNT messages in all, each under an id of its own that every try keeps.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use sprawl_server::duration;
use tokio::time::Instant;

use crate::client::Client;
use crate::output::{self, Format};
use crate::{progress, random};

/// How many failures are told one by one.
const FAILURES_TOLD_MAX: u64 = 10;
/// The most messages that are under way at once.
const PARALLEL_MAX: u64 = 1_000;

/// What to publish.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The topic; it is made when it does not exist
    #[arg(short, long)]
    topic: String,
    /// The payload; without it and --file, standard input is the payload
    #[arg(
        short = 'p',
        long,
        short_alias = 'm',
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    payload: Option<String>,
    /// A file that is the payload
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many messages in all
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many are under way at once
    #[arg(
        short = 'P', long, default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=PARALLEL_MAX)
    )]
    parallel: u64,
    /// The least time between the starts of two messages, such as 250ms
    #[arg(short, long, value_parser = duration::parse)]
    interval: Option<Duration>,
    /// Messages of one key stay in order
    #[arg(long)]
    key: Option<String>,
    /// For how long to try again after a refusal that may pass, or when no answer tells
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    patience: Duration,
}

/// Publishes; gives whether every message was stored.
pub(crate) async fn publish(
    client: Client,
    arguments: Arguments,
    format: Format,
) -> anyhow::Result<bool> {
    let mut message = json!({ "topic": arguments.topic });
    match String::from_utf8(payload(&arguments)?) {
        Ok(text) => message["payload"] = text.into(),
        Err(error) => message["payload_base64"] = STANDARD.encode(error.as_bytes()).into(),
    }
    if let Some(key) = &arguments.key {
        message["key"] = key.as_str().into();
    }
    let bar = progress::bar(arguments.count);
    let began = Instant::now();
    let message = &message;
    let one = |number: u64| {
        let (client, arguments) = (&client, &arguments);
        async move {
            if let Some(interval) = arguments.interval {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                tokio::time::sleep_until(began + interval.saturating_mul(number)).await;
            }
            send(client, message, arguments.patience).await
        }
    };
    let parallel = usize::try_from(arguments.parallel)?;
    let mut sent =
        futures_util::stream::iter((0..arguments.count).map(one)).buffer_unordered(parallel);
    let mut failed = 0;
    while let Some(result) = sent.next().await {
        match result {
            Ok(answer) => bar.suspend(|| print(&answer, format))?,
            Err(error) => {
                failed += 1;
                if failed <= FAILURES_TOLD_MAX {
                    bar.suspend(|| eprintln!("sprawlctl: {error:#}"));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed > 1 {
        eprintln!(
            "sprawlctl: {failed} of {} messages were not stored for certain",
            arguments.count
        );
    }
    Ok(failed == 0)
}

fn payload(arguments: &Arguments) -> anyhow::Result<Vec<u8>> {
    if let Some(text) = &arguments.payload {
        return Ok(text.clone().into_bytes());
    }
    if let Some(file) = &arguments.file {
        return std::fs::read(file).with_context(|| format!("the file {}", file.display()));
    }
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!("sprawlctl: type the payload, then Ctrl-D");
    }
    let mut payload = Vec::new();
    stdin.read_to_end(&mut payload).context("standard input")?;
    Ok(payload)
}

/// Sends one message until its fate is known, for as long as there is patience.
async fn send(client: &Client, message: &Value, patience: Duration) -> anyhow::Result<Value> {
    let id = random::id()?;
    let mut message = message.clone();
    message["id"] = id.as_str().into();
    let asked = client.ask(Method::POST, "/publish", Some(&message), Duration::ZERO, patience);
    let answer = asked.await.with_context(|| format!("message {id} may not be stored"))?;
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    let stored = match answer.body.get("stored").and_then(Value::as_str) {
        Some("no") => "is not stored",
        Some(_) | None => "may not be stored",
    };
    Err(anyhow::anyhow!("message {id} {stored}: {}", answer.detail()))
}

fn print(answer: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::line(&answer.to_string()),
        Format::Text => {
            let field = |name: &str| output::plain(&answer[name]);
            let (partition, offset) = (field("partition"), field("offset"));
            output::line(&format!("{} partition {partition} offset {offset}", field("id")))
        }
    }
}
