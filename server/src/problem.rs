//! Problem documents (RFC 9457): the only form in which a failure is told.

use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sprawl_core::machine::Refused;
use utoipa::ToSchema;

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// After how many seconds to try again what was refused for load, or before a leader serves.
const RETRY_SOON_SECONDS: u32 = 1;
/// After how many seconds to try again what a full disk refused: room is not made in a moment.
const RETRY_LATER_SECONDS: u32 = 10;

/// What kind of problem it is; each has a status, a title and a `type` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not understood.
    Malformed,
    /// It is understood, and asks for something that cannot be.
    Impossible,
    /// There is no such endpoint.
    NoEndpoint,
    /// There is no such topic, partition or subscription.
    Absent,
    /// The endpoint knows other methods.
    Method,
    /// The endpoint is a WebSocket and is not asked for as one.
    UpgradeRequired,
    /// The body did not arrive in time.
    TooSlow,
    /// What is asked for contradicts what exists.
    Conflict,
    /// The body is larger than the node takes.
    TooLarge,
    /// Stored data is damaged.
    Damaged,
    /// The node is overloaded, and the client has its share of what it takes on.
    OverShare,
    /// More is waiting than the node takes on.
    Overloaded,
    /// The node, or the partition, does not serve yet, or no longer.
    NotReady,
    /// The disk takes no more writes.
    DiskFull,
    /// What became of the request is not known.
    OutcomeUnknown,
}

impl Kind {
    fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed", "Malformed request"),
            Self::Impossible => {
                (StatusCode::UNPROCESSABLE_ENTITY, "impossible", "Impossible value")
            }
            Self::NoEndpoint => (StatusCode::NOT_FOUND, "no-endpoint", "No such endpoint"),
            Self::Absent => (StatusCode::NOT_FOUND, "absent", "Not found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed"),
            Self::UpgradeRequired => {
                (StatusCode::UPGRADE_REQUIRED, "upgrade-required", "Upgrade required")
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow", "Body too slow"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Conflict"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::Damaged => (StatusCode::INTERNAL_SERVER_ERROR, "damaged", "Damaged data"),
            Self::OverShare => (StatusCode::TOO_MANY_REQUESTS, "over-share", "Over its share"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            Self::DiskFull => (StatusCode::SERVICE_UNAVAILABLE, "disk-full", "Disk full"),
            Self::OutcomeUnknown => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "Outcome unknown")
            }
        }
    }

    fn retry_after(self) -> Option<u32> {
        match self {
            Self::OverShare | Self::Overloaded | Self::NotReady => Some(RETRY_SOON_SECONDS),
            Self::DiskFull => Some(RETRY_LATER_SECONDS),
            Self::Malformed
            | Self::Impossible
            | Self::NoEndpoint
            | Self::Absent
            | Self::Method
            | Self::UpgradeRequired
            | Self::TooSlow
            | Self::Conflict
            | Self::TooLarge
            | Self::Damaged
            | Self::OutcomeUnknown => None,
        }
    }
}

/// What became of the message of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// It is committed.
    Yes,
    /// It is not stored and will not be.
    No,
    /// It may be stored, or may yet be; publish again under the same id to find out.
    Unknown,
}

/// A failure on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: Kind,
    detail: String,
    publish: Option<(Option<String>, Stored)>,
    /// After how many seconds to try again, where that is known.
    retry_after: Option<u32>,
}

