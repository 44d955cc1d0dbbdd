//! The endpoints, one room each, and what they share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use sprawl_core::broker::PUBLISH_ANSWER_MAX;
use sprawl_core::broker::replica::Submission;
use sprawl_core::machine::{self, ControlRequest, ControlResponse, ShardStatus};
use sprawl_io::handle::NodeHandle;
use tokio::time::Instant;

use crate::gate::{Gate, Pass};
use crate::host::Host;
use crate::problem::{Kind, Problem};
use crate::serve::{Limits, Settings};
use crate::stop::Stop;
use crate::traffic::Traffic;

mod administration;
mod answer;
mod batch;
mod body;
mod cluster;
mod configuration;
mod dead_letters;
mod dht;
mod fetch;
mod filter;
mod forms;
mod frames;
mod health;
mod index;
mod membership;
mod metrics;
mod mint;
mod nodes;
mod openapi;
mod publish;
mod query;
mod sessions;
mod socket;
mod status;
mod stream;
mod submission;
mod subscribe;
mod subscriptions;
mod topics;
mod verdicts;
mod whole;
mod wire;

pub use health::SHARDS_WAIT_MAX;
pub use query::{MESSAGES_MAX, WAIT_MAX};

/// How long the machines may take beyond the wait that a request asked for. It is longer than any
/// deadline of theirs, so that only a machine that hangs is given up on.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(35);
const _: () = assert!(ANSWER_WAIT_MAX.as_secs() > PUBLISH_ANSWER_MAX.as_secs());

/// How long a publish waits for its turn.
const GATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What every handler is given: the node, and what the face itself keeps.
#[derive(Clone, Debug)]
pub(crate) struct Face(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeHandle,
    address: String,
    http_port: u16,
    started: Instant,
    host: Option<Arc<dyn Host>>,
    limits: Limits,
    mint: mint::Mint,
    gate: Gate,
    sessions: sessions::Sessions,
    traffic: Traffic,
    stopping: Stop,
}

impl Face {
    pub(crate) fn new(
        node: NodeHandle,
        settings: Settings,
        http_port: u16,
        stopping: Stop,
    ) -> Self {
        let Settings { address, entropy, host, limits } = settings;
        Self(Arc::new(Inner {
            node,
            address,
            http_port,
            started: Instant::now(),
            host,
            limits,
            mint: mint::Mint::new(entropy),
            gate: Gate::new(limits.bodies_bytes_max / 4),
            sessions: sessions::Sessions::default(),
            traffic: Traffic::default(),
            stopping,
        }))
    }

    /// Waits for the turn of a publish.
    ///
    /// # Errors
    ///
    /// 503 when it has not come in time; nothing was stored.
    async fn pass(&self, held: &body::Held) -> Result<Pass, Problem> {
        let entering = self.0.gate.enter(held.source(), held.bytes.len());
        tokio::time::timeout(GATE_WAIT_MAX, entering).await.map_err(|_| {
            let detail = "the node is overloaded: the publish waited too long for its turn";
            Problem::new(Kind::Overloaded, detail)
        })
    }

    /// Asks the data plane; a machine that hangs leaves the request unknown.
    async fn ask(&self, request: machine::Request, wait: Duration) -> machine::Response {
        let answered = tokio::time::timeout(wait + ANSWER_WAIT_MAX, self.0.node.request(request));
        answered.await.unwrap_or(machine::Response::Unknown)
    }

    /// Stores a batch; gives what became of each message.
    async fn publish_batch(&self, items: Vec<Submission>) -> Vec<machine::Response> {
        let count = items.len();
        let answered =
            tokio::time::timeout(ANSWER_WAIT_MAX, self.0.node.publish_batch(items)).await;
        answered.unwrap_or_else(|_| vec![machine::Response::Unknown; count])
    }

    /// Has a change of the metadata agreed on.
    ///
    /// # Errors
    ///
    /// Why it was refused; 504 when its fate is not known in time.
    async fn change(&self, request: ControlRequest) -> Result<(), Problem> {
        let answered = tokio::time::timeout(ANSWER_WAIT_MAX, self.0.node.control(request)).await;
        match answered.unwrap_or(ControlResponse::Unknown) {
            ControlResponse::Done | ControlResponse::Subscribed { .. } => Ok(()),
            ControlResponse::Status(_) => panic!("a change was answered in another kind"),
            ControlResponse::Refused(refused) => Err(refused.into()),
            ControlResponse::Unknown => Err(Problem::outcome_unknown()),
        }
    }

