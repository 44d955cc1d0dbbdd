//! POST /publish: one message in, its place out. POST /topics/{topic}/messages: the same with the
//! body as the payload.

use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use sprawl_core::broker::replica::{Draft, Envelope, Submission, Terms};
use sprawl_core::ids::{MessageId, Offset, Priority, TopicName};
use sprawl_core::machine::{self, Request};
use utoipa::ToSchema;

use super::body::Held;
use super::query::{Named, Query};
use super::submission::{self, Publish};
use super::{Face, answer, forms, json};
use crate::duration;
use crate::problem::{Kind, Problem, ProblemDocument, Stored};

/// A message is stored.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// Always `published`.
    status: &'static str,
    /// The id of the message.
    id: String,
    /// Its topic.
    topic: String,
    /// The number of its partition within the topic.
    partition: u32,
    /// Its offset in the partition.
    offset: u64,
    /// Whether the id was known, so that this is where the first one stands.
    duplicate: bool,
    /// Always `yes`.
    stored: Stored,
}

/// Stores one message durably.
#[utoipa::path(
    post, path = "/publish", tag = "messages", request_body = Publish,
    responses(
        (status = 200, description = "The message is on the disk", body = Published),
        (status = "4XX", description = "Nothing was stored", body = ProblemDocument),
        (status = 503, description = "Nothing was stored; try again", body = ProblemDocument),
        (status = 504, description = "Not known; publish again under the same id",
            body = ProblemDocument),
    )
)]
pub(super) async fn publish(
    State(face): State<Face>,
    query: Result<Query, Problem>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    query.and_then(|query| query.end("")).map_err(not_stored)?;
    let held = face.read_body(request).await.map_err(not_stored)?;
    Ok(json(StatusCode::OK, &store(&face, &held).await?))
}

/// What to say of a publish that could not be read.
pub(super) fn not_stored(problem: Problem) -> Problem {
    problem.of_publish(None, Stored::No)
}

/// Stores the message that this body spells, by whichever way it came.
pub(super) async fn store(face: &Face, held: &Held) -> Result<Published, Problem> {
    let body = &held.bytes;
    let pass = face.pass(held).await;
    let _pass =
        pass.map_err(|problem| problem.of_publish(submission::id_of(body, face), Stored::No))?;
    let submission = submission::read(held.source(), body, body, face)
        .map_err(|problem| problem.of_publish(submission::id_of(body, face), Stored::No))?;
    store_submission(face, submission).await
}

async fn store_submission(face: &Face, submission: Submission) -> Result<Published, Problem> {
    let (id, topic) = (submission.draft.envelope.id.clone(), submission.topic.clone());
    let response = face.ask(Request::Publish(submission), Duration::ZERO).await;
    outcome(&id, &topic, response)
}

/// What became of a message.
pub(super) fn outcome(
    id: &MessageId,
    topic: &TopicName,
    response: machine::Response,
) -> Result<Published, Problem> {
    let passed =
        matches!(response, machine::Response::Refused(machine::Refused::NumberPassed { .. }));
    match answer::published(response) {
        Ok(place) => Ok(Published {
            status: "published",
            id: id.to_string(),
            topic: topic.to_string(),
            partition: place.partition,
            offset: place.offset.0,
            duplicate: place.duplicate,
            stored: Stored::Yes,
        }),
        Err(problem) => {
            let unknown = passed || problem.kind() == Kind::OutcomeUnknown;
            let stored = if unknown { Stored::Unknown } else { Stored::No };
            Err(problem.of_publish(Some(id.to_string()), stored))
        }
    }
}

