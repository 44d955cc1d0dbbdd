//! Payloads from 10 bytes to 10 MiB over HTTP, beside plain append and fdatasync of the same
//! bytes.

use std::path::Path;

use super::load::{Form, Load};
use super::node::Node;
use super::{SPAN, append, runtime};

/// The largest body that is sent as a batch.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The most messages in a batch.
const BATCH_MESSAGES_MAX: usize = 1_000;
/// How many connections publish batches or large bodies.
const FEW: usize = 4;
/// How many connections publish a small message a request.
const MANY: usize = 64;

/// Prints the table.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    println!(
        "| payload | batch | append + fdatasync, msg/s | MB/s | HTTP, a request a batch, msg/s \
         | MB/s | ratio | HTTP, a body each, msg/s | MB/s | ratio to append one by one |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, bytes) in [
        ("10 B", 10),
        ("100 B", 100),
        ("1 KiB", 1 << 10),
        ("10 KiB", 10 << 10),
        ("100 KiB", 100 << 10),
        ("1 MiB", 1 << 20),
        ("10 MiB", 10 << 20),
    ] {
        let batch = (BATCH_BYTES_MAX / bytes).clamp(1, BATCH_MESSAGES_MAX);
        let megabytes = |rate: f64| rate * bytes as f64 / 1e6;
        let reference = append::rate(folder, batch, bytes, SPAN)?;
        let batched = if batch > 1 {
            let load = Load { bytes, ..Load::of(FEW, batch) };
            let rate = publish(&folder.join(format!("batched-{bytes}")), load)?;
            format!("{rate:.0} | {:.1} | {:.2}", megabytes(rate), rate / reference)
        } else {
            "– | – | –".to_owned()
        };
        let singly = append::rate(folder, 1, bytes, SPAN)?;
        let connections = if bytes < BATCH_BYTES_MAX { MANY } else { FEW };
        let load = Load { bytes, form: Form::Raw, ..Load::of(connections, 1) };
        let raw = publish(&folder.join(format!("raw-{bytes}")), load)?;
        println!(
            "| {name} | {batch} | {reference:.0} | {:.1} | {batched} | {raw:.0} | {:.1} | {:.2} |",
            megabytes(reference),
            megabytes(raw),
            raw / singly,
        );
    }
    Ok(())
}

fn publish(folder: &Path, load: Load) -> anyhow::Result<f64> {
    let node = Node::start(folder)?;
    let rate = runtime()?.block_on(load.publish(&node.address, SPAN))?;
    drop(node);
    std::fs::remove_dir_all(folder)?;
    Ok(rate)
}
