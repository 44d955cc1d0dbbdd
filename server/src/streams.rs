//! The streams of an HTTP/2 connection: each runs as a task, and one whose reader takes nothing is
//! reset.
//!
//! On a connection of HTTP/1 a write that stalls shows such a reader. Here the connection may be
//! as lively as can be while one of its streams has no room; so each answer is handed out in
//! pieces, and it is noted since when a piece waits to be taken.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// How many bytes of an answer are handed out at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

tokio::task_local! {
    /// The stream that runs.
    static STREAM: Reader;
}

/// Runs the streams of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// How long a reader may take nothing.
    pub(crate) wait_max: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (reader, wait_max) = (Reader::default(), self.wait_max);
        let watched = reader.clone();
        tokio::spawn(STREAM.scope(reader, async move {
            tokio::select! {
                biased;
                _ = stream => {}
                () = watched.stalled(wait_max) => {
                    tracing::debug!("a stream whose reader takes nothing is reset");
                }
            }
        }));
    }
}

/// Has an answer handed out in pieces, if it is a stream's.
pub(crate) fn in_pieces(response: Response) -> Result<Response, Infallible> {
    let reader = STREAM.try_with(Clone::clone);
    Ok(match reader {
        Ok(reader) => response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), reader })),
        Err(_) => response,
    })
}

/// Since when the reader of a stream has a piece to take, if it has.
#[derive(Clone, Debug, Default)]
struct Reader(Arc<Mutex<Option<Instant>>>);

impl Reader {
    fn note(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Returns when a piece has waited for so long.
    async fn stalled(&self, wait_max: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let until = since.unwrap_or_else(Instant::now) + wait_max;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

struct Pieces {
    body: Body,
    rest: Bytes,
    reader: Reader,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Being asked for the next piece is how it shows that the last one was taken.
        self.reader.note(None);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end @ (None | Some(Err(_))) => return Poll::Ready(end),
            }
        }
        let bytes = self.rest.len().min(PIECE_BYTES_MAX);
        let piece = self.rest.split_to(bytes);
        self.reader.note(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        self.body
            .size_hint()
            .exact()
            .map_or_else(SizeHint::default, |body| SizeHint::with_exact(body + rest))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_in_pieces_is_whole() {
        let long: Bytes = vec![7; 2 * PIECE_BYTES_MAX + 1].into();
        let reader = Reader::default();
        let mut pieces =
            Pieces { body: Body::from(long.clone()), rest: Bytes::new(), reader: reader.clone() };
        assert_eq!(pieces.size_hint().exact(), Some(long.len() as u64));
        let first = pieces.frame().await.expect("a piece").expect("no error");
        assert_eq!(first.into_data().expect("data").len(), PIECE_BYTES_MAX);
        assert_eq!(pieces.size_hint().exact(), Some(PIECE_BYTES_MAX as u64 + 1));
        assert!(!pieces.is_end_stream());
        let rest = pieces.collect().await.expect("no error").to_bytes();
        assert_eq!(rest, long.slice(PIECE_BYTES_MAX..));
        assert_eq!(*reader.0.lock().expect("not poisoned"), None);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_noticed_and_one_with_nothing_to_take_is_not() {
        let wait = Duration::from_millis(10);
        let reader = Reader::default();
        let quiet = tokio::time::timeout(4 * wait, reader.stalled(wait)).await;
        assert!(quiet.is_err(), "it has nothing to take");
        reader.note(Some(Instant::now()));
        reader.stalled(wait).await;
    }
}
