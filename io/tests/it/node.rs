//! A whole node without its face: start, publish, read back, end, start again.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::{Body, Draft, Envelope, Submission, Terms};
use sprawl_core::ids::{Offset, Source};
use sprawl_core::machine::{FetchFrom, Refused, Request, Response};
use sprawl_io::clock::SystemClock;
use sprawl_io::data_dir::{DataDir, DirError, Name};
use sprawl_io::handle::{Ended, NodeHandle};
use sprawl_io::peer::tcp::TcpSockets;
use sprawl_io::start::{Cluster, Options, StartError, start};
use sprawl_io::storage::rocks::RocksOptions;
use sprawl_io::trace::Untraced;

use crate::folder;

fn options(shards: u16) -> Options {
    let name = Name::Default("node".to_owned());
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let cluster = Cluster::alone(nowhere, nowhere);
    Options { name, shards, cluster, budget: ShardOptions::default(), entropy: [7; 32] }
}

async fn node(path: &Path, shards: u16) -> Result<NodeHandle, StartError> {
    let dir = DataDir::open(path, RocksOptions::default()).expect("the directory is free");
    let sockets = TcpSockets::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let sockets = sockets.expect("a free port");
    start(dir, SystemClock::start(), Untraced, sockets, options(shards)).await
}

fn draft(id: &str) -> Draft {
    let envelope = Envelope {
        id: id.parse().expect("an id"),
        key: None,
        sequence: None,
        content_type: None,
        headers: Vec::new(),
    };
    Draft { envelope, payload: Bytes::from(format!("payload of {id}")) }
}

async fn publish(node: &NodeHandle, id: &str) -> (u64, bool) {
    publish_to(node, "orders", draft(id)).await
}

async fn publish_to(node: &NodeHandle, topic: &str, draft: Draft) -> (u64, bool) {
    let (topic, terms) = (topic.parse().expect("a name"), Terms::default());
    let submission = Submission { source: Source(1), topic, draft, terms };
    match node.request(Request::Publish(submission)).await {
        Response::Published { offset, duplicate, .. } => (offset.0, duplicate),
        other => panic!("{other:?}"),
    }
}

async fn fetch(node: &NodeHandle, topic: &str) -> Response {
    let (topic, from) = (topic.parse().expect("a name"), FetchFrom::Offset(Offset(0)));
    let (partition, count_max, wait) = (0, 1_000, Duration::from_secs(30));
    node.request(Request::Fetch { topic, partition, from, count_max, wait }).await
}

async fn ids(node: &NodeHandle) -> Vec<String> {
    match fetch(node, "orders").await {
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
            if partitions.any(|partition| partition.serving) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), serving).await.expect("it serves");
    ids(node).await
}

/// A table block that does not read costs its partition; what else the node holds is served.
#[tokio::test]
async fn a_damaged_partition_is_refused_and_the_others_are_served() {
    let dir = folder::empty();
    let first = node(dir.path(), 2).await.expect("a node starts");
    for number in 0..200 {
        for topic in ["first", "orders"] {
            let mut large = draft(&format!("{topic}-{number}"));
            // Bytes that do not compress, so that each topic fills blocks of its own.
            let noise = (0..128).map(|word| (number * 131 + word) * 0x9e37_79b9_7f4a_7c15_u128);
            large.payload = noise.flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!(publish_to(&first, topic, large).await, (number as u64, false));
        }
    }
    assert_eq!(first.shutdown().await, Ended::Shutdown);
    folder::flip(&folder::largest(dir.path(), "sst"), 100);

    let again = node(dir.path(), 2).await.expect("it starts again");
    assert_eq!(ids_when_serving(&again).await.len(), 200);
    match fetch(&again, "first").await {
        Response::Refused(refused @ Refused::Damaged(_)) => {
            assert!(!refused.to_string().contains('\n'), "more than a line: {refused}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(publish(&again, "new").await, (200, false));
    assert_eq!(again.shutdown().await, Ended::Shutdown);
}
