//! Batches of 1 KiB: in the process and over HTTP, beside plain append and fdatasync.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::connection::{Connection, get};
use super::load::{Load, PAYLOAD_BYTES, Requests};
use super::node::Node;
use super::{SPAN, append, process, runtime};

/// How many connections publish batches.
pub(crate) const BATCH_CONNECTIONS: usize = 4;
/// How many connections read.
pub(crate) const READ_CONNECTIONS: usize = 2;
/// How long a node is left alone before its memory is that of an idle one.
const REST: Duration = Duration::from_secs(2);

/// Prints the table; `only` is the one batch that is wanted.
pub(crate) fn run(folder: &Path, only: Option<usize>) -> anyhow::Result<()> {
    println!(
        "| batch | append + fdatasync, msg/s | in process | ratio | HTTP, a request each | ratio \
         | HTTP, a request a batch | ratio | read back |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 32, 64, 128, 1024] {
        if only.is_some_and(|only| only != batch) {
            continue;
        }
        let reference = append::rate(folder, batch, PAYLOAD_BYTES, SPAN)?;
        let process = process::rate(&folder.join(format!("process-{batch}")), batch, SPAN)?;
        let node = Node::start(&folder.join(format!("singly-{batch}")))?;
        let singly = runtime()?.block_on(Load::of(batch, 1).publish(&node.address, SPAN))?;
        drop(node);
        let (batched, read) = batched(&folder.join(format!("batched-{batch}")), batch)?;
        println!(
            "| {batch} | {reference:.0} | {process:.0} | {:.2} | {singly:.0} | {:.2} \
             | {batched:.0} | {:.2} | {read:.0} |",
            process / reference,
            singly / reference,
            batched / reference,
        );
    }
    let (start, idle) = idle(&folder.join("idle"))?;
    println!("\nfrom the start of the process to its first answer: {} ms", start.as_millis());
    println!("resident memory of an idle node: {:.1} MB", idle as f64 / 1e6);
    Ok(())
}

/// Messages per second, `batch` to a request, over a few connections; and how many a second are
/// read back.
pub(crate) fn batched(folder: &Path, batch: usize) -> anyhow::Result<(f64, f64)> {
    let node = Node::start(folder)?;
    runtime()?.block_on(async {
        let published = Load::of(BATCH_CONNECTIONS, batch).publish(&node.address, SPAN).await?;
        Ok((published, read(&node.address, SPAN).await?))
    })
}

/// Reads the first topic from its beginning, again and again.
pub(crate) async fn read(address: &str, span: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut readers = Vec::new();
    for _ in 0..READ_CONNECTIONS {
        let address = address.to_owned();
        readers.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let (mut offset, mut count) = (0u64, 0u64);
            while began.elapsed() < span {
                let request = get(&format!("/topics/topic-0/messages?offset={offset}&max=1000"));
                let answer = connection.exchange(&request).await?;
                let tail = String::from_utf8_lossy(&answer[answer.len().saturating_sub(120)..]);
                let number = |name: &str| {
                    let after = tail.split_once(name)?.1;
                    after.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
                };
                let next = number("\"next_offset\":").context("a page says where to go on")?;
                count += next - offset;
                let end = number("\"end_offset\":").context("a page says where the end is")?;
                offset = if next == end { 0 } else { next };
            }
            anyhow::Ok(count)
        }));
    }
    let mut count = 0;
    for reader in readers {
        count += reader.await??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// How long a new node takes to its first stored message, and the resident bytes of an idle one.
fn idle(folder: &Path) -> anyhow::Result<(Duration, u64)> {
    let began = Instant::now();
    let node = Node::start(folder)?;
    runtime()?.block_on(async {
        let mut connection = Connection::open(&node.address).await?;
        connection.exchange(&Requests::of(Load::of(1, 1), 0).following()).await?;
        let first = began.elapsed();
        tokio::time::sleep(REST).await;
        Ok((first, node.resident()?))
    })
}
