//! Three nodes with three copies of everything beside three servers of NATS JetStream that do the
//! same, on the same disk in the same run; and how long a publish takes at half of what they take.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::batches::{BATCH_CONNECTIONS, read};
use super::load::{Load, PAYLOAD_BYTES};
use super::nats::{self, Server, config, free_port};
use super::node::Node;
use super::{SPAN, append, latency, runtime};

/// How many nodes, servers, and copies.
const COPIES: usize = 3;

/// Prints the tables.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let program = nats::program();
    println!(
        "| batch | append + fdatasync, msg/s | JetStream R3, its default | three nodes | of append \
         | of JetStream's | read: JetStream | read: a node | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 128, 1024] {
        let reference = append::rate(folder, batch, PAYLOAD_BYTES, SPAN)?;
        let servers = folder.join(format!("servers-{batch}"));
        let servers = program.as_ref().map(|program| jetstream(program, &servers, batch));
        let servers = servers.transpose()?;
        let (rate, read) = nodes(&folder.join(format!("nodes-{batch}")), batch)?;
        let (published, taken, of_published, of_taken) = match servers {
            Some((published, taken)) => (
                format!("{published:.0}"),
                format!("{taken:.0}"),
                format!("{:.2}", rate / published),
                format!("{:.2}", read / taken),
            ),
            None => Default::default(),
        };
        println!(
            "| {batch} | {reference:.0} | {published} | {rate:.0} | {:.2} | {of_published} \
             | {taken} | {read:.0} | {of_taken} |",
            rate / reference,
        );
    }
    println!("\nThree nodes, at half of what they take:\n");
    latency::table(|name| {
        let folder = folder.join(name);
        let nodes = runtime()?.block_on(Node::cluster(&folder, COPIES))?;
        let addresses = addresses(&nodes);
        Ok((nodes, addresses))
    })
}

fn addresses(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(|node| node.address.clone()).collect()
}

/// Messages a second published through three nodes, and read from one of them.
fn nodes(folder: &Path, batch: usize) -> anyhow::Result<(f64, f64)> {
    runtime()?.block_on(async {
        let nodes = Node::cluster(folder, COPIES).await?;
        let addresses = addresses(&nodes);
        let load = Load::of(BATCH_CONNECTIONS, batch);
        let published = load.publish_among(&addresses, SPAN).await?;
        Ok((published, read(&addresses[0], SPAN).await?))
    })
}

/// The same of three servers.
fn jetstream(program: &Path, folder: &Path, batch: usize) -> anyhow::Result<(f64, f64)> {
    let peers = (0..COPIES).map(|_| free_port()).collect::<Result<Vec<u16>, _>>()?;
    let routes: Vec<String> =
        peers.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
    runtime()?.block_on(async {
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
        let addresses: Vec<String> = servers.iter().map(|one| one.address.clone()).collect();
        let published = nats::publish(&addresses, batch, COPIES).await?;
        if published == 0.0 {
            bail!("the three servers stored nothing");
        }
        Ok((published, nats::read(&addresses[0]).await?))
    })
}
