//! `sprawlctl cluster recover`: one node goes on alone when a majority of the voters is lost.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde_json::json;
use sprawl_io::data_dir::{DataDir, IDENTITY_FILE, REFUSED_FILE};
use sprawl_io::raft::recover::{Remains, recover, survey};
use sprawl_io::storage::rocks::RocksOptions;

use crate::output::{self, Format};

/// Which node goes on, and with whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data directory of the node that goes on; it must not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Another node that has survived and stays a member; all that are not named are retired
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    /// Do it: nobody agrees to it, and what only the lost nodes knew is lost
    #[arg(long = "unsafe")]
    is_unsafe: bool,
}

/// Says what it costs, and does it where `--unsafe` stands; gives whether it was done.
pub(crate) async fn go_on(arguments: Arguments, format: Format) -> anyhow::Result<bool> {
    let Arguments { data_dir, keep, is_unsafe } = arguments;
    let at = data_dir.display();
    ensure!(data_dir.join(IDENTITY_FILE).is_file(), "{at} is no data directory of a node");
    if let Ok(why) = std::fs::read_to_string(data_dir.join(REFUSED_FILE)) {
        bail!("the node of {at} was refused for good, and does not start: {}", why.trim());
    }
    let disk = DataDir::open(&data_dir, RocksOptions::default())?;
    let remains = survey(&disk, &keep).await?;
    if is_unsafe {
        recover(&disk, &keep).await?;
    }
    match format {
        Format::Json => output::line(&as_json(&remains, is_unsafe).to_string())?,
        Format::Text => output::line(&as_text(&remains, &data_dir, is_unsafe))?,
    }
    Ok(is_unsafe)
}

fn as_json(remains: &Remains, done: bool) -> serde_json::Value {
    let Remains { node, cluster, end, lost, kept, topics } = remains;
    let topics: serde_json::Map<String, serde_json::Value> =
        topics.iter().map(|(name, count)| (name.as_str().to_owned(), json!(count))).collect();
    json!({
        "done": done, "node_id": node, "cluster_id": cluster.to_string(),
        "term": end.0, "index": end.1, "retired": lost, "kept": kept, "lost_partitions": topics,
    })
}

fn as_text(remains: &Remains, data: &Path, done: bool) -> String {
    let Remains { node, cluster, end: (term, index), lost, kept, topics } = remains;
    let mut lines = vec![
        format!("node {node} goes on with cluster {cluster}, as of term {term}, entry {index}"),
        format!("WARNING: retired for good, with all that they alone hold: {}", lost.join(", ")),
        "WARNING: what they agreed on and this node never received is forgotten: of several \
         survivors take the one with the greatest term, then the greatest entry, and only that \
         one; any other choice makes the metadata of those that are kept differ from its own"
            .to_owned(),
        "WARNING: a lost node that runs on elsewhere makes a second cluster: see that each is off"
            .to_owned(),
    ];
    if topics.is_empty() {
        lines.push("every partition is on a node that stays".to_owned());
    }
    for (topic, count) in topics {
        lines.push(format!("WARNING: {count} partitions of topic {topic} are on lost nodes only"));
    }
    if !kept.is_empty() {
        let kept = kept.join(", ");
        lines.push(format!("these stay members; start them after this node: {kept}"));
    }
    let data = data.display();
    lines.push(if done {
        format!("done: start the node with --data-dir {data}")
    } else {
        "nothing was changed: --unsafe does it".to_owned()
    });
    lines.join("\n")
}
