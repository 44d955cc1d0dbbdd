//! GET /subscriptions/{id}/ws: a subscription as a WebSocket; messages come down on credit,
//! acknowledgements and publishes go up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sprawl_core::broker::delivery::Delivered;
use sprawl_core::ids::SubscriptionId;
use sprawl_core::machine::{Refused, Request};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::frames::{self, Heard, Up};
use super::query::{Named, Query};
use super::stream::{PULL_MAX, PULL_WAIT_MAX, REFUSED_PAUSE};
use super::wire::{News, Parcel, Wire};
use super::{Face, answer, body, forms, publish, verdicts};
use crate::connection::Place;
use crate::guests::Guest;
use crate::problem::{Kind, Problem, ProblemDocument};

/// How many messages a client may have asked for and not got.
const CREDIT_MAX: usize = 10_000;
/// How many publishes and acknowledgements of a socket may be under way; the next one waits.
const UNDER_WAY_MAX: usize = 64;
/// How many frames may wait for a slow reader before nothing more is read of it.
const WAITING_MAX: usize = UNDER_WAY_MAX + PULL_MAX;
/// How often a client is asked whether it is there.
const PING_PAUSE: Duration = Duration::from_secs(20);
/// How long a client may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long publishes that are under way may take once the node stops.
const FINISH_WAIT_MAX: Duration = Duration::from_secs(5);

/// Opens a WebSocket on a subscription.
#[utoipa::path(
    get, path = "/subscriptions/{id}/ws", tag = "subscriptions",
    params(("id" = inline(forms::Name), Path, description = "The subscription")),
    responses(
        (status = 101, description = "Frames of JSON follow, each with a `type`: up `credit`, \
            `ack`, `nack`, `extend`, `publish`; down `message`, `acked`, `published`, `problem`"),
        (status = 426, description = "It is not asked for as a WebSocket of version 13",
            body = ProblemDocument),
        (status = "4XX", description = "Malformed, or no such subscription",
            body = ProblemDocument),
    )
)]
pub(super) async fn socket(
    State(face): State<Face>,
    id: Named,
    query: Query,
    mut request: HttpRequest,
) -> Result<Response, Problem> {
    let subscription: SubscriptionId = id.parse()?;
    query.end("")?;
    let accept = shake_hands(request.version(), request.headers())?;
    if !face.0.node.view().subscriptions.contains_key(&subscription) {
        return Err(Refused::NoSubscription(subscription).into());
    }
    // The socket keeps the place of the connection that it was.
    let place = request.extensions().get::<Place>();
    let place = place.expect("each request bears the place of its connection").clone();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let wire = Wire::new(stream, face.0.limits.body_bytes_max).await;
                Conversation::new(face, subscription, place.guest.clone()).hold(wire).await;
            }
            Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
        }
        drop(place);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Checks what RFC 6455, 4.2.1 asks of a client, and gives the answer to its key.
