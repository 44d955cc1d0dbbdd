//! How the node is: for people, for monitors, and for probes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde::Serialize;
use sprawl_core::cluster::gossip::MemberState;
use sprawl_core::cluster::metadata::{Partition, View};
use sprawl_core::machine::{DiskSpace, LoadLevel, PartitionStatus, ShardStatus};
use sprawl_io::handle::Ended;
use utoipa::ToSchema;

use super::cluster::control_status;
use super::query::NoQuery;
use super::{Face, json};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::{VERSION, duration};

/// How long the shards may take to say what they hold; after that they count as hanging.
pub const SHARDS_WAIT_MAX: Duration = Duration::from_secs(2);
/// From which fullness of the disk on health is a warning.
const DISK_WARNING: f64 = 0.8;
/// How many partitions a finding names at most.
const NAMED_MAX: usize = 3;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing is wrong.
    Ok,
    /// All works; something should be looked at.
    Warning,
    /// Something does not work.
    Critical,
}

/// Something that is not as it should be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    /// What it is about: `cluster`, `clock`, `disk`, `load`, `partitions`, `shards` or `node`.
    subject: &'static str,
    /// How bad it is.
    status: Level,
    /// What is wrong, and what to do.
    detail: String,
}

/// How the node is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health<'a> {
    /// The worst of the findings.
    status: Level,
    /// The node.
    #[serde(rename = "nodeId")]
    node_id: &'a str,
    /// For how many seconds it has run.
    uptime: f64,
    /// The version of the program.
    version: &'a str,
    /// How many nodes the cluster has.
    cluster_size: usize,
    /// When this was found, as RFC 3339.
    timestamp: String,
    /// What is not as it should be.
    findings: Vec<Finding>,
}

/// What a probe is told.
#[derive(Serialize, ToSchema)]
pub(super) struct Probe {
    /// `live` or `ready`.
    status: &'static str,
}

/// Says how the node is.
#[utoipa::path(
    get, path = "/health", tag = "health",
    responses(
        (status = 200, description = "It works", body = Health),
        (status = 503, description = "Something does not: `status` is critical", body = Health),
    )
)]
pub(super) async fn health(State(face): State<Face>, _: NoQuery) -> Response {
    let view = face.0.node.view();
    let findings = match face.0.node.ended().now_or_never() {
        Some(ended) => vec![of_end(ended)],
        None => match face.describe().await {
            Ok(shards) => {
                let mut all = findings(&face, &view, &shards);
                all.extend(of_cluster(&face, &view).await);
                all
            }
            Err(_) => vec![hanging()],
        },
    };
    let status = findings.iter().map(|finding| finding.status).max().unwrap_or(Level::Ok);
    let health = Health {
        status,
        node_id: face.node_id(),
        uptime: face.uptime_seconds(),
        version: VERSION,
        cluster_size: view.nodes.len(),
        timestamp: duration::rfc3339(duration::wall_now()),
        findings,
    };
    match status {
        Level::Ok | Level::Warning => json(StatusCode::OK, &health),
        Level::Critical => {
            let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &health);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            response
        }
    }
}

/// The same as /health.
#[utoipa::path(
    get, path = "/healthz", tag = "health",
    responses(
        (status = 200, description = "It works", body = Health),
        (status = 503, description = "Something does not: `status` is critical", body = Health),
    )
)]
pub(super) async fn healthz(face: State<Face>, query: NoQuery) -> Response {
    health(face, query).await
}

/// Says whether the process should be left running.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses(
        (status = 200, description = "Leave it running", body = Probe),
        (status = 503, description = "The node has ended", body = ProblemDocument),
    )
)]
pub(super) async fn live(State(face): State<Face>, _: NoQuery) -> Result<Response, Problem> {
    match face.0.node.ended().now_or_never() {
        None => Ok(json(StatusCode::OK, &Probe { status: "live" })),
        Some(ended) => Err(Problem::new(Kind::NotReady, of_end(ended).detail)),
    }
}

/// Says whether clients should be sent here: every partition that the node leads is served.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "Send clients here", body = Probe),
        (status = 503, description = "Not yet, or no longer", body = ProblemDocument),
    )
)]
pub(super) async fn ready(State(face): State<Face>, _: NoQuery) -> Result<Response, Problem> {
    if face.0.stopping.is_given() {
        return Err(Problem::new(Kind::NotReady, "the node is stopping"));
    }
    let view = face.0.node.view();
    let shards = face.describe().await?;
    let me = face.0.node.identity();
    if !view.has_registered(me.disk, me.boot) {
        return Err(Problem::new(Kind::NotReady, unregistered(&face)));
    }
    let silent = silent(&face, &view, &shards);
    if silent == 0 {
        return Ok(json(StatusCode::OK, &Probe { status: "ready" }));
    }
    let detail = format!("{silent} partitions that the node leads are not served yet");
    Err(Problem::new(Kind::NotReady, detail))
}

fn of_end(ended: Ended) -> Finding {
    let detail = match ended {
        Ended::Shutdown => "the node has been shut down".to_owned(),
        Ended::DiskFailed(why) => {
            format!("the disk failed ({why}): the node has ended; look at the disk, then start it")
        }
        Ended::Halted(why) => format!("{why}: the node has ended"),
    };
    Finding { subject: "node", status: Level::Critical, detail }
}

