//! The JSON form of a message, the same on every path by which one is read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sprawl_core::broker::delivery::Delivered;
use sprawl_core::broker::replica::{BadEntry, Body, Record};
use sprawl_core::ids::{MessageId, Priority, TopicName};
use utoipa::ToSchema;

use crate::duration;

/// A message, as every read gives it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Message {
    /// What names it; the same id again is the same message.
    #[schema(value_type = String)]
    id: MessageId,
    /// Its topic.
    #[schema(value_type = String)]
    topic: TopicName,
    /// The number of its partition within the topic.
    partition: u32,
    /// Its offset in the partition.
    offset: u64,
    /// Its key, if it has one.
    key: Option<String>,
    /// Who numbers its messages, if somebody does, and its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// The payload, when its bytes are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    payload: Option<Text>,
    /// The payload in base64, when its bytes are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// The media type of the payload, where the publisher said one.
    content_type: Option<String>,
    /// Its headers.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Headers,
    /// When it was stored, as RFC 3339.
    timestamp: String,
    /// Until when subscriptions do not receive it, where it was delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    /// From when on nobody receives it, where it has an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// How urgent it is, where that is not 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// Which delivery of it this is, from 1; from subscriptions only.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// What acknowledges it; from subscriptions only.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_token: Option<String>,
}

impl Message {
    /// The message of an entry that was read without a subscription.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when the entry is no message; it is then damaged.
    pub fn of(topic: &TopicName, partition: u32, record: &Record) -> Result<Self, BadEntry> {
        let Body::Message(draft) = record.body()? else {
            return Err(BadEntry::Malformed("a note stands where a message should".to_owned()));
        };
        let timing = record.header().timing;
        let sequence = draft.envelope.sequence;
        let (payload, payload_base64) = match std::str::from_utf8(&draft.payload) {
            Ok(_) => (Some(Text(draft.payload)), None),
            Err(_) => (None, Some(STANDARD.encode(&draft.payload))),
        };
        Ok(Self {
            id: draft.envelope.id,
            topic: topic.clone(),
            partition,
            offset: record.header().offset.0,
            key: draft.envelope.key,
            sequence: sequence.as_ref().map(|sequence| sequence.number),
            producer: sequence.map(|sequence| sequence.producer.into()),
            payload,
            payload_base64,
            content_type: draft.envelope.content_type,
            headers: Headers(draft.envelope.headers),
            timestamp: duration::rfc3339(record.header().time),
            deliver_at: (timing.due.0 > 0).then(|| duration::rfc3339(timing.due)),
            expires_at: timing.expires.map(duration::rfc3339),
            priority: Some(timing.priority)
                .filter(|priority| *priority != Priority::NORMAL)
                .map(Priority::number),
            attempt: None,
            ack_token: None,
        })
    }

    /// The message of a delivery.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when the entry is no message; it is then damaged.
    pub fn delivered(delivered: &Delivered) -> Result<Self, BadEntry> {
        let message = Self::of(&delivered.topic, delivered.partition, &delivered.record)?;
        let token = &delivered.token;
        Ok(Self { attempt: Some(token.attempt), ack_token: Some(token.to_string()), ..message })
    }
}

/// Bytes that are UTF-8, checked where it is made; a slice of the stored entry, not a copy.
#[derive(Clone)]
struct Text(Bytes);

impl std::fmt::Debug for Text {
    /// Payloads are not shown, wherever a message is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

/// Headers as a JSON object, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Headers;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of header names and texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        Ok(Headers(headers))
    }
}

#[cfg(test)]
mod tests {
    use sprawl_core::broker::replica::{Draft, Envelope, Header, Timing};
    use sprawl_core::ids::{EntryIndex, Epoch, Offset, PartitionId};
    use sprawl_core::machine::WallTime;

    use super::*;

    fn json(payload: &'static [u8]) -> String {
        let envelope = Envelope {
            id: "m-1".parse().expect("an id"),
            key: Some("k".to_owned()),
            sequence: None,
            content_type: None,
            headers: vec![("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        };
        let header = Header {
            epoch: Epoch(1),
            index: EntryIndex(3),
            offset: Offset(2),
            time: WallTime(1_500),
            is_message: true,
            timing: Timing::default(),
        };
        let body = Body::Message(Draft { envelope, payload: Bytes::from_static(payload) });
        let record = Record::seal(PartitionId(1), header, &body);
        let message = Message::of(&"t".parse().expect("a name"), 0, &record);
        serde_json::to_string(&message.expect("a message")).expect("JSON")
    }

    #[test]
    fn a_message_has_the_documented_form() {
        let head = r#"{"id":"m-1","topic":"t","partition":0,"offset":2,"key":"k","#;
        let tail = r#""content_type":null,"headers":{"b":"1","a":"2"},"#;
        let time = r#""timestamp":"1970-01-01T00:00:01.5Z"}"#;
        assert_eq!(json(b"a\"b"), format!(r#"{head}"payload":"a\"b",{tail}{time}"#));
        assert_eq!(json(b"\xff\x00"), format!(r#"{head}"payload_base64":"/wA=",{tail}{time}"#));
    }
}
