//! The messages of a check: everything that a payload, a key and headers may be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::random;

/// The longest payload of the common kinds, in bytes.
const PAYLOAD_BYTES_MAX: usize = 2_048;
/// The payload of every so manieth message is large.
const LARGE_EVERY: usize = 100;
/// What a large payload has, in bytes.
const LARGE_BYTES: usize = 100_000;
/// Text that a careless reader of JSON alters.
const AWKWARD: &str = "\"\\/\u{8}\u{c}\n\r\t\0\u{7f} é ß 漢字 🦀 \u{2028} \u{fffd} end";

/// A message, as it is published and as it must come back.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) id: String,
    payload: Payload,
    key: Option<String>,
    headers: Map<String, Value>,
    content_type: Option<String>,
}

#[derive(Debug)]
enum Payload {
    Text(String),
    Bytes(Vec<u8>),
    /// Any other JSON value; it comes back as its text.
    Json(Value),
}

/// Makes messages whose ids bear the run's name and their number.
pub(super) fn make(run: &str, count: usize) -> anyhow::Result<Vec<Sample>> {
    let noise = random::bytes(LARGE_BYTES)?;
    let sample = |number: usize| Sample {
        id: format!("{run}-{number}"),
        payload: Payload::of(number, &noise),
        key: (number % 2 == 1).then(|| format!("key {} ü", number % 7)),
        headers: match number % 3 {
            0 => Map::new(),
            _ => [("number".to_owned(), json!(number.to_string())), ("b".to_owned(), json!(""))]
                .into_iter()
                .collect(),
        },
        content_type: number.is_multiple_of(5).then(|| "application/x-sample".to_owned()),
    };
    Ok((0..count).map(sample).collect())
}

impl Payload {
    fn of(number: usize, noise: &[u8]) -> Self {
        let bytes = match number % LARGE_EVERY {
            0 => noise,
            _ => {
                let from = number * 37 % (noise.len() - PAYLOAD_BYTES_MAX);
                &noise[from..from + number * 101 % PAYLOAD_BYTES_MAX]
            }
        };
        match number % 6 {
            0 => Self::Bytes(bytes.to_vec()),
            1 => Self::Text(String::new()),
            2 => Self::Text(format!("{AWKWARD} {number}")),
            3 => Self::Json(json!({ "number": number, "list": [null, 1.5, "\n"] })),
            4 => Self::Text(STANDARD.encode(bytes)),
            _ => Self::Json(Value::Null),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Json(value) => value.to_string().into_bytes(),
        }
    }
}

impl Sample {
    /// The message as the body of a publish.
    pub(super) fn body(&self, topic: &str) -> Value {
        let mut body = json!({
            "topic": topic, "id": self.id, "key": self.key, "headers": self.headers,
            "content_type": self.content_type,
        });
        match &self.payload {
            Payload::Text(text) => body["payload"] = json!(text),
            Payload::Bytes(bytes) => body["payload_base64"] = json!(STANDARD.encode(bytes)),
            Payload::Json(value) => body["payload"] = value.clone(),
        }
        body
    }

    /// What is altered in the message that came back; nothing when it is the same.
    pub(super) fn altered(&self, message: &Value) -> Option<&'static str> {
        let payload = match (&message["payload"], &message["payload_base64"]) {
            (Value::String(text), Value::Null) => Some(text.clone().into_bytes()),
            (Value::Null, Value::String(text)) => STANDARD.decode(text).ok(),
            _ => None,
        };
        let no_headers = message["headers"].is_null() && self.headers.is_empty();
        let same = [
            ("id", message["id"] == json!(self.id)),
            ("payload", payload.is_some_and(|payload| payload == self.payload.bytes())),
            ("key", message["key"] == json!(self.key)),
            ("headers", no_headers || message["headers"] == json!(self.headers)),
            ("content_type", message["content_type"] == json!(self.content_type)),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as a good node gives it back.
    fn given(sample: &Sample) -> Value {
        let mut message = sample.body("t");
        let bytes = sample.payload.bytes();
        match String::from_utf8(bytes) {
            Ok(text) => message["payload"] = json!(text),
            Err(error) => message["payload_base64"] = json!(STANDARD.encode(error.as_bytes())),
        }
        if message["payload"].is_string() {
            message["payload_base64"] = Value::Null;
        }
        message
    }

    #[test]
    fn what_comes_back_unaltered_is_found_so() {
        for sample in make("run", 700).expect("samples") {
            assert_eq!(sample.altered(&given(&sample)), None, "{sample:?}");
        }
    }

    #[test]
    fn every_alteration_is_found() {
        let samples = make("run", 7).expect("samples");
        for sample in &samples {
            for field in ["id", "payload", "key", "headers", "content_type"] {
                let mut message = given(sample);
                if field == "payload" {
                    message["payload_base64"] = Value::Null;
                }
                message[field] = json!("other");
                assert_eq!(sample.altered(&message), Some(field), "{sample:?}");
            }
        }
    }
}
