//! Few topics and many: the rate of publishes spread over them, the memory of the node, and how
//! long it takes to be ready again after it was killed.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;

use super::connection::{Connection, post};
use super::load::{Form, Load, PAYLOAD_BYTES, Topics};
use super::node::Node;
use super::{SPAN, append, runtime};

/// Messages in a request.
const BATCH: usize = 1_000;
/// How many connections publish.
const CONNECTIONS: usize = 4;
/// How many times the making of a topic is asked for.
const TRIES_MAX: usize = 100;

/// Prints the table.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let reference = append::rate(folder, BATCH, PAYLOAD_BYTES, SPAN)?;
    println!("append + fdatasync of batches of {BATCH}: {reference:.0} msg/s\n");
    println!(
        "| topics | made in, s | resident then, MB | publish, msg/s | of append | of one topic's \
         | processor, µs a message | resident then, MB | ready again after a kill, ms \
         | resident then, MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut one = None;
    for topics in [1, 100, 10_000] {
        let folder = folder.join(format!("topics-{topics}"));
        let node = Node::start(&folder)?;
        let runtime = runtime()?;
        let began = Instant::now();
        runtime.block_on(make(&node.address, topics))?;
        let (made, empty) = (began.elapsed().as_secs_f64(), megabytes(&node)?);
        let topics_used = Topics::ByMessage(topics);
        let load = Load { topics: topics_used, form: Form::Json, ..Load::of(CONNECTIONS, BATCH) };
        let before = node.processor()?;
        let rate = runtime.block_on(load.publish(&node.address, SPAN))?;
        let micros = (node.processor()? - before) * 1e6 / (rate * SPAN.as_secs_f64());
        let full = megabytes(&node)?;
        drop(node);
        let began = Instant::now();
        let node = Node::start(&folder)?;
        runtime.block_on(node.ready())?;
        let ready = began.elapsed().as_millis();
        println!(
            "| {topics} | {made:.2} | {empty} | {rate:.0} | {:.2} | {:.2} | {micros:.1} | {full} \
             | {ready} | {} |",
            rate / reference,
            rate / *one.get_or_insert(rate),
            megabytes(&node)?,
        );
    }
    Ok(())
}

fn megabytes(node: &Node) -> anyhow::Result<u64> {
    Ok(node.resident()? / 1_000_000)
}

/// Makes the topics by a first message to each.
async fn make(address: &str, topics: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    let all: Vec<usize> = (0..topics).collect();
    for (at, some) in all.chunks(BATCH).enumerate() {
        let line = |topic: &usize| {
            format!("{{\"topic\":\"topic-{topic}\",\"id\":\"first-{topic}\",\"payload\":\"\"}}\n")
        };
        let request = post("/publish/batch", some.iter().map(line).collect::<String>().as_bytes());
        let mut tries = 0;
        // What was refused, and may be taken yet, is asked for again, under the same ids.
        while connection.converse(&request).await?.status != 200 {
            tries += 1;
            if tries == TRIES_MAX {
                bail!("some of {topics} topics were not made");
            }
        }
        if topics > BATCH {
            eprint!("\r{} of {topics} topics made", at * BATCH + some.len());
        }
    }
    if topics > BATCH {
        eprintln!();
    }
    Ok(())
}
