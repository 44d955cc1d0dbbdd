//! The topics: how they are configured, what they hold, who reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sprawl_core::cluster::metadata::{self, View};
use sprawl_core::cluster::topic;
use sprawl_core::ids::{DiskId, PartitionId, TopicName};
use sprawl_core::machine::{PartitionStatus, Refused, ShardStatus};
use utoipa::ToSchema;

use super::configuration::Config;
use super::query::{Named, NoQuery, Query};
use super::{Face, forms, json};
use crate::problem::{Problem, ProblemDocument};

/// Where every message is kept in this version.
const STORAGE_TIER: &str = "disk";

/// All topics.
#[derive(Serialize, ToSchema)]
pub(super) struct Topics {
    /// How many there are.
    count: usize,
    /// Each, ascending by name.
    topics: Vec<Summary>,
}

/// A topic in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Summary {
    /// Its name.
    name: String,
    /// How many messages it retains.
    message_count: u64,
    /// How many durable subscriptions receive from it.
    subscriber_count: usize,
    /// Whether any does.
    has_subscribers: bool,
    /// The nodes that hold a copy.
    nodes: Vec<String>,
    /// Where its messages are.
    storage_tier: &'static str,
    /// How many partitions it has.
    partitions: usize,
}

/// A topic with all that is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Topic {
    /// Its name.
    name: String,
    /// How it is kept.
    config: Config,
    /// How many nodes hold each partition: the lesser of `replication` and the number of nodes.
    replication_in_effect: usize,
    /// How many messages it retains.
    message_count: u64,
    /// The durable subscriptions that receive from it.
    subscribers: Vec<String>,
    /// Where its messages are.
    storage_tier: &'static str,
    /// Its partitions by number.
    partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Serialize, ToSchema)]
struct Partition {
    /// Its number within the topic.
    partition: u32,
    /// Its own name.
    id: u64,
    /// The reign of its leader.
    epoch: u64,
    /// The node that leads it; null where none of those that live holds what was acknowledged.
    leader: Option<String>,
    /// The nodes that are to hold a copy.
    replicas: Vec<String>,
    /// The nodes whose copies count for commits.
    in_sync: Vec<String>,
    /// Those of them that do not hold what they acknowledged any more.
    lost: Vec<String>,
    /// Those that have what is new and are being given what is older: they count, and do not lead.
    tail: Vec<String>,
    /// How many live ones the set keeps at least.
    min_in_sync: u32,
    /// Whether nothing commits, because one of the set does not answer and cannot be removed.
    frozen: bool,
    /// How often a copy was taken on trust, because every node that counted had ended without
    /// order: what was acknowledged before it was synced may be lost.
    trusted: u64,
    /// Whether its leader serves.
    serving: bool,
    /// The first offset that it retains.
    start_offset: u64,
    /// The offset that its next message will have.
    end_offset: u64,
    /// How many messages it retains.
    message_count: u64,
    /// How many bytes of entries it retains, about.
    bytes: u64,
    /// How many of its messages are not due yet.
    delayed: u64,
    /// How many ids its dedup window holds now.
    window_ids: u64,
    /// What is wrong with its log, if anything is.
    damaged: Option<String>,
}

