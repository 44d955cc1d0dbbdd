//! `sprawlctl test`: publishes messages and follows each to the end: stored once, read back and
//! delivered byte for byte, and not again after its acknowledgement.

mod log;
mod sample;
mod subscription;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use sprawl_server::duration;

use self::log::Place;
use self::sample::Sample;
use crate::client::{Client, Patient};
use crate::output::{self, Format};
use crate::random;

/// The most messages of one check.
const COUNT_MAX: u64 = 100_000;

/// How large a check to make.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many messages to publish
    #[arg(
        short, long, default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX)
    )]
    count: u64,
    /// For how long to try again after a refusal that may pass, and to wait for a message
    #[arg(long, default_value = "30s", value_parser = duration::parse)]
    patience: Duration,
    /// For how long nothing may come at the end; a slow node needs longer to show that it repeats
    #[arg(long, default_value = "3s", value_parser = duration::parse)]
    silence: Duration,
}

/// One check: a node, a topic of its own, and the messages that go through it.
struct Check {
    node: Patient,
    /// The topic; the subscription has the same name.
    name: String,
    samples: Vec<Sample>,
    silence: Duration,
    format: Format,
    steps: Vec<Value>,
}

/// Checks; gives true when nothing was lost, doubled or altered, and says which message was.
pub(crate) async fn test(
    client: Client,
    arguments: Arguments,
    format: Format,
) -> anyhow::Result<bool> {
    let run = random::run()?;
    let name = format!("sprawlctl-test.{run}");
    let samples = sample::make(&run, usize::try_from(arguments.count)?)?;
    let Arguments { patience, silence, .. } = arguments;
    let (node, steps) = (client.patient(patience), Vec::new());
    let mut check = Check { node, name, samples, silence, format, steps };
    let checked = check.steps().await;
    if format == Format::Json {
        let error = checked.as_ref().err().map(|error| format!("{error:#}"));
        let (ok, name, steps) = (error.is_none(), &check.name, &check.steps);
        let report = json!({ "ok": ok, "topic": name, "steps": steps, "error": error });
        output::line(&report.to_string())?;
    }
    checked?;
    // After a failure all stays as it is, for whoever looks into it.
    let name = &check.name;
    let made = [format!("/subscriptions/{name}"), format!("/topics/{name}")];
    client.clean(made.into_iter()).await;
    Ok(true)
}

impl Check {
    async fn steps(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let places = self.publish().await?;
        self.done("published, each acknowledged", places.len(), began)?;

        let began = Instant::now();
        let again = self.publish_again(&places).await?;
        self.done("published again, each known as a duplicate", again, began)?;

        let began = Instant::now();
        let read = self.read_back(&places).await?;
        self.done("read back by offset, byte for byte", read, began)?;

        let began = Instant::now();
        let received = self.receive(&places).await?;
        self.done("received by a subscription and acknowledged", received, began)?;

        let began = Instant::now();
        self.silence().await?;
        self.done("came again after that", 0, began)?;
        match self.format {
            Format::Text => output::line("nothing was lost, doubled or altered"),
            Format::Json => Ok(()),
        }
    }

    fn done(&mut self, what: &str, messages: usize, began: Instant) -> anyhow::Result<()> {
        let seconds = began.elapsed().as_secs_f64();
        if self.format == Format::Text {
            output::line(&format!("ok  {seconds:6.2} s  {messages} messages {what}"))?;
        }
        self.steps.push(json!({ "messages": messages, "what": what, "seconds": seconds }));
        Ok(())
    }

    /// Fails with one line when any message went wrong.
    fn none_went(&self, wrong: &str, messages: &[(usize, Option<Place>)]) -> anyhow::Result<()> {
        let Some((number, place)) = messages.first() else { return Ok(()) };
        let id = &self.samples[*number].id;
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let more = match messages.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        anyhow::bail!("{wrong}: message {id}{place} of topic {}{more}", self.name)
    }
}
