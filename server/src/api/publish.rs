//! POST /publish: one message in, its place out.

use std::time::Duration;

use axum::extract::{Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sprawl_core::broker::replica::{Draft, Envelope};
use sprawl_core::ids::{MessageId, TopicName};
use sprawl_core::machine::Request;
use utoipa::ToSchema;

use super::{Face, answer, body, json};
use crate::message::Headers;
use crate::problem::{Kind, Problem, ProblemDocument, Stored};

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 4_096;
/// The most headers of a message.
const HEADERS_MAX: usize = 100;
/// The longest names and values of all headers of a message, in bytes.
const HEADERS_BYTES_MAX: usize = 32 << 10;
/// The longest content type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// A message to publish.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish<'a> {
    /// The topic; it is made when it does not exist.
    topic: String,
    /// The payload: a string as it is, any other JSON value as its text. Or `payload_base64`.
    #[serde(borrow, default, deserialize_with = "given")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<&'a RawValue>,
    /// The payload's bytes in base64.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    payload_base64: Option<&'a RawValue>,
    /// What names the message: the same id again is the same message. The node makes one if none.
    #[serde(default)]
    id: Option<String>,
    /// Messages of one key stay in order.
    #[serde(default)]
    key: Option<String>,
    /// The media type of the payload.
    #[serde(default)]
    content_type: Option<String>,
    /// Names and texts that travel with the message.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    headers: Option<Headers>,
}

/// `null` is a JSON value like any other; a payload that is not there is not one.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

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
    request: HttpRequest,
) -> Result<Response, Problem> {
    let held = face.read_body(request).await.map_err(not_stored)?;
    Ok(json(StatusCode::OK, &store(&face, &held.bytes).await?))
}

/// What to say of a publish that could not be read.
pub(super) fn not_stored(problem: Problem) -> Problem {
    problem.of_publish(None, Stored::No)
}

/// Stores the message that this body spells, by whichever way it came.
pub(super) async fn store(face: &Face, body: &Bytes) -> Result<Published, Problem> {
    let (topic, draft) = match read(body, face) {
        Ok(message) => message,
        Err(problem) => {
            return Err(problem.of_publish(id_of(body, face), Stored::No));
        }
    };
    let id = draft.envelope.id.to_string();
    let request = Request::Publish { topic: topic.clone(), draft };
    let response = face.ask(request, Duration::ZERO).await;
    match answer::published(response) {
        Ok(place) => Ok(Published {
            status: "published",
            id,
            topic: topic.into(),
            partition: place.partition,
            offset: place.offset.0,
            duplicate: place.duplicate,
            stored: Stored::Yes,
        }),
        Err(problem) => {
            let unknown = problem.kind() == Kind::OutcomeUnknown;
            let stored = if unknown { Stored::Unknown } else { Stored::No };
            Err(problem.of_publish(Some(id), stored))
        }
    }
}

fn read(body: &Bytes, face: &Face) -> Result<(TopicName, Draft), Problem> {
    let publish: Publish<'_> =
        serde_json::from_slice(body).map_err(|error| body::not_understood(body, &error))?;
    let impossible = |field: &str, why: &dyn std::fmt::Display| {
        Problem::new(Kind::Impossible, format!("{field}: {why}"))
    };
    let topic = publish.topic.parse().map_err(|error| impossible("topic", &error))?;
    let id: MessageId = publish
        .id
        .unwrap_or_else(|| face.0.mint.id())
        .parse()
        .map_err(|error| impossible("id", &error))?;
    let payload = match (publish.payload, publish.payload_base64) {
        (Some(value), None) => text(body, value)?,
        (None, Some(value)) => decoded(value)?,
        (Some(_), Some(_)) => {
            let detail = "payload and payload_base64 are both given; give one";
            return Err(Problem::new(Kind::Malformed, detail));
        }
        (None, None) => {
            let detail = "a message has a payload or a payload_base64; it may be empty";
            return Err(Problem::new(Kind::Malformed, detail));
        }
    };
    let envelope = Envelope {
        id,
        key: publish.key,
        content_type: publish.content_type,
        headers: publish.headers.unwrap_or_default().0,
    };
    bounded(&envelope)?;
    Ok((topic, Draft { envelope, payload }))
}

