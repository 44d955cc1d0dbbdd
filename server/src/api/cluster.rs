//! GET /cluster/status: the whole cluster as this node sees it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::metadata::{Partition, View};
use sprawl_core::machine::{ControlRequest, ControlResponse, ControlStatus};
use utoipa::ToSchema;

use super::nodes::{self, NodeShown};
use super::query::NoQuery;
use super::{ANSWER_WAIT_MAX, Face, json};
use crate::duration;
use crate::problem::{Problem, ProblemDocument};

/// How many partitions a list names at most.
const NAMED_MAX: usize = 100;

/// The cluster.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterShown {
    /// The node that says so.
    node_id: String,
    /// The identity of the cluster; none before it is founded.
    cluster_id: Option<String>,
    /// The node that decides about the metadata; none while nobody does.
    leader: Option<String>,
    /// The reign of that node.
    term: u64,
    /// Whether this node decides for the cluster.
    acts: bool,
    /// Whether this run of the node is registered.
    registered: bool,
    /// Cluster time.
    time: String,
    /// By how many seconds this node's clock differs from it, if that is too much.
    clock_off: Option<f64>,
    /// The version of the metadata.
    metadata_version: u64,
    /// The nodes.
    nodes: Vec<NodeShown>,
    /// Who has been heard when, on a node that votes; nobody elsewhere.
    sessions: Vec<SessionShown>,
    /// The partitions.
    partitions: PartitionsShown,
}

/// A node as its heartbeats show it.
#[derive(Serialize, ToSchema)]
struct SessionShown {
    /// The node.
    node_id: String,
    /// For how many seconds it has been silent.
    silent: f64,
    /// How far it has applied the metadata.
    metadata_version: u64,
}

/// The partitions.
#[derive(Serialize, ToSchema)]
struct PartitionsShown {
    /// How many there are.
    count: usize,
    /// How many have nobody who runs and leads them.
    leaderless: usize,
    /// Those, as `TOPIC/NUMBER`, at most 100 of them.
    leaderless_partitions: Vec<String>,
    /// How many are held by fewer nodes that run than their topic asks for.
    under_replicated: usize,
    /// Those, as `TOPIC/NUMBER`, at most 100 of them.
    under_replicated_partitions: Vec<String>,
}

/// Shows the whole cluster.
#[utoipa::path(
    get, path = "/cluster/status", tag = "cluster",
    responses(
        (status = 200, description = "The cluster", body = ClusterShown),
        (status = 503, description = "Try again", body = ProblemDocument),
        (status = 504, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn status(State(face): State<Face>, _: NoQuery) -> Result<Response, Problem> {
    let control = control_status(&face).await?;
    let view = face.0.node.view();
    let leader = control.raft.leader.and_then(|id| view.disk_of(id));
    let sessions = control.sessions.iter().map(|session| SessionShown {
        node_id: nodes::name(&view, session.disk),
        silent: session.silent.as_secs_f64(),
        metadata_version: session.applied.0,
    });
    let shown = ClusterShown {
        node_id: face.node_id().to_owned(),
        cluster_id: view.cluster.map(|cluster| cluster.to_string()),
        leader: leader.map(|disk| nodes::name(&view, disk)),
        term: control.raft.term,
        acts: control.acts,
        registered: control.is_registered,
        time: duration::rfc3339(control.time),
        clock_off: control.clock_off.map(|off| off.as_secs_f64()),
        metadata_version: view.version.0,
        nodes: nodes::all(&face, &view),
        sessions: sessions.collect(),
        partitions: PartitionsShown::of(&view),
    };
    Ok(json(StatusCode::OK, &shown))
}

/// How the control plane stands.
///
/// # Errors
///
/// 503 or 504 when it does not say.
pub(super) async fn control_status(face: &Face) -> Result<ControlStatus, Problem> {
    let asked = face.0.node.control(ControlRequest::Status);
    let answered = tokio::time::timeout(ANSWER_WAIT_MAX, asked).await;
    match answered.unwrap_or(ControlResponse::Unknown) {
        ControlResponse::Status(status) => Ok(status),
        ControlResponse::Refused(refused) => Err(refused.into()),
        ControlResponse::Unknown => Err(Problem::outcome_unknown()),
        ControlResponse::Done | ControlResponse::Subscribed { .. } => {
            panic!("a question was answered as a change")
        }
    }
}

impl PartitionsShown {
    fn of(view: &View) -> Self {
        let named = |is_one: fn(&View, &Partition) -> bool| {
            let all: Vec<_> = view.partitions.values().filter(|one| is_one(view, one)).collect();
            let name = |one: &&Arc<Partition>| format!("{}/{}", one.topic, one.number);
            (all.len(), all.iter().take(NAMED_MAX).map(name).collect())
        };
        let (leaderless, leaderless_partitions) = named(View::is_leaderless);
        let (under_replicated, under_replicated_partitions) = named(View::is_under_replicated);
        Self {
            count: view.partitions.len(),
            leaderless,
            leaderless_partitions,
            under_replicated,
            under_replicated_partitions,
        }
    }
}
