//! Delayed messages across restarts: none may come early, all must come, and how late they are.
//!
//! A message is early when it is received before its `deliver_at`, or before its delay has passed
//! on this program's own clock since it was sent. It is late by the time from its `deliver_at` to
//! when it was first received, less the part of that time in which the node was down: from its kill
//! to when it said that it was ready again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::json;
use sprawl_server::duration;

use super::connection::{Connection, get, post};
use super::node::Node;
use super::runtime;

const MESSAGES: usize = 100_000;
const TOPICS: usize = 10;
/// Messages in a request.
const BATCH: usize = 1_000;
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);
/// When the node is killed, from the beginning.
const KILLS: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(25), Duration::from_secs(40)];
/// How long after the last one is due all must have come.
const GRACE: Duration = Duration::from_secs(20);
/// How many connections pull.
const SUBSCRIBERS: usize = 2;
/// How long a subscriber waits before it tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);
/// To how many decimal digits spans are told apart.
const DIGITS: u8 = 3;

/// The moments of one run, on this program's clock.
struct Run {
    began: Instant,
    /// What the wall clock showed then, since 1970.
    wall: Duration,
    /// When each message was sent, at the earliest.
    sent: Mutex<Vec<Instant>>,
    received: Mutex<HashMap<usize, Receipt>>,
}

/// The first delivery of a message, and how many there were.
struct Receipt {
    at: Instant,
    deliver_at: Instant,
    times: u32,
}

#[derive(Deserialize)]
struct Pulled {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    deliver_at: String,
    ack_token: String,
}

/// Prints what came; an error when a message came early or not at all.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let mut node = Node::start(folder)?;
    let port = node.address.rsplit(':').next().context("an address has a port")?.to_owned();
    runtime()?.block_on(async {
        node.ready().await?;
        let run = Arc::new(Run {
            began: Instant::now(),
            wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?,
            sent: Mutex::default(),
            received: Mutex::default(),
        });
        publish(&node.address, &run).await?;
        let until = Instant::now() + DELAY_MAX + GRACE;
        let subscribers = (0..SUBSCRIBERS).map(|_| {
            let (address, run) = (node.address.clone(), run.clone());
            tokio::spawn(async move { run.receive(&address, until).await })
        });
        let subscribers: Vec<_> = subscribers.collect();
        let mut outages = Vec::new();
        for kill in KILLS {
            tokio::time::sleep_until((run.began + kill).into()).await;
            eprintln!("{} received; the node is killed", lock(&run.received).len());
            let down = Instant::now();
            drop(node);
            node = Node::start_at(folder, &port)?;
            node.ready().await?;
            outages.push((down, Instant::now()));
        }
        for subscriber in subscribers {
            subscriber.await?;
        }
        report(&run, &outages)
    })
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every delay between the least and the most, in no order.
fn delay(number: usize) -> Duration {
    let span = (DELAY_MAX - DELAY_MIN).as_millis() as usize;
    DELAY_MIN + Duration::from_millis((number * 7_919 % (span + 1)) as u64)
}

async fn publish(address: &str, run: &Run) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    let subscription = json!({ "id": "late", "topics": ["delayed.*"], "from": "earliest" });
    connection.exchange(&post("/subscribe", subscription.to_string().as_bytes())).await?;
    for batch in 0..MESSAGES / BATCH {
        let line = |number: usize| {
            let (topic, millis) = (number % TOPICS, delay(number).as_millis());
            format!(
                "{{\"topic\":\"delayed.{topic}\",\"id\":\"{number}\",\"delay\":\"{millis}ms\",\
                 \"payload\":\"{number}\"}}\n"
            )
        };
        let body: String = (batch * BATCH..(batch + 1) * BATCH).map(line).collect();
        let request = post("/publish/batch", body.as_bytes());
        lock(&run.sent).resize((batch + 1) * BATCH, Instant::now());
        connection.exchange(&request).await?;
    }
    eprintln!("{MESSAGES} published in {} ms", run.began.elapsed().as_millis());
    Ok(())
}

