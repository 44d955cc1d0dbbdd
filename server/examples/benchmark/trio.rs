//! Three nodes with three copies of everything beside three servers of NATS JetStream that do the
//! same, on the same disk in the same run; and how long a publish takes at half of what they take.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::batches::{BATCH_CONNECTIONS, read};
use super::connection::{Connection, put, take_retries};
use super::load::{Load, PAYLOAD_BYTES, TOPICS};
use super::nats::{self, Server, config, free_port};
use super::node::Node;
use super::nodes::Nodes;
use super::streams::Streams;
use super::{SPAN, append, latency, runtime};

/// How many nodes, servers, and copies.
const COPIES: usize = 3;
/// When the nodes acknowledge.
const LEVELS: [&str; 2] = ["fsync", "replicated"];

/// Prints the tables.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let program = nats::program();
    println!(
        "| batch | append + fdatasync, msg/s | JetStream R3, its default | fsync | of append | of \
         JetStream's | replicated | of append | of JetStream's | read: JetStream | read: a node \
         | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 128, 1024] {
        let reference = append::rate(folder, batch, PAYLOAD_BYTES, SPAN)?;
        let servers = folder.join(format!("servers-{batch}"));
        let servers = program.as_ref().map(|program| jetstream(program, &servers, batch));
        let (published, taken) = servers.transpose()?.unzip();
        let of = |rate: f64, of: Option<f64>| of.map_or(String::new(), |of| ratio(rate, of));
        let shown = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.0}"));
        let mut row = format!("| {batch} | {reference:.0} | {}", shown(published));
        let mut read = 0.0;
        for level in LEVELS {
            let (rate, read_back) = nodes(&folder.join(format!("{level}-{batch}")), batch, level)?;
            row += &format!(" | {rate:.0} | {} | {}", ratio(rate, reference), of(rate, published));
            read = f64::max(read, read_back);
        }
        println!("{row} | {} | {read:.0} | {} |", shown(taken), of(read, taken));
    }
    match take_retries() {
        0 => {}
        retries => println!("\nrequests sent again after a 503: {retries}"),
    }
    for level in LEVELS {
        println!("\nThree nodes, {level}, at half of what they take:\n");
        latency::table(|name| {
            let folder = folder.join(format!("{level}-{name}"));
            let (nodes, addresses) = runtime()?.block_on(started(&folder, level))?;
            Ok((nodes, Nodes::at(&addresses)))
        })?;
    }
    let Some(program) = program else { return Ok(()) };
    println!(
        "\nThree servers of JetStream R3, its default (not synced before it acknowledges), at \
         half of what they take:\n"
    );
    latency::table(|name| {
        let folder = folder.join(format!("servers-{name}"));
        runtime()?.block_on(async {
            let (servers, addresses) = servers(&program, &folder).await?;
            Ok((servers, Streams::create(addresses).await?))
        })
    })
}

fn ratio(rate: f64, of: f64) -> String {
    format!("{:.2}", rate / of)
}

/// Three nodes with topics that acknowledge at this level, and where they answer.
async fn started(folder: &Path, level: &str) -> anyhow::Result<(Vec<Node>, Vec<String>)> {
    let nodes = Node::cluster(folder, COPIES).await?;
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let mut connection = Connection::open(&addresses[0]).await?;
    let config = format!("{{\"durability\":\"{level}\"}}");
    for topic in 0..TOPICS {
        connection.exchange(&put(&format!("/topics/topic-{topic}"), config.as_bytes())).await?;
    }
    Ok((nodes, addresses))
}

/// Messages a second published through three nodes, and read from one of them.
fn nodes(folder: &Path, batch: usize, level: &str) -> anyhow::Result<(f64, f64)> {
    runtime()?.block_on(async {
        let (_running, addresses) = started(folder, level).await?;
        let load = Load::of(BATCH_CONNECTIONS, batch);
        let published = load.publish_among(&addresses, SPAN).await?;
        Ok((published, read(&addresses[0], SPAN).await?))
    })
}

/// The same of three servers.
fn jetstream(program: &Path, folder: &Path, batch: usize) -> anyhow::Result<(f64, f64)> {
    runtime()?.block_on(async {
        let (_running, addresses) = servers(program, folder).await?;
        let published = nats::publish(&addresses, batch, COPIES).await?;
        if published == 0.0 {
            bail!("the three servers stored nothing");
        }
        Ok((published, nats::read(&addresses[0]).await?))
    })
}

/// Three servers of one cluster, and where they answer.
async fn servers(program: &Path, folder: &Path) -> anyhow::Result<(Vec<Server>, Vec<String>)> {
    let peers = (0..COPIES).map(|_| free_port()).collect::<Result<Vec<u16>, _>>()?;
    let routes: Vec<String> =
        peers.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
    let mut servers = Vec::new();
    for (number, peer) in peers.iter().enumerate() {
        let folder = folder.join(number.to_string());
        let alone = config(&folder, free_port()?, None);
        let routes = routes.join(", ");
        let text = format!(
            "{alone}server_name: s{number}\ncluster {{\n  name: c\n  \
             listen: \"127.0.0.1:{peer}\"\n  routes: [{routes}]\n}}\n"
        );
        let server = Server::start(program, &folder, &text).await?;
        servers.push(server.context("nats-server did not start")?);
    }
    let addresses = servers.iter().map(|one| one.address.clone()).collect();
    Ok((servers, addresses))
}