fn hanging() -> Finding {
    let detail = format!(
        "the shards do not answer within {} s: the machine is overloaded, or the disk hangs",
        SHARDS_WAIT_MAX.as_secs()
    );
    Finding { subject: "shards", status: Level::Critical, detail }
}

fn findings(face: &Face, view: &View, shards: &[ShardStatus]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |subject, status, detail| findings.push(Finding { subject, status, detail });
    let fullness = face.0.host.as_ref().map_or(0.0, |host| host.read().disk_fullness());
    if shards.iter().any(|shard| shard.disk == DiskSpace::Full) {
        let detail = "the disk takes no more writes: publishes are refused, reads go on; make \
                      room, or raise --disk-max-size";
        find("disk", Level::Critical, detail.to_owned());
    } else if fullness >= DISK_WARNING {
        let percent = (fullness * 100.0) as u64;
        let detail =
            format!("the disk is {percent} % full; make room before publishes are refused");
        find("disk", Level::Warning, detail);
    }
    let waiting: u64 = shards.iter().map(|shard| shard.admission.waiting_bytes).sum();
    if shards.iter().any(|shard| shard.admission.level >= LoadLevel::High) {
        let detail = format!(
            "overloaded: publishes of {waiting} bytes wait for the disk, and clients that send \
             more than their share get 429; send less, or give the node a faster disk"
        );
        find("load", Level::Warning, detail);
    }
    let partitions = || shards.iter().flat_map(|shard| &shard.partitions);
    let damaged: Vec<&PartitionStatus> =
        partitions().filter(|partition| partition.damaged.is_some()).collect();
    // Where another node leads, the copy here is made whole from there.
    let me = face.0.node.identity().disk;
    let is_led = |one: &&PartitionStatus| {
        let elsewhere = |partition: &&Arc<Partition>| partition.led_by() != Some(me);
        let partition = view.partitions.get(&one.partition).filter(elsewhere);
        partition.is_some_and(|partition| !view.is_leaderless(partition))
    };
    let (mended, only): (Vec<_>, Vec<_>) = damaged.iter().copied().partition(is_led);
    let here = only.len();
    for (some, level, what) in [
        (mended, Level::Warning, "their leaders make these copies whole; look at the disk"),
        (only, Level::Critical, "start the nodes that hold the others, or restore the data"),
    ] {
        let named = some.iter().take(NAMED_MAX).filter_map(|partition| {
            let damage = partition.damaged.as_ref()?;
            Some(format!("{}/{} ({damage})", partition.topic, partition.number))
        });
        let named = named.collect::<Vec<_>>().join(", ");
        if !some.is_empty() {
            find("partitions", level, format!("{} damaged: {named}; {what}", some.len()));
        }
    }
    let silent = silent(face, view, shards).saturating_sub(here);
    if silent > 0 {
        let detail = format!("{silent} partitions are not served yet; publishes to them get 503");
        find("partitions", Level::Warning, detail);
    }
    findings
}

/// What is wrong with the cluster, as this node sees it.
async fn of_cluster(face: &Face, view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |subject, status, detail| findings.push(Finding { subject, status, detail });
    let me = face.0.node.identity();
    if !view.has_registered(me.disk, me.boot) {
        find("cluster", Level::Warning, unregistered(face));
    } else if face.0.node.group().leader.is_none() {
        let detail = "nobody leads the cluster: what is served goes on, nothing new is agreed; \
                      start the nodes that are down, more than half of the voters are needed";
        find("cluster", Level::Critical, detail.to_owned());
    }
    let membership = face.0.node.membership();
    let silent = |disk| {
        let member = membership.members.find(disk);
        member.is_some_and(|member| member.state() == MemberState::Failed)
    };
    let all = view.nodes.iter();
    let away: Vec<&str> = all
        .filter(|(disk, node)| node.down.is_some() || silent(**disk))
        .map(|(_, node)| node.name.as_str())
        .collect();
    if !away.is_empty() {
        let named = away.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let detail = format!(
            "{} of {} nodes down: {named}; start them, or decommission those that never come back",
            away.len(),
            view.nodes.len()
        );
        find("cluster", Level::Warning, detail);
    }
    let asked = tokio::time::timeout(SHARDS_WAIT_MAX, control_status(face)).await;
    if let Ok(Ok(status)) = asked
        && let Some(off) = status.clock_off
    {
        let detail = format!(
            "this node's clock differs by {:.1} s from cluster time: set it right",
            off.as_secs_f64()
        );
        find("clock", Level::Warning, detail);
    }
    findings
}

/// Why this run of the node is not registered.
fn unregistered(face: &Face) -> String {
    match face.0.node.waits() {
        Some(why) => format!("the node belongs to no cluster yet: {why}"),
        None => "the node has not registered yet".to_owned(),
    }
}

/// How many of the partitions that this node leads it does not serve.
fn silent(face: &Face, view: &View, shards: &[ShardStatus]) -> usize {
    let me = face.0.node.identity().disk;
    let led = view.partitions.values().filter(|partition| partition.leader == me).count();
    let serving = |partition: &&PartitionStatus| {
        let known = view.partitions.get(&partition.partition);
        partition.serving && known.is_some_and(|known| known.leader == me)
    };
    let served = shards.iter().flat_map(|shard| &shard.partitions).filter(serving).count();
    led.saturating_sub(served)
}