fn shake_hands(version: Version, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let names = |header, wanted: &str| {
        let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    let upgrade = |detail: &str| Err(Problem::new(Kind::UpgradeRequired, detail));
    if version != Version::HTTP_11 {
        return upgrade("a WebSocket begins as a request of HTTP/1.1");
    }
    if !names(UPGRADE, "websocket") || !names(CONNECTION, "upgrade") {
        return upgrade(
            "this is a WebSocket: ask with 'Connection: Upgrade' and 'Upgrade: websocket'",
        );
    }
    if !names(SEC_WEBSOCKET_VERSION, "13") {
        return upgrade("Sec-WebSocket-Version: this version has 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    let accept = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key)).ok());
    accept
        .ok_or_else(|| Problem::new(Kind::Malformed, "Sec-WebSocket-Key: it is 16 bytes in base64"))
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a conversation ends: with which code, where the client can be told, and why.
type End = (Option<CloseCode>, &'static str);

/// One client at its socket.
struct Conversation {
    face: Face,
    subscription: SubscriptionId,
    guest: Arc<Guest>,
    /// How many messages the client takes.
    credit: usize,
    /// Publishes and acknowledgements, each with the frame that answers it.
    under_way: FuturesUnordered<Task<Frame>>,
    /// The pull that is under way; at most one.
    pull: Option<Task<Result<Vec<Delivered>, Problem>>>,
    /// Whether the last pull was refused.
    refused: bool,
    /// When the client was heard last.
    heard: Instant,
    /// When it was asked last whether it is there.
    asked: Instant,
}

impl Conversation {
    fn new(face: Face, subscription: SubscriptionId, guest: Arc<Guest>) -> Self {
        let now = Instant::now();
        Self {
            face,
            subscription,
            guest,
            credit: 0,
            under_way: FuturesUnordered::new(),
            pull: None,
            refused: false,
            heard: now,
            asked: now,
        }
    }

    /// Holds the conversation to its end.
    async fn hold(mut self, mut wire: Wire) {
        let (code, reason) = self.talk(&mut wire).await;
        tracing::debug!(subscription = %self.subscription, reason, "a WebSocket ends");
        if code == Some(CloseCode::Away) {
            // What the client sent before the stop is answered.
            let finish = async {
                while let Some(frame) = self.under_way.next().await {
                    wire.push(Parcel::Frame(frame));
                }
            };
            // What takes longer is left unknown to the client, as the end of any connection does.
            let _ = tokio::time::timeout(FINISH_WAIT_MAX, finish).await;
        }
        wire.close(code, reason).await;
    }

    async fn talk(&mut self, wire: &mut Wire) -> End {
        let stopping = self.face.0.stopping.clone();
        loop {
            self.pull_on_credit(wire);
            let reads = self.under_way.len() < UNDER_WAY_MAX && wire.waiting() < WAITING_MAX;
            let until = (self.asked + PING_PAUSE).min(self.heard + SILENCE_MAX);
            tokio::select! {
                biased;
                () = stopping.given() => return (Some(CloseCode::Away), "the node stops"),
                Some(frame) = self.under_way.next() => wire.push(Parcel::Frame(frame)),
                pulled = finished(&mut self.pull) => {
                    if let Some(end) = self.pulled(pulled, wire) {
                        return end;
                    }
                }
                news = wire.news(reads) => match news {
                    News::Sent => {}
                    News::Frame(frame) => {
                        self.heard = Instant::now();
                        if let Some(end) = self.hear(frame, wire) {
                            return end;
                        }
                    }
                    News::Over(code) => return (code, "the client left, or broke a rule"),
                },
                () = tokio::time::sleep_until(until) => {
                    if self.heard.elapsed() >= SILENCE_MAX {
                        return (Some(CloseCode::Policy), "nothing was heard for 60 s");
                    }
                    self.asked = Instant::now();
                    wire.push(Parcel::Frame(Frame::Ping(bytes::Bytes::new())));
                }
            }
        }
    }

    /// Begins a pull when the client takes messages and its socket has taken what there was: a
    /// slow reader leases nothing that it does not read.
    fn pull_on_credit(&mut self, wire: &Wire) {
        if self.credit == 0 || self.pull.is_some() || !wire.is_idle() {
            return;
        }
        let (face, subscription) = (self.face.clone(), self.subscription.clone());
        let count_max = self.credit.min(PULL_MAX);
        let refused = std::mem::take(&mut self.refused);
        self.pull = Some(Box::pin(async move {
            if refused {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            let request = Request::Pull { subscription, count_max, wait: PULL_WAIT_MAX };
            answer::pulled(face.ask(request, PULL_WAIT_MAX).await)
        }));
    }

    /// A pull has ended; returns how the conversation ends, if it does.
    fn pulled(&mut self, pulled: Result<Vec<Delivered>, Problem>, wire: &mut Wire) -> Option<End> {
        match pulled {
            Ok(messages) => {
                self.credit = self.credit.saturating_sub(messages.len());
                messages.into_iter().for_each(|one| wire.push(Parcel::Message(one)));
                None
            }
            Err(problem) => {
                self.refused = true;
                wire.push(Parcel::Frame(frames::problem(None, &problem)));
                let gone = problem.kind() == Kind::Absent;
                gone.then_some((Some(CloseCode::Normal), "the subscription is gone"))
            }
        }
    }

    /// The client said something; returns how the conversation ends, if it does.
    fn hear(&mut self, frame: Frame, wire: &mut Wire) -> Option<End> {
        match frame {
            Frame::Text(text) => {
                self.obey(frames::read(&text), wire);
                None
            }
            Frame::Binary(_) => Some((Some(CloseCode::Unsupported), "frames are text: JSON")),
            // The socket answers pings and closes by itself, and so finds the end.
            Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) | Frame::Frame(_) => None,
        }
    }

    /// Does what the client says. What it may say stands in [`frames::read`].
    fn obey(&mut self, Heard { reference, said }: Heard, wire: &mut Wire) {
        let (face, subscription) = (self.face.clone(), self.subscription.clone());
        let guest = self.guest.clone();
        match said {
            Ok(Up::Credit(messages)) => {
                self.credit = self.credit.saturating_add(messages).min(CREDIT_MAX);
            }
            Ok(Up::Settle(judged)) => self.under_way.push(Box::pin(async move {
                let acked = verdicts::settled(&face, &subscription, judged).await;
                let reference = reference.as_deref();
                match acked {
                    Ok(acked) => frames::acked(reference, acked),
                    Err(problem) => frames::problem(reference, &problem),
                }
            })),
            Ok(Up::Publish(body)) => self.under_way.push(Box::pin(async move {
                let reference = reference.as_deref();
                let held = match body::hold_body(&guest, body) {
                    Ok(held) => held,
                    Err(problem) => {
                        return frames::problem(reference, &publish::not_stored(problem));
                    }
                };
                match publish::store(&face, &held).await {
                    Ok(published) => frames::published(reference, published),
                    Err(problem) => frames::problem(reference, &problem),
                }
            })),
            Err(problem) => {
                wire.push(Parcel::Frame(frames::problem(reference.as_deref(), &problem)));
            }
        }
    }
}

/// Returns when the task there is has ended, and takes it away; never when there is none.
async fn finished<T>(task: &mut Option<Task<T>>) -> T {
    let Some(running) = task.as_mut() else { return std::future::pending().await };
    let ended = running.await;
    *task = None;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_are_shaken_as_the_standard_says() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let shake = |version, changed: (&'static str, &'static str)| {
            let mut headers = HeaderMap::new();
            for (name, value) in good.into_iter().filter(|(name, _)| *name != changed.0) {
                headers.insert(name, HeaderValue::from_static(value));
            }
            if !changed.1.is_empty() {
                headers.insert(changed.0, HeaderValue::from_static(changed.1));
            }
            shake_hands(version, &headers).map_err(|problem| problem.kind())
        };
        // The key and its answer are those of RFC 6455, 1.3.
        let accept = shake(Version::HTTP_11, ("origin", "http://x"));
        assert_eq!(accept, Ok(HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        for (changed, kind) in [
            (("connection", "close"), Kind::UpgradeRequired),
            (("upgrade", ""), Kind::UpgradeRequired),
            (("sec-websocket-version", "8"), Kind::UpgradeRequired),
            (("sec-websocket-key", ""), Kind::Malformed),
            (("sec-websocket-key", "short"), Kind::Malformed),
        ] {
            assert_eq!(shake(Version::HTTP_11, changed), Err(kind), "{changed:?}");
        }
        assert_eq!(shake(Version::HTTP_2, ("x", "")), Err(Kind::UpgradeRequired));
    }
}
