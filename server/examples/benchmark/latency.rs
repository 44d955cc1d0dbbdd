//! Latency of durable publishes, and of their delivery, at half of what the node takes, in an open
//! loop: each request is due at its moment, whether or not the node is behind, and its latency
//! counts from that moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use super::connection::take_retries;
use super::delivery::Subscribers;
use super::load::Load;
use super::node::Node;
use super::nodes::Nodes;
use super::system::{RECEIVE_WAIT, System, Writer as _};
use super::{SPAN, runtime};

/// How long the open loop lasts.
const OPEN_SPAN: Duration = Duration::from_secs(15);
/// How many connections publish.
const CONNECTIONS: usize = 64;
/// To how many decimal digits latencies are told apart.
pub(crate) const DIGITS: u8 = 3;

/// Prints the table of one node.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    table(|name| {
        let node = Node::start(&folder.join(name))?;
        let nodes = Nodes::at(std::slice::from_ref(&node.address));
        Ok((node, nodes))
    })
}

/// Prints the table of what is started for each size: who runs, and what clients see of it.
pub(crate) fn table<T, S: System>(
    start: impl Fn(&str) -> anyhow::Result<(T, S)>,
) -> anyhow::Result<()> {
    println!(
        "| messages a request | peak, msg/s | asked, msg/s | subscribed | stored: p50, ms | p99 \
         | p99.9 | longest | delivered: p50, ms | p99 | p99.9 | longest | behind | sent again |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16] {
        let (_running, system) = start(&format!("latency-{batch}"))?;
        let load = Load::of(CONNECTIONS, batch);
        let runtime = runtime()?;
        for is_subscribed in [false, true] {
            let peak = runtime.block_on(peak(&system, load, is_subscribed))?;
            eprintln!("{peak:.0} msg/s at most; half of that for {} s", OPEN_SPAN.as_secs());
            let rate = peak / 2.0;
            let found = runtime.block_on(open(&system, load, rate, is_subscribed))?;
            let stored = percentiles(&found.stored);
            let delivered = found.delivered.as_ref().map_or("| – | – | – | –".into(), percentiles);
            let subscribed = if is_subscribed { "yes" } else { "no" };
            let (behind, retries) = (found.behind, take_retries());
            println!(
                "| {batch} | {peak:.0} | {rate:.0} | {subscribed} {stored} {delivered} \
                 | {behind:.3} | {retries} |"
            );
        }
    }
    Ok(())
}

/// Messages a second that are published, and, where somebody subscribes, received as well.
async fn peak<S: System>(system: &S, load: Load, is_subscribed: bool) -> anyhow::Result<f64> {
    if !is_subscribed {
        return load.publish_to(system, SPAN).await;
    }
    let subscribers = Subscribers::start(system).await?;
    let load = Load { first: 3_000, ..load };
    let began = Instant::now();
    let published = load.publish_to(system, SPAN).await? * began.elapsed().as_secs_f64();
    subscribers.finish().await?;
    // They wait for one more message before they end.
    Ok(published / (began.elapsed() - RECEIVE_WAIT).as_secs_f64())
}

fn percentiles(latencies: &Histogram<u64>) -> String {
    let shares = [0.5, 0.99, 0.999, 1.0].map(|share| latencies.value_at_quantile(share));
    shares.map(|micros| format!("| {:.2}", micros as f64 / 1e3)).join(" ")
}

/// What the open loop found.
struct Found {
    /// In microseconds, from when a request was due to its answer.
    stored: Histogram<u64>,
    /// In microseconds, from when a message was due until a subscriber had it, if there are any.
    delivered: Option<Histogram<u64>>,
    /// Which share of the requests was due when no connection was free.
    behind: f64,
}

/// Publishes at this rate.
async fn open<S: System>(
    system: &S,
    load: Load,
    rate: f64,
    is_subscribed: bool,
) -> anyhow::Result<Found> {
    let subscribers = match is_subscribed {
        true => Some(Arc::new(Subscribers::start(system).await?)),
        false => None,
    };
    // These ids are not those of the closed loop, nor of the other open one.
    let load = Load { first: if is_subscribed { 2_000 } else { 1_000 }, ..load };
    let interval = Duration::from_secs_f64(load.batch as f64 / rate);
    let turns = (OPEN_SPAN.as_secs_f64() / interval.as_secs_f64()) as u64;
    let began = Instant::now();
    let due = pace(began, interval, turns);
    let (next, behind) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for writer in 0..load.connections {
        let (system, next, due) = (system.clone(), next.clone(), due.clone());
        let (behind, subscribers) = (behind.clone(), subscribers.clone());
        writers.push(tokio::spawn(async move {
            let mut client = system.writer(load, writer).await?;
            let mut latencies = Histogram::<u64>::new(DIGITS)?;
            for number in 0.. {
                client.prepare();
                if due.available_permits() > 0 {
                    behind.fetch_add(1, Ordering::Relaxed);
                }
                due.acquire().await?.forget();
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= turns {
                    break;
                }
                let moment = began + interval.mul_f64(turn as f64);
                if let Some(subscribers) = &subscribers {
                    subscribers.expect((load.first + writer, number), moment);
                }
                client.exchange().await?;
                latencies.record(moment.elapsed().as_micros() as u64)?;
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut stored = Histogram::<u64>::new(DIGITS)?;
    for writer in writers {
        stored.add(writer.await??).map_err(|error| anyhow!("{error}"))?;
    }
    let delivered = match subscribers.and_then(Arc::into_inner) {
        Some(subscribers) => Some(subscribers.finish().await?),
        None => None,
    };
    let behind = behind.load(Ordering::Relaxed) as f64 / turns as f64;
    Ok(Found { stored, delivered, behind })
}

/// A permit for each turn, given when it is due by a thread of its own: the runtime's timers round
/// up to the millisecond, which would be counted as the node's latency.
fn pace(began: Instant, interval: Duration, turns: u64) -> Arc<Semaphore> {
    let due = Arc::new(Semaphore::new(0));
    let permits = due.clone();
    std::thread::spawn(move || {
        let mut given = 0;
        while given < turns {
            let passed = began.elapsed();
            let by_now = (passed.as_nanos() / interval.as_nanos().max(1)) as u64 + 1;
            let by_now = by_now.min(turns);
            permits.add_permits((by_now - given) as usize);
            given = by_now;
            let next = interval.mul_f64(given as f64);
            std::thread::park_timeout(next.saturating_sub(began.elapsed()));
        }
        // Whoever waits for one more turn learns that there is none.
        permits.add_permits(CONNECTIONS);
    });
    due
}
