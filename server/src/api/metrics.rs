//! GET /metrics: figures for Prometheus, or in JSON for people.

mod cluster;

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sprawl_core::cluster::dht::Lookups;
use sprawl_core::machine::{Counters, DiskSpace, LoadLevel, ShardStatus};
use utoipa::ToSchema;

use super::query::Query;
use super::{Face, json};
use crate::VERSION;
use crate::host::Reading;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::traffic::{Figures, Scrape};

/// The media type of what the encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures in JSON.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Metrics {
    /// What people call the node.
    node_id: String,
    /// The cluster.
    cluster: Cluster,
    /// What the node has done for its clients since it started.
    router: Router,
    /// The host; none where nobody reads it.
    system: Option<Reading>,
    /// What is stored.
    storage: Storage,
}

/// The cluster.
#[derive(Debug, Serialize, ToSchema)]
struct Cluster {
    /// How many nodes it has.
    nodes: usize,
    /// How many topics.
    topics: usize,
    /// How many partitions.
    partitions: usize,
    /// How many subscriptions.
    subscriptions: usize,
    /// The version of the metadata.
    metadata_version: u64,
}

/// What the node has done since it started.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Router {
    /// Messages committed.
    published: u64,
    /// Bytes of their payloads.
    published_bytes: u64,
    /// Publishes that found their id in the window.
    duplicates: u64,
    /// Messages given to readers without subscription.
    fetched: u64,
    /// Messages given to subscribers, repeats included.
    delivered: u64,
    /// Deliveries beyond a message's first.
    redelivered: u64,
    /// Acknowledgements taken.
    acknowledged: u64,
    /// Messages given back by their subscribers.
    given_back: u64,
    /// Deadlines moved.
    extended: u64,
    /// Messages not delivered because their time was over.
    expired: u64,
    /// Messages not delivered because a filter did not want them.
    filtered: u64,
    /// Messages that became dead letters.
    dead_lettered: u64,
    /// Messages that retention removed, or a client.
    trimmed: u64,
    /// Reads that met an entry which is damaged.
    unreadable: u64,
    /// Publishes that waited for their turn.
    queued: u64,
    /// Publishes refused for the load.
    shed: u64,
    /// Requests refused.
    refused: u64,
    /// Requests that ended unknown.
    unknown: u64,
    /// Requests handed from shard to shard.
    forwarded: u64,
    /// Requests handed to other nodes, each try of them.
    calls: u64,
    /// Of them, those after the first try.
    call_retries: u64,
    /// Requests taken from other nodes.
    asked: u64,
    /// Lookups of another node's partition that the cache answered.
    route_hits: u64,
    /// Those that the metadata answered, because the cache had nothing or something older.
    route_misses: u64,
    /// Answers of other nodes that named a later owner.
    redirects: u64,
    /// How often other nodes were not asked for a while because they were not reached.
    breakers_opened: u64,
    /// HTTP answers by the first digit of their status.
    #[schema(value_type = BTreeMap<String, u64>)]
    http_answers: BTreeMap<u16, u64>,
}

/// What is stored.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Storage {
    #[serde(skip)]
    level: LoadLevel,
    /// Whether publishes are refused because the disk takes no more.
    disk_full: bool,
    /// Partitions that the node holds.
    partitions: u64,
    /// Those that it serves.
    serving: u64,
    /// Those whose log is damaged.
    damaged: u64,
    /// Messages retained.
    messages: u64,
    /// Bytes of entries that wait for the disk.
    in_flight_bytes: u64,
    /// How much more is asked than is taken on, in the worst shard: `calm`, `elevated`, `high` or
    /// `severe`.
    load: &'static str,
    /// Bytes of publishes that wait for their turn.
    waiting_bytes: u64,
    /// How many clients they are of, in the shard with the most.
    waiting_clients: u64,
    /// How many bytes the disk may have before it.
    window_bytes: u64,
    /// How long a commit takes in the slowest shard, smoothed, in seconds.
    commit_seconds: f64,
    /// Bytes of entries held in memory for reading.
    cached_bytes: u64,
    /// Reads that memory answered.
    cache_hits: u64,
    /// Reads that went to the disk.
    cache_misses: u64,
}

