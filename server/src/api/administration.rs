//! POST /cluster/leave, /cluster/nodes/{id}/decommission and /cluster/rebalance: a node goes for
//! good, and what the others have to do is evened out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::metadata::{Leaving, View};
use sprawl_core::cluster::placement;
use sprawl_core::ids::{DiskId, SubscriptionId};
use sprawl_core::machine::ControlRequest;
use utoipa::ToSchema;

use super::nodes::{self, NodeShown};
use super::query::{Named, Query};
use super::{Face, forms, json};
use crate::problem::{Kind, Problem, ProblemDocument};

/// What was agreed.
#[derive(Serialize, ToSchema)]
pub(super) struct Leaves {
    /// `leaving`: `/cluster/status` shows when the node has gone.
    status: &'static str,
    /// The node.
    node_id: String,
}

/// What nodes have to do.
#[derive(Serialize, ToSchema)]
pub(super) struct Balance {
    /// `balanced`, or `balancing` where some have more than their share: something is moved, unless
    /// zones or capacities do not allow it.
    status: &'static str,
    /// What each of them holds and leads now.
    nodes: Vec<NodeShown>,
}

/// Has this node leave its cluster for good, as soon as it holds no partition any more.
#[utoipa::path(
    post, path = "/cluster/leave", tag = "cluster",
    params(("at_once" = Option<bool>, Query,
        description = "`true` does not wait; what the node alone holds is lost")),
    responses(
        (status = 200, description = "It is agreed", body = Leaves),
        (status = 409, description = "Nobody would be left", body = ProblemDocument),
        (status = 503, description = "Not agreed; try again", body = ProblemDocument),
        (status = 504, description = "Not known; try again", body = ProblemDocument),
    )
)]
pub(super) async fn leave(State(face): State<Face>, query: Query) -> Result<Response, Problem> {
    let how = how(query)?;
    decide(&face, face.0.node.identity().disk, how).await
}

/// Has a node leave the cluster for good, as soon as it holds no partition any more.
#[utoipa::path(
    post, path = "/cluster/nodes/{id}/decommission", tag = "cluster",
    params(
        ("id" = inline(forms::Name), Path, description = "The node, by its name or its identity"),
        ("at_once" = Option<bool>, Query,
            description = "`true` does not wait; what the node alone holds is lost"),
    ),
    responses(
        (status = 200, description = "It is agreed", body = Leaves),
        (status = 404, description = "There is no such node", body = ProblemDocument),
        (status = 409, description = "Nobody would be left", body = ProblemDocument),
        (status = 503, description = "Not agreed; try again", body = ProblemDocument),
        (status = 504, description = "Not known; try again", body = ProblemDocument),
    )
)]
pub(super) async fn decommission(
    State(face): State<Face>,
    node: Named,
    query: Query,
) -> Result<Response, Problem> {
    let how = how(query)?;
    let disk = find(&face.0.node.view(), &node)?;
    decide(&face, disk, how).await
}

/// Has copies of partitions, and then their lead, moved to nodes that have fewer, without waiting
/// until the cluster does that by itself.
#[utoipa::path(
    post, path = "/cluster/rebalance", tag = "cluster",
    responses(
        (status = 200, description = "The controller is asked to", body = Balance),
        (status = 503, description = "Nobody leads at the moment; try again",
            body = ProblemDocument),
        (status = 504, description = "Not known; try again", body = ProblemDocument),
    )
)]
pub(super) async fn rebalance(State(face): State<Face>, query: Query) -> Result<Response, Problem> {
    query.end("")?;
    face.change(ControlRequest::Rebalance).await?;
    let view = face.0.node.view();
    let status = if placement::is_even(&view) { "balanced" } else { "balancing" };
    Ok(json(StatusCode::OK, &Balance { status, nodes: nodes::all(&face, &view) }))
}

fn how(mut query: Query) -> Result<Leaving, Problem> {
    let how = match query.take("at_once").as_deref() {
        None | Some("false") => Leaving::Empty,
        Some("true") => Leaving::AtOnce,
        Some(other) => {
            let detail = format!("at_once: '{other}' is neither true nor false");
            return Err(Problem::new(Kind::Impossible, detail));
        }
    };
    query.end("at_once")?;
    Ok(how)
}

/// The node of a name or an identity.
fn find(view: &View, node: &Named) -> Result<DiskId, Problem> {
    let Named(id) = node;
    let by_disk = || view.nodes.keys().find(|disk| disk.to_string() == *id).copied();
    if let Some(disk) = view.named(id).or_else(by_disk) {
        return Ok(disk);
    }
    // A node is called by its address unless somebody says otherwise.
    let plain = id.replace([':', '[', ']'], "-");
    Named(plain).parse::<SubscriptionId>()?;
    let detail = format!("there is no node '{id}'; /cluster/status lists them");
    Err(Problem::new(Kind::Absent, detail))
}

async fn decide(face: &Face, disk: DiskId, how: Leaving) -> Result<Response, Problem> {
    let node_id = nodes::name(&face.0.node.view(), disk);
    face.change(ControlRequest::Decommission { disk, how }).await?;
    Ok(json(StatusCode::OK, &Leaves { status: "leaving", node_id }))
}
