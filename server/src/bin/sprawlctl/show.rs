//! `sprawlctl topics`, `subscriptions`, `nodes`, `dht`, `status`: what a node says, in lines or as
//! it is.

use serde_json::Value;

use crate::client::Client;
use crate::output::{self, Format, plain};

/// Lists the topics.
pub(crate) async fn topics(client: &Client, format: Format) -> anyhow::Result<bool> {
    let titles = ["TOPIC", "MESSAGES", "SUBSCRIBERS", "PARTITIONS", "NODES"];
    let fields = ["name", "message_count", "subscriber_count", "partitions", "nodes"];
    list(client, ("/topics", "topics"), titles, fields, format).await
}

/// Lists the durable subscriptions.
pub(crate) async fn subscriptions(client: &Client, format: Format) -> anyhow::Result<bool> {
    let titles = ["SUBSCRIPTION", "TOPICS", "FROM", "ACK WAIT, S"];
    let fields = ["id", "topics", "from", "ack_wait"];
    list(client, ("/subscriptions", "subscriptions"), titles, fields, format).await
}

/// Lists the nodes of the cluster.
pub(crate) async fn nodes(client: &Client, format: Format) -> anyhow::Result<bool> {
    list(client, ("/cluster/status", "nodes"), NODE_TITLES, NODE_FIELDS, format).await
}

/// What is shown of a node, under which titles.
const NODE_FIELDS: [&str; 8] =
    ["node_id", "state", "role", "down_since", "leaving", "partitions", "http_address", "zone"];
const NODE_TITLES: [&str; 8] =
    ["NODE", "STATE", "ROLE", "DOWN SINCE", "LEAVING", "PARTITIONS", "HTTP", "ZONE"];

/// Shows where each topic is.
pub(crate) async fn dht(client: &Client, format: Format) -> anyhow::Result<bool> {
    let answer = client.get("/dht").await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => {
            let titles = ["KEY", "TOPIC", "PARTITION", "EPOCH", "OWNERS"];
            let mut rows = vec![titles.map(str::to_owned).to_vec()];
            for (key, parts) in answer["topic_map"].as_object().into_iter().flatten() {
                for part in parts.as_array().into_iter().flatten() {
                    let fields = ["topic", "partition", "epoch", "owners"];
                    let cells = fields.map(|field| plain(&part[field]));
                    rows.push(
                        [key.chars().take(KEY_CHARS).collect()].into_iter().chain(cells).collect(),
                    );
                }
            }
            output::table(&rows)?;
        }
    }
    Ok(true)
}

/// How many digits of a key are shown in lines: enough to tell them apart.
const KEY_CHARS: usize = 12;

/// Lists what an endpoint has under a name: these fields of each, under these titles.
async fn list<const N: usize>(
    client: &Client,
    (path, name): (&str, &str),
    titles: [&str; N],
    fields: [&str; N],
    format: Format,
) -> anyhow::Result<bool> {
    let answer = client.get(path).await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => items(&answer[name], titles, fields)?,
    }
    Ok(true)
}

/// Prints a list as a table: these fields of each, under these titles.
pub(crate) fn items<const N: usize>(
    list: &Value,
    titles: [&str; N],
    fields: [&str; N],
) -> anyhow::Result<()> {
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    rows.extend(items.iter().map(|item| fields.map(|f| plain(&item[f])).to_vec()));
    output::table(&rows)
}

/// Shows a node and its cluster.
pub(crate) async fn status(client: &Client, format: Format) -> anyhow::Result<bool> {
    let answer = client.get("/status").await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => {
            let mut rows = Vec::new();
            let fields = answer.as_object().into_iter().flatten();
            for (name, value) in fields.filter(|(name, _)| *name != MEMBERS) {
                rows.push(vec![name.clone(), field(value)]);
            }
            output::table(&rows)?;
            output::line("")?;
            items(&answer[MEMBERS], NODE_TITLES, NODE_FIELDS)?;
        }
    }
    Ok(true)
}

/// The field of the status that has the nodes.
const MEMBERS: &str = "cluster_members";

/// A field of the status: an object as `name value` pairs.
fn field(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name} {}", field(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(field).collect::<Vec<_>>().join("; "),
        Value::Number(number) if number.is_f64() => {
            format!("{:.1}", number.as_f64().unwrap_or_default())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => plain(value),
    }
}
