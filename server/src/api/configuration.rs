//! How a topic is kept: PUT, PATCH and DELETE /topics/{topic}, and DELETE of its messages.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use sprawl_core::broker::replica::PAYLOAD_BYTES_MAX;
use sprawl_core::cluster::topic::{
    ConfigPatch, DEAD_LETTERS, Durability, PARTITIONS_MAX, TopicConfig,
};
use sprawl_core::ids::{NUMBER_MAX, Offset, TopicName};
use sprawl_core::machine::{ControlRequest, Refused, Request};
use utoipa::ToSchema;

use super::query::{Named, NoQuery, Query};
use super::subscriptions::Deleted;
use super::{Face, answer, body, forms, json, whole};
use crate::duration::Span;
use crate::problem::{Kind, Problem, ProblemDocument};

/// How many nodes may hold a partition.
const REPLICATION: RangeInclusive<u32> = 1..=15;
/// How long messages may be retained, and live.
const LIFE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(100 * 365 * 24 * 3_600);
/// The least that a partition may retain, in bytes.
const RETENTION_BYTES_MIN: u64 = 1 << 20;

/// How a topic is to be kept; what is not named stays as it is, or is the default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    /// Into how many partitions it is divided; fixed when it is made.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(minimum = 1, maximum = 1024)]
    partitions: Option<u32>,
    /// How many nodes are to hold each partition.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(minimum = 1, maximum = 15)]
    replication: Option<u32>,
    /// When a publish is acknowledged: when it is synced on every node that counts (`fsync`), when
    /// all of these have received it (`replicated`), or when the leader has (`leader`).
    #[serde(default)]
    #[schema(pattern = "^(fsync|replicated|leader)$")]
    durability: Option<String>,
    /// How long a message is retained at least; `null` is for ever.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<forms::Span>, inline)]
    retention: Option<Option<Span>>,
    /// How many bytes a partition retains, about; `null` is without bound.
    #[serde(default, deserialize_with = "whole::whole_or_null")]
    #[schema(value_type = Option<u64>, minimum = 1_048_576)]
    retention_bytes: Option<Option<u64>>,
    /// After how long a message that does not say itself is not delivered any more.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<forms::Span>, inline)]
    ttl: Option<Option<Span>>,
    /// The largest payload, in bytes.
    #[serde(default, deserialize_with = "whole::whole_or_null")]
    #[schema(value_type = Option<u32>, maximum = 67_108_864)]
    max_message_bytes: Option<Option<u32>>,
    /// Where messages go that cannot be delivered; `null` is `_dead.` and the topic's name.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<forms::Name>, inline)]
    dead_letter_topic: Option<Option<String>>,
}

/// `null` is a value; a field that is not there is none.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// How a topic is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct Config {
    /// Into how many partitions it is divided.
    partitions: u32,
    /// How many nodes are to hold each partition.
    replication: u32,
    /// When a publish is acknowledged: `fsync`, `replicated` or `leader`.
    durability: &'static str,
    /// How many seconds a message is retained at least; `null` is for ever.
    retention: Option<f64>,
    /// How many bytes a partition retains, about; `null` is without bound.
    retention_bytes: Option<u64>,
    /// After how many seconds a message that does not say itself is not delivered any more.
    ttl: Option<f64>,
    /// The largest payload, in bytes, where it is less than the node's own.
    max_message_bytes: Option<u32>,
    /// Where messages go that cannot be delivered; `null` is `_dead.` and the topic's name.
    dead_letter_topic: Option<String>,
}

impl Config {
    pub(super) fn of(config: &TopicConfig) -> Self {
        Self {
            partitions: config.partitions,
            replication: config.replication,
            durability: config.durability.name(),
            retention: config.retention.map(|span| span.as_secs_f64()),
            retention_bytes: config.retention_bytes,
            ttl: config.ttl.map(|span| span.as_secs_f64()),
            max_message_bytes: config.message_bytes_max,
            dead_letter_topic: config.dead_letter_topic.as_ref().map(ToString::to_string),
        }
    }
}