/// Stores the body as one message, whatever it is.
#[utoipa::path(
    post, path = "/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = inline(forms::Name), Path,
            description = "The topic; it is made when it does not exist"),
        ("Sprawl-Id" = inline(Option<forms::Id>), Header, description = "The message's id"),
        ("Sprawl-Key" = Option<String>, Header, description = "Its key"),
        ("Sprawl-Ttl" = inline(Option<forms::SpanText>), Header, description = "Its ttl"),
        ("Sprawl-Delay" = inline(Option<forms::SpanText>), Header, description = "Its delay"),
        ("Sprawl-Priority" = Option<u8>, Header, minimum = 0, maximum = 9,
            description = "Its priority"),
        ("Sprawl-Producer" = inline(Option<forms::Name>), Header,
            description = "Who numbers its messages"),
        ("Sprawl-Sequence" = inline(Option<forms::Position>), Header,
            description = "Its number, with a producer"),
        ("Sprawl-Expected-Offset" = inline(Option<forms::Position>), Header,
            description = "Its only offset"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The message is on the disk", body = Published),
        (status = "4XX", description = "Nothing was stored", body = ProblemDocument),
        (status = 503, description = "Nothing was stored; try again", body = ProblemDocument),
        (status = 504, description = "Not known; publish again under the same id",
            body = ProblemDocument),
    )
)]
pub(super) async fn publish_raw(
    State(face): State<Face>,
    topic: Result<Named, Problem>,
    query: Result<Query, Problem>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let topic = topic.map_err(not_stored)?;
    query.and_then(|query| query.end("")).map_err(not_stored)?;
    let headers = request.headers().clone();
    let held = face.read_body(request).await.map_err(not_stored)?;
    let given = text_of(&headers, "sprawl-id").map_err(not_stored)?;
    let refused = |problem: Problem| problem.of_publish(given.clone(), Stored::No);
    let _pass = face.pass(&held).await.map_err(refused)?;
    let read = || {
        let (envelope, terms) = described(&headers, given.clone(), &face)?;
        let draft = Draft { envelope, payload: held.bytes.clone() };
        submission::submission(held.source(), submission::topic(&topic.0)?, draft, terms)
    };
    let submission = read().map_err(refused)?;
    Ok(json(StatusCode::OK, &store_submission(&face, submission).await?))
}

/// The text of a header.
fn text_of(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let text = |value: &HeaderValue| {
        std::str::from_utf8(value.as_bytes())
            .map(str::to_owned)
            .map_err(|_| Problem::new(Kind::Malformed, format!("{name}: the header is not UTF-8")))
    };
    headers.get(name).map(text).transpose()
}

/// What the `Sprawl-*` headers say of a message. Other headers than those known are the message's
/// own when they begin with `Sprawl-Header-`, and a mistake when they begin with `Sprawl-`.
fn described(
    headers: &HeaderMap,
    id: Option<String>,
    face: &Face,
) -> Result<(Envelope, Terms), Problem> {
    let mut terms = Terms::default();
    let (mut key, mut own) = (None, Vec::new());
    let (mut producer, mut sequence) = (None, None);
    for name in headers.keys() {
        let Some(field) = name.as_str().strip_prefix("sprawl-") else { continue };
        let value = text_of(headers, name.as_str())?.unwrap_or_default();
        match field {
            "id" => {}
            "key" => key = Some(value),
            "ttl" => terms.ttl = Some(span(name, &value)?),
            "delay" => terms.delay = span(name, &value)?,
            "priority" => terms.priority = priority(name, &value)?,
            "producer" => producer = Some(value),
            "sequence" => sequence = Some(number(name, &value)?),
            "expected-offset" => terms.expected = Some(expected(name, &value)?),
            other => match other.strip_prefix("header-").filter(|name| !name.is_empty()) {
                Some(name) => own.push((name.to_owned(), value)),
                None => {
                    let detail = format!("this version does not have the header '{name}'");
                    return Err(Problem::new(Kind::Malformed, detail));
                }
            },
        }
    }
    let content_type = text_of(headers, CONTENT_TYPE.as_str())?;
    let sequence = submission::sequence(producer.as_deref(), sequence)?;
    let envelope =
        Envelope { id: submission::id(id, face)?, key, sequence, content_type, headers: own };
    Ok((envelope, terms))
}

fn span(name: &HeaderName, value: &str) -> Result<Duration, Problem> {
    duration::parse(value)
        .map_err(|error| Problem::new(Kind::Malformed, format!("{name}: {error}")))
}

fn number(name: &HeaderName, value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| {
        let detail = format!("{name}: '{value}' is not a whole number that fits");
        Problem::new(Kind::Malformed, detail)
    })
}

fn expected(name: &HeaderName, value: &str) -> Result<Offset, Problem> {
    let offset = Offset::try_from(number(name, value)?);
    offset.map_err(|error| Problem::new(Kind::Impossible, format!("{name}: {error}")))
}

fn priority(name: &HeaderName, value: &str) -> Result<Priority, Problem> {
    submission::priority(number(name, value)?)
}
