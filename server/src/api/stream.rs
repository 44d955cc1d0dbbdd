//! GET /subscriptions/{id}/stream: a subscription as Server-Sent Events, acknowledged by coming
//! back.
//!
//! A client that only listens cannot acknowledge. So the stream ends now and then, the client
//! reconnects by itself, and the id of the last event that it got says what it has.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use sprawl_core::broker::delivery::Delivered;
use sprawl_core::ids::SubscriptionId;
use sprawl_core::machine::{Refused, Request, Verdict};
use tokio::time::Instant;

use super::query::{Named, Query};
use super::{Face, answer, fetch, forms, verdicts};
use crate::message::Message;
use crate::problem::{Kind, Problem, ProblemDocument};

/// After how many events a stream ends.
const EVENTS_MAX: usize = 1_000;
/// After how many bytes of events it ends.
const EVENTS_BYTES_MAX: usize = 16 << 20;
/// What part of a subscription's `ack_wait` the first unacknowledged event may be old: the rest
/// is for the client to come back in.
const ACK_WAIT_PART: u32 = 3;
/// How long a stream may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How many messages one pull takes.
pub(super) const PULL_MAX: usize = 100;
/// How long one pull waits. What arrives for a client that has left is leased in vain until then.
pub(super) const PULL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a stream rests after a pull that was refused.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// What a stream begins with: how many milliseconds a client waits before it comes back.
const GREETING: &[u8] = b"retry: 100\n\n";