/// Lists the topics.
#[utoipa::path(
    get, path = "/topics", tag = "topics",
    responses(
        (status = 200, description = "All of them", body = Topics),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn list(State(face): State<Face>, query: Query) -> Result<Response, Problem> {
    query.end("")?;
    let view = face.0.node.view();
    let shards = face.describe().await?;
    let held = by_partition(&shards);
    let topics: Vec<Summary> = view.topics.values().map(|t| summary(&view, &held, t)).collect();
    Ok(json(StatusCode::OK, &Topics { count: topics.len(), topics }))
}

/// Shows a topic: its configuration and its partitions.
#[utoipa::path(
    get, path = "/topics/{topic}", tag = "topics",
    params(("topic" = inline(forms::Name), Path, description = "The topic")),
    responses(
        (status = 200, description = "The topic", body = Topic),
        (status = 404, description = "There is none of this name", body = ProblemDocument),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn one(
    State(face): State<Face>,
    topic: Named,
    _: NoQuery,
) -> Result<Response, Problem> {
    let name: TopicName = topic.parse()?;
    let view = face.0.node.view();
    let Some(topic) = view.topics.get(&name) else {
        return Err(Refused::NoTopic(name).into());
    };
    let shards = face.describe().await?;
    let held = by_partition(&shards);
    let parts = partitions_of(&view, topic);
    let shown: Vec<Partition> =
        parts.iter().map(|part| partition(&view, part, held.get(&part.id).copied())).collect();
    let shown = Topic {
        name: name.to_string(),
        config: Config::of(&topic.config),
        replication_in_effect: parts.iter().map(|part| part.in_sync.len()).min().unwrap_or(0),
        message_count: shown.iter().map(|part| part.message_count).sum(),
        subscribers: subscribers(&view, &name),
        storage_tier: STORAGE_TIER,
        partitions: shown,
    };
    Ok(json(StatusCode::OK, &shown))
}

type Held<'a> = BTreeMap<PartitionId, &'a PartitionStatus>;

fn by_partition(shards: &[ShardStatus]) -> Held<'_> {
    let all = shards.iter().flat_map(|shard| &shard.partitions);
    all.map(|status| (status.partition, status)).collect()
}

fn partitions_of<'a>(view: &'a View, topic: &topic::Topic) -> Vec<&'a metadata::Partition> {
    let ranges = topic.partitions.iter();
    ranges.filter_map(|range| view.partitions.get(&range.partition)).map(Arc::as_ref).collect()
}

fn subscribers(view: &View, name: &TopicName) -> Vec<String> {
    let ids = view.subscribers.get(name).map_or(&[][..], |ids| ids.as_slice());
    ids.iter().map(ToString::to_string).collect()
}

fn summary(view: &View, held: &Held<'_>, topic: &topic::Topic) -> Summary {
    let parts = partitions_of(view, topic);
    let mut nodes: Vec<DiskId> = parts.iter().flat_map(|part| &part.replicas).copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let subscriber_count = subscribers(view, &topic.name).len();
    let messages = parts.iter().filter_map(|part| held.get(&part.id)).map(|part| part.messages);
    Summary {
        name: topic.name.to_string(),
        message_count: messages.sum(),
        subscriber_count,
        has_subscribers: subscriber_count > 0,
        nodes: nodes.iter().map(|disk| node_name(view, *disk)).collect(),
        storage_tier: STORAGE_TIER,
        partitions: parts.len(),
    }
}

fn partition(view: &View, part: &metadata::Partition, held: Option<&PartitionStatus>) -> Partition {
    let those = |which: fn(&metadata::Member) -> bool| {
        let those = part.in_sync.iter().filter(|one| which(one)).map(|one| one.disk);
        those.collect::<Vec<_>>()
    };
    let names = |disks: &[DiskId]| disks.iter().map(|disk| node_name(view, *disk)).collect();
    Partition {
        partition: part.number,
        id: part.id.0,
        epoch: part.epoch.0,
        leader: part.led_by().map(|leader| node_name(view, leader)),
        replicas: names(&part.replicas),
        in_sync: names(&those(|_| true)),
        lost: names(&those(|one| !one.counts())),
        tail: names(&those(|one| one.counts() && !one.is_electable())),
        min_in_sync: part.min_in_sync,
        frozen: part.frozen,
        trusted: part.trusted,
        serving: held.is_some_and(|held| held.serving),
        start_offset: held.map_or(0, |held| held.start.0),
        end_offset: held.map_or(0, |held| held.end.0),
        message_count: held.map_or(0, |held| held.messages),
        bytes: held.map_or(0, |held| held.bytes),
        delayed: held.map_or(0, |held| held.delayed),
        window_ids: held.map_or(0, |held| held.window_ids),
        damaged: held.and_then(|held| held.damaged.as_ref()).map(ToString::to_string),
    }
}

/// What people call the node of a disk; the disk itself where it is not registered.
fn node_name(view: &View, disk: DiskId) -> String {
    view.nodes.get(&disk).map_or_else(|| disk.to_string(), |node| node.name.clone())
}
