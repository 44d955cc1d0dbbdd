//! A whole node without its face: start, publish, read back, end, start again.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::{Body, Draft, Envelope};
use sprawl_core::ids::Offset;
use sprawl_core::machine::{Request, Response};
use sprawl_io::clock::SystemClock;
use sprawl_io::data_dir::{DataDir, DirError, Name};
use sprawl_io::handle::{Ended, NodeHandle};
use sprawl_io::start::{Options, StartError, start};
use sprawl_io::storage::rocks::RocksOptions;
use sprawl_io::trace::Untraced;

fn options(shards: u16) -> Options {
    let name = Name::Default("node".to_owned());
    Options { name, shards, budget: ShardOptions::default(), entropy: [7; 32] }
}

async fn node(path: &Path, shards: u16) -> Result<NodeHandle, StartError> {
    let dir = DataDir::open(path, RocksOptions::default()).expect("the directory is free");
    start(dir, SystemClock::start(), Untraced, options(shards)).await
}

fn draft(id: &str) -> Draft {
    let envelope = Envelope {
        id: id.parse().expect("an id"),
        key: None,
        content_type: None,
        headers: Vec::new(),
    };
    Draft { envelope, payload: Bytes::from(format!("payload of {id}")) }
}

async fn publish(node: &NodeHandle, id: &str) -> (u64, bool) {
    let topic = "orders".parse().expect("a name");
    match node.request(Request::Publish { topic, draft: draft(id) }).await {
        Response::Published { offset, duplicate, .. } => (offset.0, duplicate),
        other => panic!("{other:?}"),
    }
}

async fn ids(node: &NodeHandle) -> Vec<String> {
    let (topic, from) = ("orders".parse().expect("a name"), Offset(0));
    let (partition, count_max, wait) = (0, 1_000, Duration::from_secs(30));
    let fetch = Request::Fetch { topic, partition, from, count_max, wait };
    match node.request(fetch).await {
        Response::Fetched { records, .. } => records
            .iter()
            .map(|record| match record.body() {
                Ok(Body::Message(draft)) => draft.envelope.id.to_string(),
                other => panic!("{other:?}"),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_published_is_there_after_a_restart_with_other_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let node_1 = node(dir.path(), 1).await.expect("a node starts");
    assert_eq!(node_1.identity().boot.0, 1);
    for number in 0..20 {
        assert_eq!(publish(&node_1, &format!("m{number}")).await, (number, false));
    }
    let busy = DataDir::open(dir.path(), RocksOptions::default());
    assert!(matches!(busy, Err(DirError::InUse(_))), "{busy:?}");
    assert_eq!(node_1.shutdown().await, Ended::Shutdown);

    let node_2 = node(dir.path(), 4).await.expect("it starts again");
    assert_eq!(node_2.identity().boot.0, 2);
    let mut found = ids_when_serving(&node_2).await;
    assert_eq!(found.len(), 20);
    assert_eq!(publish(&node_2, "m7").await, (7, true));
    assert_eq!(publish(&node_2, "new").await, (20, false));
    found.push("new".to_owned());
    assert_eq!(ids(&node_2).await, found);
    assert_eq!(node_2.shutdown().await, Ended::Shutdown);
}

/// Waits until the node serves what it holds.
async fn ids_when_serving(node: &NodeHandle) -> Vec<String> {
    let serving = async {
        loop {
            let all = node.describe().await.expect("the shards answer");
            let mut partitions = all.iter().flat_map(|shard| &shard.partitions);
            if partitions.next().is_some_and(|partition| partition.serving) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), serving).await.expect("it serves");
    ids(node).await
}
