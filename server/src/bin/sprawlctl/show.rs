//! `sprawlctl topics`, `subscriptions`, `status`: what a node says, in lines or as it is.

use serde_json::Value;

use crate::client::Client;
use crate::output::{self, Format, plain};

/// Lists the topics.
pub(crate) async fn topics(client: &Client, format: Format) -> anyhow::Result<bool> {
    let titles = ["TOPIC", "MESSAGES", "SUBSCRIBERS", "PARTITIONS", "NODES"];
    let fields = ["name", "message_count", "subscriber_count", "partitions", "nodes"];
    list(client, "topics", titles, fields, format).await
}

/// Lists the durable subscriptions.
pub(crate) async fn subscriptions(client: &Client, format: Format) -> anyhow::Result<bool> {
    let titles = ["SUBSCRIPTION", "TOPICS", "FROM", "ACK WAIT, S"];
    let fields = ["id", "topics", "from", "ack_wait"];
    list(client, "subscriptions", titles, fields, format).await
}

/// Lists what the node has under a name: these fields of each, under these titles.
async fn list<const N: usize>(
    client: &Client,
    name: &str,
    titles: [&str; N],
    fields: [&str; N],
    format: Format,
) -> anyhow::Result<bool> {
    let answer = client.get(&format!("/{name}")).await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => {
            let mut rows = vec![titles.map(str::to_owned).to_vec()];
            let items = answer[name].as_array().map_or(&[][..], Vec::as_slice);
            rows.extend(items.iter().map(|item| fields.map(|f| plain(&item[f])).to_vec()));
            output::table(&rows)?;
        }
    }
    Ok(true)
}

/// Shows a node and its cluster.
pub(crate) async fn status(client: &Client, format: Format) -> anyhow::Result<bool> {
    let answer = client.get("/status").await?;
    match format {
        Format::Json => output::line(&answer.to_string())?,
        Format::Text => {
            let mut rows = Vec::new();
            for (name, value) in answer.as_object().into_iter().flatten() {
                rows.push(vec![name.clone(), field(value)]);
            }
            output::table(&rows)?;
        }
    }
    Ok(true)
}

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
