//! POST /topics/{topic}/redrive: dead letters go back to where they came from.

use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sprawl_core::broker::replica::{Body, Draft, Envelope, Record, Submission, Terms};
use sprawl_core::ids::{IdHash, MessageId, Offset, Source, TopicName};
use sprawl_core::machine::{FetchFrom, Request};
use utoipa::ToSchema;

use super::configuration::is_dead_letters;
use super::query::{Named, NoQuery};
use super::{Face, answer, body, fetch, forms, json, whole};
use crate::problem::{Kind, Problem, ProblemDocument};

/// The most messages that one request sends back.
const REDRIVE_MAX: usize = 1_000;
/// What the names of the headers begin with that say where a dead letter comes from.
const ORIGIN: &str = "Sprawl-Dead-";
/// The header that names the topic that it comes from.
const ORIGIN_TOPIC: &str = "Sprawl-Dead-Topic";

/// What to send back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redrive {
    /// How many of the oldest, 1 to 1000; 100 without it.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(minimum = 1, maximum = 1000)]
    max: Option<usize>,
}

/// What was sent back.
#[derive(Serialize, ToSchema)]
pub(super) struct Redriven {
    /// How many messages stand in their topics again, and here no more.
    redriven: usize,
    /// How many are left here.
    left: u64,
}

/// Sends the oldest dead letters of a topic back to the topics that they came from. Every
/// subscription there receives them anew.
#[utoipa::path(
    post, path = "/topics/{topic}/redrive", tag = "topics",
    params(("topic" = inline(forms::Name), Path, description = "A topic of dead letters")),
    request_body = Redrive,
    responses(
        (status = 200, description = "They are back", body = Redriven),
        (status = 422, description = "The oldest message is no dead letter",
            body = ProblemDocument),
        (status = "4XX", description = "Nothing was sent back", body = ProblemDocument),
        (status = 503, description = "Not all were sent back; try again", body = ProblemDocument),
        (status = 504, description = "Not known; ask again", body = ProblemDocument),
    )
)]
pub(super) async fn redrive(
    State(face): State<Face>,
    topic: Named,
    _: NoQuery,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let topic: TopicName = topic.parse()?;
    let held = face.read_body(request).await?;
    let asked = match held.bytes.iter().all(u8::is_ascii_whitespace) {
        true => Redrive { max: None },
        false => body::parse(&held.bytes)?,
    };
    let max = asked.max.unwrap_or(100);
    if !(1..=REDRIVE_MAX).contains(&max) {
        let detail = format!("max: {max} is not from 1 to {REDRIVE_MAX}");
        return Err(Problem::new(Kind::Impossible, detail));
    }
    let view = face.0.node.view();
    let count = view.topics.get(&topic).map_or(1, |topic| topic.partitions.len() as u32);
    let (mut redriven, mut left) = (0, 0);
    for partition in 0..count {
        let done = drive(&face, held.source(), (&topic, partition), max - redriven).await?;
        redriven += done.0;
        left += done.1;
    }
    Ok(json(StatusCode::OK, &Redriven { redriven, left }))
}

/// Sends the oldest of one partition back; gives how many, and how many are left.
async fn drive(
    face: &Face,
    source: Source,
    (topic, partition): (&TopicName, u32),
    max: usize,
) -> Result<(usize, u64), Problem> {
    let (count_max, wait, from) = (max.max(1), Duration::ZERO, FetchFrom::Offset(Offset(0)));
    let request = Request::Fetch { topic: topic.clone(), partition, from, count_max, wait };
    let page = answer::fetched(face.ask(request, wait).await)?;
    let records = &page.records[..page.records.len().min(max)];
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        items.push(submission(source, topic, partition, record)?);
    }
    // In order, so that what is removed here stands there, all of it.
    let mut stored = 0;
    for response in face.publish_batch(items).await {
        match answer::published(response) {
            Ok(_) => stored += 1,
            Err(problem) if stored == 0 => return Err(problem),
            Err(_) => break,
        }
    }
    let below = match records.get(stored) {
        Some(next) => next.header().offset,
        None if records.is_empty() => return Ok((0, page.end.0.saturating_sub(page.start.0))),
        None => page.next,
    };
    let request = Request::Trim { topic: topic.clone(), partition, below };
    let start = answer::trimmed(face.ask(request, Duration::ZERO).await)?;
    Ok((stored, page.end.0.saturating_sub(start.0)))
}

/// A dead letter as it was before. Its id follows from where it stands here, so that it is sent
/// back once however often this is tried.
fn submission(
    source: Source,
    topic: &TopicName,
    partition: u32,
    record: &Record,
) -> Result<Submission, Problem> {
    let body = record.body().map_err(fetch::damaged)?;
    let offset = record.header().offset;
    let not_dead = || {
        let detail = format!("the message at offset {offset} of '{topic}' is no dead letter");
        Problem::new(Kind::Impossible, detail)
    };
    let Body::Message(Draft { envelope, payload }) = body else { return Err(not_dead()) };
    let origin = envelope.headers.iter().find(|(name, _)| name == ORIGIN_TOPIC);
    let origin = origin.and_then(|(_, topic)| topic.parse::<TopicName>().ok());
    // A client may have written the header: what it may not publish to, it may not reach so.
    let origin = origin.filter(|topic| !topic.is_system() || is_dead_letters(topic));
    let origin = origin.ok_or_else(not_dead)?;
    let mut headers = envelope.headers;
    headers.retain(|(name, _)| !name.starts_with(ORIGIN));
    let place = format!("{topic} {partition} {offset} {}", record.header().time.0);
    let id = format!("redriven-{:032x}", IdHash::of(place.as_bytes()).0);
    let id: MessageId = id.parse().map_err(|_| not_dead())?;
    let draft = Draft { envelope: Envelope { id, headers, sequence: None, ..envelope }, payload };
    Ok(Submission { source, topic: origin, draft, terms: Terms::default() })
}
