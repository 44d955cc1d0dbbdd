//! GET /status: the node and the cluster that it is part of.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::nodes::{self, NodeShown};
use super::query::NoQuery;
use super::{Face, json};
use crate::VERSION;
use crate::problem::{Problem, ProblemDocument};

/// The node and its cluster.
#[derive(Serialize, ToSchema)]
pub(super) struct Status<'a> {
    /// What people call the node.
    node_id: &'a str,
    /// The identity that its data directory was born with.
    disk_id: String,
    /// How often it has started.
    boot: u64,
    /// The version of the program.
    version: &'a str,
    /// The address that it tells other nodes.
    address: &'a str,
    /// The port of this API.
    http_port: u16,
    /// For how many seconds it has run.
    uptime: f64,
    /// The identity of the cluster; none before it is founded.
    cluster_id: Option<String>,
    /// The nodes of the cluster.
    cluster_members: Vec<NodeShown>,
    /// The node that decides about the metadata.
    leader: Option<String>,
    /// Whether this one does.
    is_leader: bool,
    /// The version of the metadata.
    metadata_version: u64,
    /// How many topics there are.
    topics: usize,
    /// How many subscriptions there are.
    subscriptions: usize,
    /// How many shards the node has.
    shards: usize,
    /// How its partitions are.
    partitions: Partitions,
}

/// How many partitions the node holds, and how they are.
#[derive(Default, Serialize, ToSchema)]
struct Partitions {
    /// All that it holds.
    held: usize,
    /// Those that it leads and serves.
    serving: usize,
    /// Those whose log is damaged.
    damaged: usize,
}

/// Shows the node and its cluster.
#[utoipa::path(
    get, path = "/status", tag = "status",
    responses(
        (status = 200, description = "The node and its cluster", body = Status),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn status(State(face): State<Face>, _: NoQuery) -> Result<Response, Problem> {
    let view = face.0.node.view();
    let shards = face.describe().await?;
    let mut partitions = Partitions::default();
    for partition in shards.iter().flat_map(|shard| &shard.partitions) {
        partitions.held += 1;
        partitions.serving += usize::from(partition.serving);
        partitions.damaged += usize::from(partition.damaged.is_some());
    }
    let identity = face.0.node.identity();
    let group = face.0.node.group();
    let leader = view.nodes.iter().find(|(_, node)| Some(node.id) == group.leader);
    let status = Status {
        node_id: face.node_id(),
        disk_id: identity.disk.to_string(),
        boot: identity.boot.0,
        version: VERSION,
        address: &face.0.address,
        http_port: face.0.http_port,
        uptime: face.uptime_seconds(),
        cluster_id: view.cluster.map(|cluster| cluster.to_string()),
        cluster_members: nodes::all(&face, &view),
        leader: leader.map(|(_, node)| node.name.clone()),
        is_leader: leader.is_some_and(|(disk, _)| *disk == identity.disk),
        metadata_version: view.version.0,
        topics: view.topics.len(),
        subscriptions: view.subscriptions.len(),
        shards: shards.len(),
        partitions,
    };
    Ok(json(StatusCode::OK, &status))
}