impl Run {
    /// Pulls and acknowledges until all are there or the time is over. A connection that breaks,
    /// as it does when the node is killed, is followed by the next one.
    async fn receive(&self, address: &str, until: Instant) {
        while lock(&self.received).len() < MESSAGES && Instant::now() < until {
            // What the node did not answer, it is asked again.
            let _ = self.receive_on_one(address, until).await;
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn receive_on_one(&self, address: &str, until: Instant) -> anyhow::Result<()> {
        let mut connection = Connection::open(address).await?;
        let pull = get("/subscriptions/late/messages?max=1000&wait=1s");
        while lock(&self.received).len() < MESSAGES && Instant::now() < until {
            let answer = connection.exchange(&pull).await?;
            let at = Instant::now();
            let Pulled { messages } = serde_json::from_slice(answer)?;
            if messages.is_empty() {
                continue;
            }
            let tokens: Vec<String> =
                messages.iter().map(|message| message.ack_token.clone()).collect();
            let acks = json!({ "tokens": tokens }).to_string();
            self.keep(at, messages)?;
            connection.exchange(&post("/subscriptions/late/ack", acks.as_bytes())).await?;
        }
        Ok(())
    }

    fn keep(&self, at: Instant, messages: Vec<Message>) -> anyhow::Result<()> {
        let mut received = lock(&self.received);
        for message in messages {
            let wall = Duration::from_millis(duration::moment(&message.deliver_at)?.0);
            let deliver_at = self.began + wall.saturating_sub(self.wall);
            let first = || Receipt { at, deliver_at, times: 0 };
            received.entry(message.id.parse()?).or_insert_with(first).times += 1;
        }
        Ok(())
    }
}

/// How much of the time between two moments the node was down.
fn down_between(outages: &[(Instant, Instant)], from: Instant, to: Instant) -> Duration {
    let overlap =
        |&(down, up): &(Instant, Instant)| up.min(to).saturating_duration_since(down.max(from));
    outages.iter().map(overlap).sum()
}

fn report(run: &Run, outages: &[(Instant, Instant)]) -> anyhow::Result<()> {
    let (sent, received) = (lock(&run.sent), lock(&run.received));
    let mut late = Histogram::<u64>::new(DIGITS)?;
    let mut whole = Histogram::<u64>::new(DIGITS)?;
    let (mut early, mut again) = (0, 0);
    for (&number, receipt) in received.iter() {
        let Receipt { at, deliver_at, times } = *receipt;
        let sent = *sent.get(number).context("only what was sent can come")?;
        early += usize::from(at < deliver_at || at < sent + delay(number));
        again += usize::from(times > 1);
        let span = at.saturating_duration_since(deliver_at);
        whole.record(span.as_micros() as u64)?;
        late.record((span - down_between(outages, deliver_at, at)).as_micros() as u64)?;
    }
    let missing = MESSAGES - received.len();
    let down: Vec<String> = outages
        .iter()
        .map(|(down, up)| format!("{} ms", up.duration_since(*down).as_millis()))
        .collect();
    println!("the node was killed {} times, and down for {}", outages.len(), down.join(", "));
    println!("\n| messages | early | missing | more than once |\n|---|---|---|---|");
    println!("| {MESSAGES} | {early} | {missing} | {again} |");
    println!("\n| late by, ms | p50 | p99 | longest |\n|---|---|---|---|");
    for (name, spans) in [("while the node was up", &late), ("with the time it was down", &whole)] {
        let millis = |share: f64| spans.value_at_quantile(share) as f64 / 1e3;
        let longest = spans.max() as f64 / 1e3;
        println!("| {name} | {:.2} | {:.2} | {longest:.2} |", millis(0.5), millis(0.99));
    }
    if early + missing > 0 {
        bail!("{early} messages came early and {missing} did not come");
    }
    Ok(())
}