    /// What the shards hold.
    ///
    /// # Errors
    ///
    /// 503 when one of them does not answer in time.
    async fn describe(&self) -> Result<Vec<ShardStatus>, Problem> {
        let described = tokio::time::timeout(SHARDS_WAIT_MAX, self.0.node.describe()).await;
        described.ok().flatten().ok_or_else(|| {
            Problem::new(Kind::NotReady, "a shard does not answer: it hangs, or the node has ended")
        })
    }

    fn node_id(&self) -> &str {
        &self.0.node.identity().name
    }

    fn uptime_seconds(&self) -> f64 {
        self.0.started.elapsed().as_secs_f64()
    }
}

/// All endpoints. `openapi::Api` lists the same ones.
pub(crate) fn router(face: Face) -> Router {
    let router = Router::new()
        .route("/", get(index::index))
        .route("/publish", post(publish::publish))
        .route("/publish/batch", post(batch::publish_batch))
        .route("/subscribe", post(subscribe::subscribe))
        .route("/subscriptions", get(subscriptions::list))
        .route("/subscriptions/{id}", get(subscriptions::one).delete(subscriptions::delete))
        .route("/subscriptions/{id}/messages", get(subscriptions::pull))
        .route("/subscriptions/{id}/stream", get(stream::stream))
        .route("/subscriptions/{id}/ws", get(socket::socket))
        .route("/subscriptions/{id}/ack", post(verdicts::acknowledge))
        .route("/subscriptions/{id}/nack", post(verdicts::give_back))
        .route("/subscriptions/{id}/extend", post(verdicts::extend))
        .route("/topics", get(topics::list))
        .route(
            "/topics/{topic}",
            get(topics::one)
                .put(configuration::put)
                .patch(configuration::patch)
                .delete(configuration::delete),
        )
        .route("/topics/{topic}/redrive", post(dead_letters::redrive))
        .route(
            "/topics/{topic}/messages",
            get(fetch::fetch).post(publish::publish_raw).delete(configuration::purge),
        )
        .route("/health", get(health::health))
        .route("/healthz", get(health::healthz))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/health/membership", get(membership::membership))
        .route("/status", get(status::status))
        .route("/cluster/status", get(cluster::status))
        .route("/cluster/leave", post(administration::leave))
        .route("/cluster/nodes/{id}/decommission", post(administration::decommission))
        .route("/cluster/rebalance", post(administration::rebalance))
        .route("/dht", get(dht::dht))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(no_endpoint)
        .method_not_allowed_fallback(no_method);
    // No simulated client asks for it.
    #[cfg(not(madsim))]
    let router = router.layer(middleware::from_fn(crate::compress::compress));
    router.layer(middleware::from_fn_with_state(face.clone(), count)).with_state(face)
}

async fn no_endpoint(request: HttpRequest) -> Problem {
    let path = request.uri().path();
    Problem::new(Kind::NoEndpoint, format!("there is no endpoint '{path}'; / lists them all"))
}

async fn no_method(request: HttpRequest) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("'{path}' does not take {method}; the header Allow says what it takes");
    Problem::new(Kind::Method, detail)
}

/// Counts, times and logs each answer; never what it says.
async fn count(
    State(face): State<Face>,
    route: Option<MatchedPath>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let (status, took) = (response.status().as_u16(), began.elapsed());
    face.0.traffic.count(route, status, took);
    tracing::debug!(%method, route, status, micros = took.as_micros() as u64, "answered");
    response
}

/// An answer in JSON.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = (status, body).into_response();
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(error) => Problem::new(Kind::Damaged, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::openapi;

    /// The paths that the router above has, read out of its text.
    fn routed() -> Vec<&'static str> {
        let text = include_str!("mod.rs");
        let routes = text.split(".route(").skip(1).map(str::trim_start);
        let paths = routes.filter_map(|route| route.strip_prefix('"')?.split('"').next());
        paths.filter(|path| path.starts_with('/')).collect()
    }

    #[test]
    fn the_document_describes_every_endpoint_and_no_other() {
        let document = openapi::document();
        let mut described: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        let mut routed = routed();
        described.sort_unstable();
        routed.sort_unstable();
        assert!(routed.len() > 15, "{routed:?}");
        assert_eq!(described, routed);
    }
}