/// Shows the figures: OpenMetrics text, or JSON with `Accept: application/json` or `format=json`.
#[utoipa::path(
    get, path = "/metrics", tag = "status",
    params(("format" = Option<String>, Query, pattern = "^(json|text|prometheus)$",
        description = "`json`, or `text`")),
    responses(
        (status = 200, description = "The figures", content(
            (Metrics = "application/json"),
            (String = "application/openmetrics-text"),
        )),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn metrics(
    State(face): State<Face>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let as_json = match query.take("format").as_deref() {
        Some("json") => true,
        Some("text" | "prometheus") => false,
        None => accepts.contains("application/json"),
        Some(other) => {
            let detail = format!("format: '{other}' is neither json nor text");
            return Err(Problem::new(Kind::Impossible, detail));
        }
    };
    query.end("format")?;
    let shards = face.describe().await?;
    let metrics = gather(&face, &shards);
    if as_json {
        return Ok(json(StatusCode::OK, &metrics));
    }
    let text = render(metrics, face).map_err(|error| {
        Problem::new(Kind::NotReady, format!("the figures could not be written: {error}"))
    })?;
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    Ok(response)
}

fn gather(face: &Face, shards: &[ShardStatus]) -> Metrics {
    let view = face.0.node.view();
    let mut router = Router { http_answers: face.0.traffic.classes(), ..Router::default() };
    let mut storage = Storage::default();
    for shard in shards {
        router.add(&shard.counters);
        router.look(shard.lookups);
        storage.add(shard);
    }
    Metrics {
        node_id: face.node_id().to_owned(),
        cluster: Cluster {
            nodes: view.nodes.len(),
            topics: view.topics.len(),
            partitions: view.partitions.len(),
            subscriptions: view.subscriptions.len(),
            metadata_version: view.version.0,
        },
        router,
        system: face.0.host.as_ref().map(|host| host.read()),
        storage,
    }
}

impl Router {
    fn add(&mut self, counters: &Counters) {
        self.published += counters.published;
        self.published_bytes += counters.published_bytes;
        self.duplicates += counters.duplicates;
        self.fetched += counters.fetched;
        self.delivered += counters.delivered;
        self.redelivered += counters.redelivered;
        self.acknowledged += counters.acknowledged;
        self.given_back += counters.given_back;
        self.extended += counters.extended;
        self.expired += counters.expired;
        self.filtered += counters.filtered;
        self.dead_lettered += counters.dead_lettered;
        self.trimmed += counters.trimmed;
        self.unreadable += counters.unreadable;
        self.queued += counters.queued;
        self.shed += counters.shed;
        self.refused += counters.refused;
        self.unknown += counters.unknown;
        self.forwarded += counters.forwarded;
        self.calls += counters.calls;
        self.call_retries += counters.call_retries;
        self.asked += counters.asked;
        self.breakers_opened += counters.breakers_opened;
    }

    fn look(&mut self, lookups: Lookups) {
        self.route_hits += lookups.hits;
        self.route_misses += lookups.misses;
        self.redirects += lookups.redirects;
    }
}

impl Storage {
    fn add(&mut self, shard: &ShardStatus) {
        self.disk_full |= shard.disk == DiskSpace::Full;
        self.in_flight_bytes += shard.in_flight_bytes;
        let admission = &shard.admission;
        self.level = self.level.max(admission.level);
        self.load = self.level.name();
        self.waiting_bytes += admission.waiting_bytes;
        self.waiting_clients = self.waiting_clients.max(admission.waiting_clients);
        self.window_bytes += admission.window_bytes;
        self.commit_seconds = self.commit_seconds.max(admission.commit_latency.as_secs_f64());
        self.cached_bytes += shard.cached_bytes;
        self.cache_hits += shard.counters.cache_hits;
        self.cache_misses += shard.counters.cache_misses;
        for partition in &shard.partitions {
            self.partitions += 1;
            self.serving += u64::from(partition.serving);
            self.damaged += u64::from(partition.damaged.is_some());
            self.messages += partition.messages;
        }
    }
}

/// One scrape: the figures of the machines, and the counts of the face.
#[derive(Debug)]
struct Sample {
    metrics: Metrics,
    face: Face,
}

fn render(metrics: Metrics, face: Face) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Sample { metrics, face })));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Figures for Sample {
    fn write(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Metrics { cluster, router, storage, system, node_id } = &self.metrics;
        let labels = [("node_id", node_id.as_str()), ("version", VERSION)];
        let one = ConstGauge::new(1_u64);
        let kind = one.metric_type();
        let mut family = encoder.encode_descriptor("sprawl_node", "The node", None, kind)?;
        one.encode(family.encode_family(&labels)?)?;
        let mut out = Writer(encoder);
        out.seconds("sprawl_uptime_seconds", "Time since start", self.face.uptime_seconds())?;
        out.gauge("sprawl_cluster_nodes", "Nodes of the cluster", cluster.nodes as u64)?;
        out.gauge("sprawl_topics", "Topics", cluster.topics as u64)?;
        out.gauge("sprawl_subscriptions", "Subscriptions", cluster.subscriptions as u64)?;
        out.between_nodes(&self.face.0.node)?;
        out.router(router)?;
        out.storage(storage)?;
        if let Some(reading) = system {
            out.system(reading)?;
        }
        self.face.0.traffic.encode(encoder)
    }
}

