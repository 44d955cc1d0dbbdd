//! `sprawlctl cluster …`: nodes go for good, by agreement, or without it where there is none; and
//! what they have to do is evened out.

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::{Method, Url};

use crate::client::Client;
use crate::output::{self, Format, plain};
use crate::{recover, show};

/// For how long a cluster that cannot agree at the moment is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Has the node that is asked leave its cluster for good, once it holds nothing any more
    Leave {
        /// Do not wait for that; what the node alone holds is lost
        #[arg(long)]
        at_once: bool,
    },
    /// Has a node leave the cluster for good, such as one that never comes back
    Decommission {
        /// The node, by its name or its identity
        node: String,
        /// Do not wait until it holds nothing any more; what it alone holds is lost
        #[arg(long)]
        at_once: bool,
    },
    /// Has copies, and the lead of partitions, moved to nodes that have fewer, and shows them
    Rebalance,
    /// Has a node go on alone, from its data directory, when a majority of the voters is lost
    Recover(recover::Arguments),
}

/// Has it agreed on; gives that it was.
pub(crate) async fn administer(
    client: &Client,
    command: Command,
    format: Format,
) -> anyhow::Result<bool> {
    let (path, at_once) = match command {
        Command::Leave { at_once } => ("/cluster/leave".to_owned(), at_once),
        Command::Decommission { node, at_once } => {
            let mut url = Url::parse("http://node/cluster/nodes").context("a URL")?;
            if let Ok(mut path) = url.path_segments_mut() {
                path.push(&node).push("decommission");
            }
            (url.path().to_owned(), at_once)
        }
        Command::Rebalance => return rebalance(client, format).await,
        Command::Recover(arguments) => return recover::go_on(arguments, format).await,
    };
    let path = format!("{path}?at_once={at_once}");
    let answer = client.patient(PATIENCE).ask(Method::POST, &path, None, Duration::ZERO).await?;
    output::line(&match format {
        Format::Json => answer.to_string(),
        Format::Text => {
            let node = plain(&answer["node_id"]);
            format!("{node} leaves; `sprawlctl nodes` lists it until it has gone")
        }
    })?;
    Ok(true)
}

async fn rebalance(client: &Client, format: Format) -> anyhow::Result<bool> {
    let client = client.patient(PATIENCE);
    let answer = client.ask(Method::POST, "/cluster/rebalance", None, Duration::ZERO).await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => {
            let (titles, fields) =
                (["NODE", "PARTITIONS", "LEADS"], ["node_id", "partitions", "leads"]);
            show::items(&answer["nodes"], titles, fields)?;
            output::line(&plain(&answer["status"]))?;
        }
    }
    Ok(true)
}