impl Wishes {
    fn patch(self) -> Result<ConfigPatch, Problem> {
        let partitions = 1..=PARTITIONS_MAX;
        if self.partitions.is_some_and(|count| !partitions.contains(&count)) {
            return Err(impossible("partitions", &format!("it is from 1 to {PARTITIONS_MAX}")));
        }
        if self.replication.is_some_and(|count| !REPLICATION.contains(&count)) {
            let (least, most) = (REPLICATION.start(), REPLICATION.end());
            return Err(impossible("replication", &format!("it is from {least} to {most}")));
        }
        if matches!(self.retention_bytes, Some(Some(bytes)) if bytes < RETENTION_BYTES_MIN) {
            let why = format!("it is at least {RETENTION_BYTES_MIN}");
            return Err(impossible("retention_bytes", &why));
        }
        let largest = u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u32::MAX);
        if matches!(self.max_message_bytes, Some(Some(bytes)) if bytes > largest) {
            return Err(impossible("max_message_bytes", &format!("it is at most {largest}")));
        }
        let dead_letter_topic = self.dead_letter_topic.map(|name| name.map(dead_letters));
        Ok(ConfigPatch {
            partitions: self.partitions,
            replication: self.replication,
            durability: self.durability.as_deref().map(durability).transpose()?,
            retention: life("retention", self.retention)?,
            retention_bytes: self.retention_bytes,
            ttl: life("ttl", self.ttl)?,
            message_bytes_max: self.max_message_bytes,
            dead_letter_topic: dead_letter_topic.map(Option::transpose).transpose()?,
        })
    }
}

fn durability(name: &str) -> Result<Durability, Problem> {
    let known = Durability::ALL.iter().find(|(known, _)| *known == name);
    let why = || impossible("durability", &"it is fsync, replicated or leader");
    known.map(|(_, level)| *level).ok_or_else(why)
}

fn life(field: &str, given: Option<Option<Span>>) -> Result<Option<Option<Duration>>, Problem> {
    match given {
        Some(Some(Span(span))) if !LIFE.contains(&span) => {
            let (least, most) = (LIFE.start().as_secs(), LIFE.end().as_secs());
            Err(impossible(field, &format!("it is from {least} s to {most} s, or null")))
        }
        given => Ok(given.map(|span| span.map(|Span(span)| span))),
    }
}

fn dead_letters(name: String) -> Result<TopicName, Problem> {
    let topic: TopicName = name.parse().map_err(|error| impossible("dead_letter_topic", &error))?;
    if topic.is_system() && !is_dead_letters(&topic) {
        let why = format!("of the system's own names, only those of '{DEAD_LETTERS}' may be used");
        return Err(impossible("dead_letter_topic", &why));
    }
    Ok(topic)
}

/// Whether a topic is the system's own for dead letters.
pub(super) fn is_dead_letters(topic: &TopicName) -> bool {
    topic.as_str().split('.').next() == Some(DEAD_LETTERS)
}

fn impossible(field: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::Impossible, format!("{field}: {why}"))
}

