//! A message as clients write it, and as the core takes it.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sprawl_core::broker::replica::{Draft, Envelope, Submission, Terms};
use sprawl_core::ids::{MessageId, NUMBER_MAX, Offset, Priority, Sequence, Source, TopicName};
use utoipa::ToSchema;

use super::{Face, body, forms, whole};
use crate::duration::Span;
use crate::message::Headers;
use crate::problem::{Kind, Problem};

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
    #[schema(value_type = forms::Name, inline)]
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
    #[schema(value_type = Option<forms::Id>, inline)]
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
    /// After how long it is not delivered any more; without it, the topic's own.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    ttl: Option<Span>,
    /// For how long subscriptions do not receive it.
    #[serde(default)]
    #[schema(value_type = Option<forms::Span>, inline)]
    delay: Option<Span>,
    /// How urgent it is to subscriptions, 0 to 9; 4 without it.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u64>,
    /// Who numbers its messages: a name of the client's choice. Goes with
    /// `sequence`: both are given, or neither.
    #[serde(default)]
    #[schema(value_type = Option<forms::Name>, inline)]
    producer: Option<String>,
    /// The message's number among its producer's, which rise: the same again is the same message.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(value_type = Option<forms::Position>, inline)]
    sequence: Option<u64>,
    /// The only offset at which it is to be stored: 409 when the next one is another.
    #[serde(default, deserialize_with = "whole::whole")]
    #[schema(value_type = Option<forms::Position>, inline)]
    expected_offset: Option<u64>,
}

/// `null` is a JSON value like any other; a payload that is not there is not one.
fn given<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

fn impossible(field: &str, why: &dyn Display) -> Problem {
    Problem::new(Kind::Impossible, format!("{field}: {why}"))
}

/// Reads a message. What needs no unescaping of its payload is a slice of `body`, of which `json`
/// is a part.
pub(super) fn read(
    source: Source,
    body: &Bytes,
    json: &[u8],
    face: &Face,
) -> Result<Submission, Problem> {
    let publish: Publish<'_> = body::parse(json)?;
    let payload = match (publish.payload, publish.payload_base64) {
        (Some(value), None) => text(body, value)?,
        (None, Some(value)) => decoded(value)?,
        (Some(_), Some(_)) => {
            let detail = "payload and payload_base64 are both given; give one";
            return Err(Problem::new(Kind::Impossible, detail));
        }
        (None, None) => {
            let detail = "a message has a payload or a payload_base64; it may be empty";
            return Err(Problem::new(Kind::Impossible, detail));
        }
    };
    let envelope = Envelope {
        id: id(publish.id, face)?,
        key: publish.key,
        sequence: sequence(publish.producer.as_deref(), publish.sequence)?,
        content_type: publish.content_type,
        headers: publish.headers.unwrap_or_default().0,
    };
    let terms = Terms {
        ttl: publish.ttl.map(|span| span.0),
        delay: publish.delay.map(|span| span.0).unwrap_or_default(),
        priority: publish.priority.map_or(Ok(Priority::NORMAL), priority)?,
        expected: publish
            .expected_offset
            .map(Offset::try_from)
            .transpose()
            .map_err(|error| impossible("expected_offset", &error))?,
    };
    submission(source, topic(&publish.topic)?, Draft { envelope, payload }, terms)
}

/// The name of a topic that clients may publish to.
pub(super) fn topic(name: &str) -> Result<TopicName, Problem> {
    let topic: TopicName = name.parse().map_err(|error| impossible("topic", &error))?;
    if topic.is_system() {
        return Err(impossible("topic", &"names that begin with '_' are the system's own"));
    }
    Ok(topic)
}

/// The id that a client gave, or a new one.
pub(super) fn id(given: Option<String>, face: &Face) -> Result<MessageId, Problem> {
    let text = given.unwrap_or_else(|| face.0.mint.id());
    text.parse().map_err(|error| impossible("id", &error))
}

/// A message's number, which has a producer, and the other way round.
pub(super) fn sequence(
    producer: Option<&str>,
    number: Option<u64>,
) -> Result<Option<Sequence>, Problem> {
    match (producer, number) {
        (None, None) => Ok(None),
        (Some(producer), Some(number)) => {
            if number > NUMBER_MAX {
                return Err(impossible("sequence", &format!("{number} is above {NUMBER_MAX}")));
            }
            let producer = producer.parse().map_err(|error| impossible("producer", &error))?;
            Ok(Some(Sequence { producer, number }))
        }
        (Some(_), None) | (None, Some(_)) => {
            let detail = "producer and sequence go together: both or neither are given";
            Err(Problem::new(Kind::Impossible, detail))
        }
    }
}

pub(super) fn priority(number: u64) -> Result<Priority, Problem> {
    let priority = u8::try_from(number).ok().and_then(Priority::new);
    priority.ok_or_else(|| impossible("priority", &format!("{number} is not from 0 to 9")))
}

/// Checks the bounds that hold however a message came.
pub(super) fn submission(
    source: Source,
    topic: TopicName,
    draft: Draft,
    terms: Terms,
) -> Result<Submission, Problem> {
    let envelope = &draft.envelope;
    let too_long = |field: &str, max: usize| impossible(field, &format!("longer than {max} bytes"));
    if envelope.key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(too_long("key", KEY_BYTES_MAX));
    }
    if envelope.content_type.as_ref().is_some_and(|kind| kind.len() > CONTENT_TYPE_BYTES_MAX) {
        return Err(too_long("content_type", CONTENT_TYPE_BYTES_MAX));
    }
    if envelope.headers.len() > HEADERS_MAX {
        return Err(impossible("headers", &format!("more than {HEADERS_MAX}")));
    }
    let bytes: usize = envelope.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(too_long("headers", HEADERS_BYTES_MAX));
    }
    Ok(Submission { source, topic, draft, terms })
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
    let bytes = STANDARD.decode(text).map_err(|error| impossible("payload_base64", &error))?;
    Ok(Bytes::from(bytes))
}

/// The id of a message that was refused: the client's where one can be read, a new one where the
/// text is an object without one, none where it says nothing.
pub(super) fn id_of(json: &[u8], face: &Face) -> Option<String> {
    #[derive(Deserialize)]
    struct Only {
        #[serde(default)]
        id: Option<String>,
    }
    let Only { id } = serde_json::from_slice(json).ok()?;
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