/// A problem document, as the client reads it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProblemDocument<'a> {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:sprawl:problem:malformed")]
    kind: String,
    /// The kind in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened, to what, and what to do.
    detail: &'a str,
    /// The detail again, for clients that look for this name.
    error: &'a str,
    /// The id of the message, in answers to a publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// What became of the message, in answers to a publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
    /// After how many seconds to try again: what the header `Retry-After` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this kind; the detail says what happened, to what, and what to do.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after = kind.retry_after();
        Self { kind, detail: detail.into(), publish: None, retry_after }
    }

    /// The answer to a request whose fate is not known.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        let detail = "the outcome is not known in time: send the same request again, and a publish \
                      under the same id, to find out";
        Self::new(Kind::OutcomeUnknown, detail)
    }

    /// Says what became of the message of a publish, and which one it was.
    #[must_use]
    pub fn of_publish(self, id: Option<String>, stored: Stored) -> Self {
        Self { publish: Some((id, stored)), ..self }
    }

    /// Says which field it is about.
    #[must_use]
    pub fn about(self, field: &str) -> Self {
        Self { detail: format!("{field}: {}", self.detail), ..self }
    }

    /// Whether the detail names this field as unknown or missing, as it is or as a path's last.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        let last = field.rsplit('.').next().unwrap_or(field);
        self.detail.contains(&format!("'{last}'")) || self.detail.contains(&format!("`{last}`"))
    }

    /// What kind of problem it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The document that tells it.
    #[must_use]
    pub fn document(&self) -> ProblemDocument<'_> {
        let (status, name, title) = self.kind.describe();
        let (id, stored) = match &self.publish {
            Some((id, stored)) => (id.as_deref(), Some(*stored)),
            None => (None, None),
        };
        ProblemDocument {
            kind: format!("urn:sprawl:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            error: &self.detail,
            id,
            stored,
            retry_after: self.retry_after,
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let kind = match &refused {
            Refused::NoTopic(_)
            | Refused::NoPartition(..)
            | Refused::NoSubscription(_)
            | Refused::NoNode(_)
            | Refused::NoMessage(_) => Kind::Absent,
            Refused::SubscriptionDiffers(..)
            | Refused::PartitionsFixed(..)
            | Refused::LastNode
            | Refused::OffsetMoved { .. }
            | Refused::NumberPassed { .. } => Kind::Conflict,
            Refused::PayloadTooLarge(..) | Refused::TooLargeToForward => Kind::TooLarge,
            Refused::ExpiresBeforeDue => Kind::Impossible,
            Refused::OverShare { .. } => Kind::OverShare,
            Refused::Overloaded(_) | Refused::Busy { .. } => Kind::Overloaded,
            Refused::NotReady | Refused::Frozen => Kind::NotReady,
            Refused::DiskFull => Kind::DiskFull,
            Refused::Damaged(_) => Kind::Damaged,
        };
        let mut problem = Self::new(kind, refused.to_string());
        if let Refused::OverShare { retry_after } | Refused::Busy { retry_after } = refused {
            // Whole seconds: later rather than too early.
            problem.retry_after = Some(retry_after.as_secs() as u32 + 1);
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.kind.describe();
        let body = serde_json::to_vec(&self.document()).expect("text and numbers have a JSON form");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.kind == Kind::UpgradeRequired {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use sprawl_core::ids::{EntryIndex, PartitionId};
    use sprawl_core::machine::Unreadable;

    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        let topic = "t".parse().expect("a name");
        let subscription: sprawl_core::ids::SubscriptionId = "s".parse().expect("a name");
        let partition = PartitionId(1);
        let damage = Unreadable { partition, index: EntryIndex(7), reason: "a bit".to_owned() };
        for (refused, status, retry) in [
            (Refused::NoTopic(topic), 404, None),
            (Refused::NoSubscription(subscription.clone()), 404, None),
            (Refused::SubscriptionDiffers(subscription, "topics"), 409, None),
            (Refused::Overloaded("much waits"), 503, Some("1")),
            (Refused::NotReady, 503, Some("1")),
            (Refused::Frozen, 503, Some("1")),
            (Refused::DiskFull, 503, Some("10")),
            (Refused::TooLargeToForward, 413, None),
            (Refused::Damaged(damage), 500, None),
        ] {
            let response = Problem::from(refused.clone()).into_response();
            assert_eq!(response.status().as_u16(), status, "{refused}");
            let after = response.headers().get(RETRY_AFTER).map(|v| v.as_bytes().to_vec());
            assert_eq!(after.as_deref(), retry.map(str::as_bytes), "{refused}");
            assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
        }
    }
}
