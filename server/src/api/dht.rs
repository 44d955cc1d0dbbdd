//! GET /dht: where each topic is, by the hash of its name.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::dht::{Route, topic_map};
use sprawl_core::cluster::metadata::View;
use utoipa::ToSchema;

use super::nodes::{self, NodeShown};
use super::query::Query;
use super::{Face, json};
use crate::problem::{Kind, Problem, ProblemDocument};

/// Where the topics are.
#[derive(Serialize, ToSchema)]
pub(super) struct Dht {
    /// The node that says so.
    node_id: String,
    /// The version of the metadata by which it says so.
    version: u64,
    /// How many nodes the cluster has.
    node_count: usize,
    /// How many topics.
    topic_count: usize,
    /// From the SHA-256 of a topic's name, in hexadecimal digits, to its partitions by number.
    topic_map: BTreeMap<String, Vec<Owned>>,
    /// The nodes and how much each holds; with `detailed=true` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeShown>>,
}

/// A partition and its owners.
#[derive(Serialize, ToSchema)]
struct Owned {
    /// The topic.
    topic: String,
    /// The partition's number within the topic.
    partition: usize,
    /// The reign of the first of the owners.
    epoch: u64,
    /// The leader, and after it whoever else holds a copy.
    owners: Vec<String>,
}

/// Shows which nodes own which partitions.
#[utoipa::path(
    get, path = "/dht", tag = "cluster",
    params(("detailed" = Option<bool>, Query, description = "`true` shows the nodes too")),
    responses(
        (status = 200, description = "The table", body = Dht),
        (status = 422, description = "`detailed` is no truth value", body = ProblemDocument),
    )
)]
pub(super) async fn dht(State(face): State<Face>, mut query: Query) -> Result<Response, Problem> {
    let detailed = match query.take("detailed").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let detail = format!("detailed: '{other}' is neither true nor false");
            return Err(Problem::new(Kind::Impossible, detail));
        }
    };
    query.end("detailed")?;
    let view = face.0.node.view();
    let topics = topic_map(&view).map(|(key, topic, routes)| {
        let routes = routes.into_iter().enumerate();
        let owned =
            routes.map(|(number, route)| Owned::of(&view, topic.name.as_str(), number, &route));
        (key.to_string(), owned.collect())
    });
    let shown = Dht {
        node_id: face.node_id().to_owned(),
        version: view.version.0,
        node_count: view.nodes.len(),
        topic_count: view.topics.len(),
        topic_map: topics.collect(),
        nodes: detailed.then(|| nodes::all(&face, &view)),
    };
    Ok(json(StatusCode::OK, &shown))
}

impl Owned {
    fn of(view: &View, topic: &str, partition: usize, route: &Route) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            epoch: route.epoch.0,
            owners: route.owners.iter().map(|disk| nodes::name(view, *disk)).collect(),
        }
    }
}
