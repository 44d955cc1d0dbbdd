//! Latency of durable publishes at half of what the node takes, in an open loop: each request is
//! due at its moment, whether or not the node is behind, and its latency counts from that moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use super::connection::Connection;
use super::load::{Load, Requests};
use super::node::Node;
use super::{SPAN, runtime};

/// How long the open loop lasts.
const OPEN_SPAN: Duration = Duration::from_secs(15);
/// How many connections publish.
const CONNECTIONS: usize = 64;
/// To how many decimal digits latencies are told apart.
const DIGITS: u8 = 3;

/// Prints the table of one node.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    table(|name| {
        let node = Node::start(&folder.join(name))?;
        let address = node.address.clone();
        Ok((node, vec![address]))
    })
}

/// Prints the table of what is started for each row: who runs, and where they answer.
pub(crate) fn table<T>(
    start: impl Fn(&str) -> anyhow::Result<(T, Vec<String>)>,
) -> anyhow::Result<()> {
    println!(
        "| messages a request | peak, msg/s | asked, msg/s | p50, ms | p99 | p99.9 | longest \
         | share of the time behind |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for batch in [1, 16] {
        let (_running, addresses) = start(&format!("latency-{batch}"))?;
        let load = Load::of(CONNECTIONS, batch);
        let (peak, found) = runtime()?.block_on(async {
            let peak = load.publish_among(&addresses, SPAN).await?;
            eprintln!("{peak:.0} msg/s at most; half of that for {} s", OPEN_SPAN.as_secs());
            anyhow::Ok((peak, open(&addresses, load, peak / 2.0).await?))
        })?;
        let millis = |share: f64| found.latencies.value_at_quantile(share) as f64 / 1e3;
        println!(
            "| {batch} | {peak:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} |",
            peak / 2.0,
            millis(0.5),
            millis(0.99),
            millis(0.999),
            found.latencies.max() as f64 / 1e3,
            found.behind,
        );
    }
    Ok(())
}

/// What the open loop found.
struct Found {
    /// In microseconds, from when a request was due to its answer.
    latencies: Histogram<u64>,
    /// Which share of the requests was due when no connection was free.
    behind: f64,
}

/// Publishes at this rate.
async fn open(addresses: &[String], load: Load, rate: f64) -> anyhow::Result<Found> {
    let interval = Duration::from_secs_f64(load.batch as f64 / rate);
    let turns = (OPEN_SPAN.as_secs_f64() / interval.as_secs_f64()) as u64;
    let began = Instant::now();
    let due = pace(began, interval, turns);
    let (next, behind) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for writer in 0..load.connections {
        let address = addresses[writer % addresses.len()].clone();
        let (next, due) = (next.clone(), due.clone());
        let behind = behind.clone();
        writers.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            // These ids are not those of the closed loop.
            let mut requests = Requests::of(load, writer + 1_000);
            let mut latencies = Histogram::<u64>::new(DIGITS)?;
            loop {
                // The request is written before it is due, so that writing it costs no latency.
                let request = requests.following();
                if due.available_permits() > 0 {
                    behind.fetch_add(1, Ordering::Relaxed);
                }
                due.acquire().await?.forget();
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= turns {
                    return anyhow::Ok(latencies);
                }
                let moment = began + interval.mul_f64(turn as f64);
                connection.exchange(&request).await?;
                latencies.record(moment.elapsed().as_micros() as u64)?;
            }
        }));
    }
    let mut latencies = Histogram::<u64>::new(DIGITS)?;
    for writer in writers {
        latencies.add(writer.await??).map_err(|error| anyhow!("{error}"))?;
    }
    let behind = behind.load(Ordering::Relaxed) as f64 / turns as f64;
    Ok(Found { latencies, behind })
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