/// Makes a topic, or keeps it as is said and by default in all else.
#[utoipa::path(
    put, path = "/topics/{topic}", tag = "topics",
    params(("topic" = inline(forms::Name), Path, description = "The topic")),
    request_body = Wishes,
    responses(
        (status = 200, description = "How it is kept now", body = Config),
        (status = "4XX", description = "Nothing was changed", body = ProblemDocument),
        (status = 503, description = "Nothing was changed; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn put(
    State(face): State<Face>,
    topic: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let topic: TopicName = topic.parse()?;
    let known = face.0.node.view().topics.contains_key(&topic);
    if topic.is_system() && !known && !is_dead_letters(&topic) {
        return Err(impossible("topic", &"names that begin with '_' are the system's own"));
    }
    configure(&face, topic, request, true).await
}

/// Keeps a topic in another way; what is not named stays as it is.
#[utoipa::path(
    patch, path = "/topics/{topic}", tag = "topics",
    params(("topic" = inline(forms::Name), Path, description = "The topic")),
    request_body = Wishes,
    responses(
        (status = 200, description = "How it is kept now", body = Config),
        (status = "4XX", description = "Nothing was changed", body = ProblemDocument),
        (status = 503, description = "Nothing was changed; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn patch(
    State(face): State<Face>,
    topic: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let topic: TopicName = topic.parse()?;
    if !face.0.node.view().topics.contains_key(&topic) {
        return Err(Refused::NoTopic(topic).into());
    }
    configure(&face, topic, request, false).await
}

async fn configure(
    face: &Face,
    topic: TopicName,
    request: HttpRequest,
    reset: bool,
) -> Result<Response, Problem> {
    let held = face.read_body(request).await?;
    let patch = body::parse::<Wishes>(&held.bytes)?.patch()?;
    let name = topic.clone();
    face.change(ControlRequest::ConfigureTopic { name, patch, reset }).await?;
    let view = face.0.node.view();
    let held = view.topics.get(&topic).ok_or(Refused::NoTopic(topic))?;
    Ok(json(StatusCode::OK, &Config::of(&held.config)))
}

/// Removes a topic and all that it holds.
#[utoipa::path(
    delete, path = "/topics/{topic}", tag = "topics",
    params(("topic" = inline(forms::Name), Path, description = "The topic")),
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = 404, description = "There is none of this name", body = ProblemDocument),
        (status = 503, description = "It is still there; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn delete(
    State(face): State<Face>,
    topic: Named,
    _: NoQuery,
) -> Result<Response, Problem> {
    let name: TopicName = topic.parse()?;
    face.change(ControlRequest::DeleteTopic { name: name.clone() }).await?;
    Ok(json(StatusCode::OK, &Deleted::named(name)))
}

/// What a removal left.
#[derive(Serialize, ToSchema)]
pub(super) struct Purged {
    /// Always `purged`.
    status: &'static str,
    /// The topic.
    topic: String,
    /// The partitions whose oldest messages are gone.
    partitions: Vec<Left>,
}

/// What is left of a partition.
#[derive(Serialize, ToSchema)]
struct Left {
    /// Its number within the topic.
    partition: u32,
    /// The first offset that it retains.
    start_offset: u64,
}

/// Removes the messages of a topic, or the oldest of one partition.
#[utoipa::path(
    delete, path = "/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = inline(forms::Name), Path, description = "The topic"),
        ("partition" = Option<u32>, Query, description = "One partition; all without it"),
        ("before" = inline(Option<forms::Position>), Query,
            description = "Only those below this offset; it needs a partition"),
    ),
    responses(
        (status = 200, description = "They are gone", body = Purged),
        (status = "4XX", description = "Nothing was removed", body = ProblemDocument),
        (status = 503, description = "Not all were removed; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn purge(
    State(face): State<Face>,
    topic: Named,
    mut query: Query,
) -> Result<Response, Problem> {
    let topic: TopicName = topic.parse()?;
    let (partition, before) = (query.optional("partition")?, query.position("before")?);
    query.end("partition, before")?;
    if before.is_some() && partition.is_none() {
        let detail = "before: offsets are a partition's own; say which partition";
        return Err(Problem::new(Kind::Impossible, detail));
    }
    let view = face.0.node.view();
    let count = view.topics.get(&topic).map_or(1, |topic| topic.partitions.len() as u32);
    let mut partitions = Vec::new();
    for partition in partition.map_or(0..count, |one: u32| one..one.saturating_add(1)) {
        let below = before.unwrap_or(Offset(NUMBER_MAX));
        let request = Request::Trim { topic: topic.clone(), partition, below };
        let start = answer::trimmed(face.ask(request, Duration::ZERO).await)?;
        partitions.push(Left { partition, start_offset: start.0 });
    }
    let topic = topic.to_string();
    Ok(json(StatusCode::OK, &Purged { status: "purged", topic, partitions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ConfigPatch, Kind> {
        let wishes = body::parse::<Wishes>(text.as_bytes());
        wishes.and_then(Wishes::patch).map_err(|problem| problem.kind())
    }

    #[test]
    fn null_is_without_bound_and_absence_is_no_wish() {
        let patch = read(r#"{"retention":null,"ttl":"10s","partitions":3}"#).expect("a patch");
        let wanted = ConfigPatch {
            partitions: Some(3),
            retention: Some(None),
            ttl: Some(Some(Duration::from_secs(10))),
            ..ConfigPatch::default()
        };
        assert_eq!(patch, wanted);
        assert_eq!(read("{}"), Ok(ConfigPatch::default()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (bad, kind) in [
            (r#"{"partitions":0}"#, Kind::Impossible),
            (r#"{"partitions":4000000000}"#, Kind::Impossible),
            (r#"{"partitions":-1}"#, Kind::Malformed),
            (r#"{"replication":99}"#, Kind::Impossible),
            (r#"{"durability":"none"}"#, Kind::Impossible),
            (r#"{"retention":"1ms"}"#, Kind::Impossible),
            (r#"{"retention_bytes":1}"#, Kind::Impossible),
            (r#"{"dead_letter_topic":"_raft"}"#, Kind::Impossible),
            (r#"{"color":"red"}"#, Kind::Malformed),
            ("[]", Kind::Malformed),
        ] {
            assert_eq!(read(bad), Err(kind), "{bad}");
        }
    }
}