/// Streams messages of a subscription as Server-Sent Events.
#[utoipa::path(
    get, path = "/subscriptions/{id}/stream", tag = "subscriptions",
    params(
        ("id" = inline(forms::Name), Path, description = "The subscription"),
        ("Last-Event-ID" = Option<String>, Header,
            description = "The id of the last event that was received: acknowledges all messages \
                           that its stream sent up to it"),
    ),
    responses(
        (status = 200, description = "Events of type `message`, whose data is a message with \
            `ack_token`; of type `problem`, whose data is a problem document; and comments. The \
            stream ends now and then, to be resumed.",
            content_type = "text/event-stream", body = String),
        (status = "4XX", description = "Malformed, or no such subscription",
            body = ProblemDocument),
        (status = 503, description = "Try again", body = ProblemDocument),
    )
)]
pub(super) async fn stream(
    State(face): State<Face>,
    id: Named,
    query: Query,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let subscription: SubscriptionId = id.parse()?;
    query.end("")?;
    let view = face.0.node.view();
    let Some(known) = view.subscriptions.get(&subscription) else {
        return Err(Refused::NoSubscription(subscription).into());
    };
    let patience = known.delivery.ack_wait / ACK_WAIT_PART;
    let last = request.headers().get("last-event-id").and_then(|last| last.to_str().ok());
    resume(&face, &subscription, last).await;
    let session = Session::open(&face, &subscription)?;
    let stream = Stream {
        face,
        subscription,
        session,
        patience,
        batch: VecDeque::new(),
        events: 0,
        bytes: 0,
        spoke: None,
        refused: false,
    };
    let events = futures_util::stream::unfold(stream, Stream::next);
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers an answer before it passes it on would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Acknowledges what the client says that it has. What cannot be is left to its lease: it comes
/// again, and a stream that is refused for it would never be resumed.
async fn resume(face: &Face, subscription: &SubscriptionId, last: Option<&str>) {
    let Some((session, number)) = last.and_then(|last| last.rsplit_once('-')) else { return };
    let Ok(number) = number.parse() else { return };
    let tokens = face.0.sessions.up_to(session, subscription, number, Instant::now());
    if !tokens.is_empty() {
        let settled = verdicts::settle(face, subscription, tokens, Verdict::Ack).await;
        tracing::debug!(%subscription, refused = settled.is_err(), "a stream was resumed");
    }
}

/// A session for as long as its connection lives.
struct Session {
    id: String,
    face: Face,
}

impl Session {
    fn open(face: &Face, subscription: &SubscriptionId) -> Result<Self, Problem> {
        let id = face.0.mint.id();
        if face.0.sessions.open(&id, subscription, Instant::now()) {
            return Ok(Self { id, face: face.clone() });
        }
        let detail = "the node is overloaded: too many event streams are open";
        Err(Problem::new(Kind::Overloaded, detail))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.face.0.sessions.end(&self.id, Instant::now());
    }
}

struct Stream {
    face: Face,
    subscription: SubscriptionId,
    session: Session,
    /// How old the first unacknowledged event may be.
    patience: Duration,
    /// What was pulled and is not sent yet.
    batch: VecDeque<Delivered>,
    events: usize,
    bytes: usize,
    /// When something was sent last; nothing was before the greeting.
    spoke: Option<Instant>,
    /// Whether the last pull was refused.
    refused: bool,
}

impl Stream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let part = self.part().await?;
        self.spoke = Some(Instant::now());
        Some((Ok(part), self))
    }

    /// What to send next; none when the stream is over.
    async fn part(&mut self) -> Option<Bytes> {
        let Some(spoke) = self.spoke else { return Some(Bytes::from_static(GREETING)) };
        loop {
            // What was pulled is sent even when the stream is about to end: it is leased.
            if let Some(delivered) = self.batch.pop_front() {
                return Some(self.event(&delivered));
            }
            let silence = SILENCE_MAX.saturating_sub(spoke.elapsed());
            let left = self.left()?;
            if silence.is_zero() {
                return Some(Bytes::from_static(b":\n\n"));
            }
            match self.pull(PULL_WAIT_MAX.min(silence).min(left)).await? {
                Ok(batch) => self.batch = batch.into(),
                Err(problem) if problem.kind() == Kind::Absent => return None,
                Err(problem) => return Some(event("problem", None, &problem.document())),
            }
        }
    }

    /// How long the stream may go on; none when it is to end.
    fn left(&self) -> Option<Duration> {
        if self.events >= EVENTS_MAX || self.bytes >= EVENTS_BYTES_MAX {
            return None;
        }
        let Some(since) = self.face.0.sessions.waits_since(&self.session.id) else {
            return Some(Duration::MAX);
        };
        let left = self.patience.saturating_sub(since.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// Takes messages; none when the node stops.
    async fn pull(&mut self, wait: Duration) -> Option<Result<Vec<Delivered>, Problem>> {
        let count_max = PULL_MAX.min(EVENTS_MAX - self.events);
        let request = Request::Pull { subscription: self.subscription.clone(), count_max, wait };
        let refused = std::mem::take(&mut self.refused);
        let face = &self.face;
        let pulled = async {
            if refused {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            face.ask(request, wait).await
        };
        let response = tokio::select! {
            biased;
            () = face.0.stopping.given() => return None,
            response = pulled => response,
        };
        let pulled = answer::pulled(response);
        self.refused = pulled.is_err();
        Some(pulled)
    }

    fn event(&mut self, delivered: &Delivered) -> Bytes {
        let part = match Message::delivered(delivered).map_err(fetch::damaged) {
            Ok(message) => {
                let sessions = &self.face.0.sessions;
                let number = sessions.sent(&self.session.id, delivered.token, Instant::now());
                event("message", Some((&self.session.id, number)), &message)
            }
            Err(problem) => event("problem", None, &problem.document()),
        };
        self.events += 1;
        self.bytes += part.len();
        part
    }
}

/// An event; JSON has no line breaks of its own, so that its data is one line.
fn event(kind: &str, id: Option<(&str, u64)>, data: &impl serde::Serialize) -> Bytes {
    let mut text = format!("event: {kind}\n");
    if let Some((session, number)) = id {
        text.push_str(&format!("id: {session}-{number}\n"));
    }
    text.push_str("data: ");
    let mut bytes = text.into_bytes();
    serde_json::to_writer(&mut bytes, data).expect("messages and problems have a JSON form");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}
