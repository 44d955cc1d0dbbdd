//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tower::ServiceExt as _;

use crate::guests::Guest;
use crate::quiet::Quiet;
use crate::serve::{HEAD_BYTES_MAX, HEADERS_MAX, Limits};
use crate::stall::Stalling;
use crate::stop::Stop;

/// How many requests one connection of HTTP/2 may have under way.
#[cfg(not(madsim))]
const STREAMS_MAX: u32 = 256;
/// How long such a connection may be silent before it is asked whether it is there.
#[cfg(not(madsim))]
const PING_PAUSE: Duration = Duration::from_secs(20);
/// How long its answer may take.
#[cfg(not(madsim))]
const PING_WAIT_MAX: Duration = Duration::from_secs(20);

/// The place of a connection among those that are served at once. Each request bears it, so that
/// what outlives the connection's HTTP can hold it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    _slot: Arc<OwnedSemaphorePermit>,
    pub(crate) guest: Arc<Guest>,
}

impl Place {
    pub(crate) fn new(slot: OwnedSemaphorePermit, guest: Arc<Guest>) -> Self {
        Self { _slot: Arc::new(slot), guest }
    }
}

/// What a connection is served with.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) stopping: Stop,
}

/// Serves one connection to its end.
pub(crate) async fn converse(stream: TcpStream, place: Place, terms: Terms) {
    let stream = Quiet::new(Stalling::new(stream, terms.limits.write_wait_max));
    if let Err(error) = speak(stream, place, &terms).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(madsim)]
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    terms: &Terms,
) -> Result<(), Failure> {
    http1(stream, place, terms).await
}

#[cfg(not(madsim))]
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    terms: &Terms,
) -> Result<(), Failure> {
    use crate::preface::{Spoken, open};
    let opened = tokio::select! {
        biased;
        opened = open(stream, terms.limits.head_wait_max) => opened,
        () = terms.stopping.given() => return Ok(()),
    };
    match opened? {
        (Spoken::Http1, stream) => http1(stream, place, terms).await,
        (Spoken::Http2, stream) => http2(stream, place, terms).await,
    }
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    terms: &Terms,
) -> Result<(), Failure> {
    let router = terms.router.clone();
    let service =
        hyper::service::service_fn(move |request| answer(router.clone(), request, place.clone()));
    let connection = http1::Builder::new()
        .timer(ClockTimer)
        .header_read_timeout(terms.limits.head_wait_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let connection = pin!(connection);
    until_stopped(connection, &terms.stopping, |connection| connection.graceful_shutdown()).await
}

#[cfg(not(madsim))]
async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: Place,
    terms: &Terms,
) -> Result<(), Failure> {
    use crate::streams::{Streams, in_pieces};
    let router = terms.router.clone();
    let service = hyper::service::service_fn(move |request| {
        let answered = answer(router.clone(), request, place.clone());
        async move { in_pieces(answered.await?) }
    });
    let head_bytes_max = u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX);
    let streams = Streams { wait_max: terms.limits.write_wait_max };
    let connection = hyper::server::conn::http2::Builder::new(streams)
        .timer(ClockTimer)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(head_bytes_max)
        .keep_alive_interval(PING_PAUSE)
        .keep_alive_timeout(PING_WAIT_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let connection = pin!(connection);
    until_stopped(connection, &terms.stopping, |connection| connection.graceful_shutdown()).await
}

/// Serves a connection to its end, which it is asked to come to when the node stops.
async fn until_stopped<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    stopping: &Stop,
    finish: impl FnOnce(Pin<&mut C>),
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        () = stopping.given() => {}
    }
    finish(connection.as_mut());
    Ok(connection.await?)
}

async fn answer(
    router: Router,
    mut request: hyper::Request<Incoming>,
    place: Place,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(place);
    router.oneshot(request.map(Body::new)).await
}

/// Hyper's timer over the runtime's clock, simulated or not.
#[derive(Clone, Copy, Debug)]
struct ClockTimer;

struct Nap(Pin<Box<tokio::time::Sleep>>);

impl Future for Nap {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl hyper::rt::Sleep for Nap {}

impl hyper::rt::Timer for ClockTimer {
    fn sleep(&self, span: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Nap(Box::pin(tokio::time::sleep(span))))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(deadline.saturating_duration_since(std::time::Instant::now()))
    }
}