fn bounded(envelope: &Envelope) -> Result<(), Problem> {
    let too_long = |field: &str, max: usize| {
        Problem::new(Kind::Impossible, format!("{field}: longer than {max} bytes"))
    };
    if envelope.key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(too_long("key", KEY_BYTES_MAX));
    }
    if envelope.content_type.as_ref().is_some_and(|kind| kind.len() > CONTENT_TYPE_BYTES_MAX) {
        return Err(too_long("content_type", CONTENT_TYPE_BYTES_MAX));
    }
    if envelope.headers.len() > HEADERS_MAX {
        let detail = format!("headers: more than {HEADERS_MAX}");
        return Err(Problem::new(Kind::Impossible, detail));
    }
    let bytes: usize = envelope.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(too_long("headers", HEADERS_BYTES_MAX));
    }
    Ok(())
}

/// The bytes of a payload given as JSON: what a string says, or the text of any other value. What
/// needs no unescaping is a slice of the body.
fn text(body: &Bytes, value: &RawValue) -> Result<Bytes, Problem> {
    let raw = value.get();
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(body.slice_ref(raw.as_bytes()));
    };
    if !inner.contains('\\') {
        return Ok(body.slice_ref(inner.as_bytes()));
    }
    let unescaped: String = serde_json::from_str(raw).map_err(|_| {
        Problem::new(Kind::Malformed, "payload: the string has an escape that spells no character")
    })?;
    Ok(Bytes::from(unescaped))
}

fn decoded(value: &RawValue) -> Result<Bytes, Problem> {
    let text: String = serde_json::from_str(value.get())
        .map_err(|_| Problem::new(Kind::Malformed, "payload_base64 is not a string"))?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| Problem::new(Kind::Impossible, format!("payload_base64: {error}")))?;
    Ok(Bytes::from(bytes))
}

/// The id of a message that was refused: the client's where one can be read, a new one where the
/// body is an object without one, none where the body says nothing.
fn id_of(body: &Bytes, face: &Face) -> Option<String> {
    #[derive(Deserialize)]
    struct Only {
        #[serde(default)]
        id: Option<String>,
    }
    let Only { id } = serde_json::from_slice(body).ok()?;
    Some(id.unwrap_or_else(|| face.0.mint.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json: &'static str) -> Option<Bytes> {
        let body = Bytes::from_static(json.as_bytes());
        let publish: Publish<'_> = serde_json::from_slice(&body).expect("a publish");
        publish.payload.map(|value| text(&body, value).expect("a payload"))
    }

    #[test]
    fn payloads_are_strings_or_the_text_of_json() {
        for (json, wanted) in [
            (r#"{"topic":"t","payload":"plain"}"#, Some("plain")),
            (r#"{"topic":"t","payload":""}"#, Some("")),
            (r#"{"topic":"t","payload":"a\n\u00e9\"b"}"#, Some("a\né\"b")),
            (r#"{"topic":"t","payload":"ends in \\"}"#, Some("ends in \\")),
            (r#"{"topic":"t","payload":{ "a": [1, 2.50] }}"#, Some(r#"{ "a": [1, 2.50] }"#)),
            (r#"{"topic":"t","payload":null}"#, Some("null")),
            (r#"{"topic":"t","payload":17}"#, Some("17")),
            (r#"{"topic":"t"}"#, None),
        ] {
            assert_eq!(payload(json).as_deref(), wanted.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn a_plain_payload_is_a_slice_of_the_body() {
        let body = Bytes::from_static(br#"{"topic":"t","payload":"plain"}"#);
        let publish: Publish<'_> = serde_json::from_slice(&body).expect("a publish");
        let payload = text(&body, publish.payload.expect("a payload")).expect("text");
        assert!(body.as_ptr_range().contains(&payload.as_ptr()));
    }
}