struct Writer<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Writer<'_, '_> {
    fn put(&mut self, name: &str, help: &str, figure: &impl EncodeMetric) -> fmt::Result {
        let kind = figure.metric_type();
        figure.encode(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &ConstGauge::new(value))
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.put(name, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.put(name, help, &ConstCounter::new(value))
    }

    fn router(&mut self, router: &Router) -> fmt::Result {
        self.counter("sprawl_published", "Messages committed", router.published)?;
        self.counter("sprawl_published_bytes", "Their payloads' bytes", router.published_bytes)?;
        self.counter("sprawl_duplicates", "Publishes of a known id", router.duplicates)?;
        self.counter("sprawl_fetched", "Messages read by offset", router.fetched)?;
        self.counter("sprawl_delivered", "Messages given to subscribers", router.delivered)?;
        self.counter("sprawl_redelivered", "Of them, repeats", router.redelivered)?;
        self.counter("sprawl_acknowledged", "Acknowledgements taken", router.acknowledged)?;
        self.counter("sprawl_given_back", "Messages given back", router.given_back)?;
        self.counter("sprawl_extended", "Deadlines moved", router.extended)?;
        self.counter("sprawl_expired", "Messages whose time was over", router.expired)?;
        self.counter("sprawl_filtered", "Messages that no filter wanted", router.filtered)?;
        self.counter("sprawl_dead_lettered", "Dead letters stored", router.dead_lettered)?;
        self.counter("sprawl_trimmed", "Messages removed", router.trimmed)?;
        let help = "Reads that met an entry which is damaged";
        self.counter("sprawl_unreadable", help, router.unreadable)?;
        self.counter("sprawl_queued", "Publishes that waited for their turn", router.queued)?;
        self.counter("sprawl_shed", "Publishes refused for the load", router.shed)?;
        self.counter("sprawl_refused", "Requests refused", router.refused)?;
        self.counter("sprawl_unknown", "Requests that ended unknown", router.unknown)?;
        self.counter("sprawl_forwarded", "Requests from shard to shard", router.forwarded)?;
        self.counter("sprawl_calls", "Requests handed to other nodes", router.calls)?;
        self.counter("sprawl_call_retries", "Of them, further tries", router.call_retries)?;
        self.counter("sprawl_asked", "Requests taken from other nodes", router.asked)?;
        self.counter("sprawl_route_hits", "Lookups that the cache answered", router.route_hits)?;
        self.counter("sprawl_route_misses", "Lookups that it did not", router.route_misses)?;
        self.counter("sprawl_redirects", "Answers that named a later owner", router.redirects)?;
        let opened = router.breakers_opened;
        self.counter("sprawl_breakers_opened", "Pauses for nodes that are not reached", opened)
    }

    fn storage(&mut self, storage: &Storage) -> fmt::Result {
        let full = u64::from(storage.disk_full);
        self.gauge("sprawl_disk_full", "1 when publishes are refused for want of room", full)?;
        self.gauge("sprawl_partitions", "Partitions held", storage.partitions)?;
        self.gauge("sprawl_partitions_serving", "Partitions served", storage.serving)?;
        self.gauge("sprawl_partitions_damaged", "Partitions damaged", storage.damaged)?;
        self.gauge("sprawl_messages", "Messages retained", storage.messages)?;
        let in_flight = storage.in_flight_bytes;
        self.gauge("sprawl_in_flight_bytes", "Bytes that the disk has before it", in_flight)?;
        let level = storage.level as u64;
        self.gauge("sprawl_load_level", "0 calm, 1 elevated, 2 high, 3 severe", level)?;
        let waiting = storage.waiting_bytes;
        self.gauge("sprawl_waiting_bytes", "Bytes of publishes that wait for a turn", waiting)?;
        self.gauge("sprawl_waiting_clients", "Clients that wait", storage.waiting_clients)?;
        let window = storage.window_bytes;
        self.gauge("sprawl_window_bytes", "Bytes that the disk may have before it", window)?;
        let seconds = storage.commit_seconds;
        self.seconds("sprawl_commit_seconds", "How long a commit takes, smoothed", seconds)?;
        self.gauge("sprawl_cached_bytes", "Bytes kept for readers", storage.cached_bytes)?;
        self.counter("sprawl_cache_hits", "Reads that memory answered", storage.cache_hits)?;
        self.counter("sprawl_cache_misses", "Reads from the disk", storage.cache_misses)
    }

    fn system(&mut self, host: &Reading) -> fmt::Result {
        self.seconds("sprawl_host_cpu_percent", "Processors in use", host.cpu_percent)?;
        self.gauge("sprawl_host_memory_used_bytes", "Memory in use", host.memory_used_bytes)?;
        self.gauge("sprawl_host_memory_total_bytes", "Memory", host.memory_total_bytes)?;
        let resident = host.process_resident_bytes;
        self.gauge("sprawl_process_resident_bytes", "Memory of this process", resident)?;
        self.gauge("sprawl_data_bytes", "Bytes of the data directory", host.data_bytes)?;
        self.gauge("sprawl_disk_total_bytes", "Bytes of the disk", host.disk_total_bytes)?;
        let free = host.disk_available_bytes;
        self.gauge("sprawl_disk_available_bytes", "Bytes of it that are free", free)
    }
}
