//! The frames of a subscription's WebSocket: JSON objects, told apart by `type`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sprawl_core::broker::delivery::Delivered;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

use super::publish::Published;
use super::verdicts::{Acknowledge, Extend, GiveBack, Judged, Settled};
use super::{body, fetch};
use crate::message::Message;
use crate::problem::{Kind, Problem, ProblemDocument};

/// The longest `ref`, in bytes.
const REF_BYTES_MAX: usize = 256;

/// What a client's frames may be.
const KINDS: &str = "credit, ack, nack, extend, publish";

/// What a client says.
pub(super) enum Up {
    /// It takes so many more messages.
    Credit(usize),
    /// It says what is to become of messages.
    Settle(Judged),
    /// It publishes; these are the bytes of what would be the body of POST /publish.
    Publish(Bytes),
}

/// A frame from a client, and the `ref` that its answer is to bear.
pub(super) struct Heard {
    pub(super) reference: Option<String>,
    pub(super) said: Result<Up, Problem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    messages: u32,
}

/// Understands a frame.
pub(super) fn read(text: &str) -> Heard {
    let mut fields: BTreeMap<String, &RawValue> = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) => {
            let detail = format!("the frame is not a JSON object: {error}");
            return Heard { reference: None, said: Err(Problem::new(Kind::Malformed, detail)) };
        }
    };
    match reference(fields.remove("ref")) {
        Ok(reference) => Heard { reference, said: understand(fields) },
        Err(problem) => Heard { reference: None, said: Err(problem) },
    }
}

fn reference(value: Option<&RawValue>) -> Result<Option<String>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let text: Option<String> = serde_json::from_str(value.get())
        .map_err(|_| Problem::new(Kind::Malformed, "ref: it is a string"))?;
    if text.as_ref().is_some_and(|text| text.len() > REF_BYTES_MAX) {
        let detail = format!("ref: longer than {REF_BYTES_MAX} bytes");
        return Err(Problem::new(Kind::Impossible, detail));
    }
    Ok(text)
}

/// The one place that knows what a client may say. Each kind is the body of the request that does
/// the same.
fn understand(mut fields: BTreeMap<String, &RawValue>) -> Result<Up, Problem> {
    let kind = fields.remove("type");
    let kind: Option<String> = kind.and_then(|kind| serde_json::from_str(kind.get()).ok());
    let rest = || {
        let rest = serde_json::to_vec(&fields);
        rest.map_err(|error| Problem::new(Kind::Malformed, error.to_string()))
    };
    match kind.as_deref() {
        Some("credit") => {
            let Credit { messages } = body::parse(&rest()?)?;
            Ok(Up::Credit(usize::try_from(messages).unwrap_or(usize::MAX)))
        }
        Some("ack") => Ok(Up::Settle(body::parse::<Acknowledge>(&rest()?)?.try_into()?)),
        Some("nack") => Ok(Up::Settle(body::parse::<GiveBack>(&rest()?)?.try_into()?)),
        Some("extend") => Ok(Up::Settle(body::parse::<Extend>(&rest()?)?.try_into()?)),
        Some("publish") => Ok(Up::Publish(rest()?.into())),
        Some(other) => {
            let detail = format!("type: this version does not have '{other}'; it has: {KINDS}");
            Err(Problem::new(Kind::Malformed, detail))
        }
        None => {
            let detail = format!("type: every frame says its own: {KINDS}");
            Err(Problem::new(Kind::Malformed, detail))
        }
    }
}

/// What the node says.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Down<'a> {
    Message(Box<Message>),
    Acked(Answer<'a, Settled>),
    Published(Answer<'a, Published>),
    Problem(Refusal<'a>),
}

/// An answer, and the `ref` of what it answers.
#[derive(Serialize)]
struct Answer<'a, T> {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(flatten)]
    answer: T,
}

/// The document has a `type` of its own and therefore a field of its own.
#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    problem: ProblemDocument<'a>,
}

fn frame(down: &Down<'_>) -> Frame {
    Frame::text(serde_json::to_string(down).expect("answers and problems have a JSON form"))
}

/// A message of the subscription.
pub(super) fn message(delivered: &Delivered) -> Frame {
    match Message::delivered(delivered).map_err(fetch::damaged) {
        Ok(message) => frame(&Down::Message(Box::new(message))),
        Err(damaged) => problem(None, &damaged),
    }
}

/// What was taken of verdicts.
pub(super) fn acked(reference: Option<&str>, answer: Settled) -> Frame {
    frame(&Down::Acked(Answer { reference, answer }))
}

/// Where a published message stands.
pub(super) fn published(reference: Option<&str>, answer: Published) -> Frame {
    frame(&Down::Published(Answer { reference, answer }))
}

/// Why something did not happen, or may not have.
pub(super) fn problem(reference: Option<&str>, problem: &Problem) -> Frame {
    frame(&Down::Problem(Refusal { reference, problem: problem.document() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) -> String {
        match read(text).said {
            Ok(_) => panic!("{text} was understood"),
            Err(problem) => serde_json::to_string(&problem.document()).expect("JSON"),
        }
    }

    #[test]
    fn frames_are_understood() {
        let heard = read(r#"{"type":"credit","messages":7,"ref":"a"}"#);
        assert!(matches!(heard.said, Ok(Up::Credit(7))));
        assert_eq!(heard.reference.as_deref(), Some("a"));
        assert!(matches!(read(r#"{"tokens":[],"type":"ack"}"#).said, Ok(Up::Settle(_))));
        let published = read(r#"{"type":"publish","topic":"t","payload":{ "a": [1, 2.50] }}"#);
        let Ok(Up::Publish(body)) = published.said else { panic!("it is a publish") };
        assert_eq!(body, r#"{"payload":{ "a": [1, 2.50] },"topic":"t"}"#.as_bytes());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, says) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "every frame says its own"),
            (r#"{"type":7}"#, "every frame says its own"),
            (r#"{"type":"nod"}"#, "does not have 'nod'"),
            (r#"{"type":"credit"}"#, "missing field `messages`"),
            (r#"{"type":"credit","messages":-1}"#, "expected form"),
            (r#"{"type":"credit","messages":1,"x":2}"#, "field 'x'"),
            (r#"{"type":"ack","tokens":7}"#, "expected form"),
            (r#"{"type":"credit","messages":1,"ref":2}"#, "ref: it is a string"),
        ] {
            let said = refused(text);
            assert!(said.contains(says), "{text}: {said}");
        }
        let long = format!(r#"{{"type":"credit","messages":1,"ref":"{}"}}"#, "x".repeat(257));
        assert!(refused(&long).contains("longer than 256 bytes"));
    }

    #[test]
    fn a_problem_keeps_its_document_whole() {
        let refusal = problem(Some("a"), &Problem::new(Kind::Malformed, "why"));
        let said: serde_json::Value =
            serde_json::from_str(refusal.to_text().expect("text")).expect("JSON");
        assert_eq!((&said["type"], &said["ref"]), (&"problem".into(), &"a".into()));
        assert_eq!(said["problem"]["type"], "urn:sprawl:problem:malformed");
    }
}
