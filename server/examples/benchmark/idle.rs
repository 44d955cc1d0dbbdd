//! What nodes cost that have nothing to do: processor time, wakeups, bytes and datagrams a second,
//! of one node, three and ten.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::connection::{Connection, get};
use super::node::Node;

/// For how long it is measured.
const SPAN: Duration = Duration::from_secs(30);
/// How long nodes are left alone before: what a start leaves to be done is done by then.
const REST: Duration = Duration::from_secs(10);

/// What a node has taken so far.
#[derive(Clone, Copy, Default)]
struct Taken {
    processor: f64,
    wakeups: f64,
    sent: f64,
    datagrams: f64,
}

pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    println!(
        "| nodes | processor, % of a core | wakeups/s | TCP bytes/s sent | datagrams/s sent |"
    );
    println!("|---|---|---|---|---|");
    for count in [1, 3, 10] {
        let each = super::runtime()?.block_on(measure(&folder.join(count.to_string()), count))?;
        let of = |what: fn(&Taken) -> f64| {
            let values = || each.iter().map(what);
            let mean = values().sum::<f64>() / count as f64;
            format!("{mean:.1} (most {:.1})", values().fold(0.0, f64::max))
        };
        let processor = of(|taken| taken.processor * 100.0);
        let (wakeups, sent) = (of(|taken| taken.wakeups), of(|taken| taken.sent));
        let datagrams = of(|taken| taken.datagrams);
        println!("| {count} | {processor} | {wakeups} | {sent} | {datagrams} |");
    }
    Ok(())
}

/// What each of so many nodes takes in a second.
async fn measure(folder: &Path, count: usize) -> anyhow::Result<Vec<Taken>> {
    let nodes = Node::cluster(folder, count).await?;
    tokio::time::sleep(REST).await;
    let mut before = Vec::new();
    for node in &nodes {
        before.push((taken(node).await?, Instant::now()));
    }
    tokio::time::sleep(SPAN).await;
    let mut each = Vec::new();
    for (node, (before, since)) in nodes.iter().zip(before) {
        let (now, seconds) = (taken(node).await?, since.elapsed().as_secs_f64());
        each.push(Taken {
            processor: (now.processor - before.processor) / seconds,
            wakeups: (now.wakeups - before.wakeups) / seconds,
            sent: (now.sent - before.sent) / seconds,
            datagrams: (now.datagrams - before.datagrams) / seconds,
        });
    }
    Ok(each)
}

async fn taken(node: &Node) -> anyhow::Result<Taken> {
    let mut connection = Connection::open(&node.address).await?;
    let answer = connection.converse(&get("/metrics")).await?;
    let text = String::from_utf8_lossy(answer.body).into_owned();
    let counted = |event: &str| {
        let label = format!("what=\"{event}\"");
        let mut lines = text.lines().filter(|line| line.starts_with("sprawl_peer_events"));
        let line = lines.find(|line| line.contains(&label)).context("a counter of the network")?;
        let value = line.rsplit(' ').next().context("its value")?;
        anyhow::Ok(value.parse::<f64>()?)
    };
    Ok(Taken {
        processor: node.processor()?,
        wakeups: node.wakeups()?,
        sent: counted("bytes_sent")?,
        datagrams: counted("datagrams_sent")?,
    })
}
