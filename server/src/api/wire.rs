//! A WebSocket that is read and written at once, so that neither way waits for the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sprawl_core::broker::delivery::Delivered;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::frames;

/// How many bytes are gathered before they are written; also how much is read at once.
const BUFFER_BYTES: usize = 16 << 10;
/// How long the end of a conversation may take.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What waits to be sent. A message gets its form when its turn comes, so that what waits is not
/// held twice.
pub(super) enum Parcel {
    /// A message of the subscription.
    Message(Delivered),
    /// A frame that is made already.
    Frame(Message),
}

/// What the socket has to say.
pub(super) enum News {
    /// A frame came.
    Frame(Message),
    /// Everything that waited was sent.
    Sent,
    /// It is over; the code says why, where the peer can still be told.
    Over(Option<CloseCode>),
}

/// The socket, and what waits to be sent. Who fills the queue bounds it.
pub(super) struct Wire {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    waiting: VecDeque<Parcel>,
    /// Whether something was handed to the socket that may not have left.
    unsent: bool,
}

impl Wire {
    /// A socket whose frames have at most so many bytes.
    pub(super) async fn new(stream: Upgraded, frame_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(frame_bytes_max))
            .max_frame_size(Some(frame_bytes_max));
        let stream = TokioIo::new(stream);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self { socket, waiting: VecDeque::new(), unsent: false }
    }

    /// How much waits to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everything was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.unsent
    }

    /// Has this sent after what waits already.
    pub(super) fn push(&mut self, parcel: Parcel) {
        self.waiting.push_back(parcel);
    }

    /// Sends what waits and, if `reads`, reads the next frame; returns when there is news. Nothing
    /// is lost when it is dropped before.
    pub(super) async fn news(&mut self, reads: bool) -> News {
        poll_fn(|context| self.poll_news(context, reads)).await
    }

    fn poll_news(&mut self, context: &mut Context<'_>, reads: bool) -> Poll<News> {
        if !self.is_idle() {
            match self.poll_send(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(News::Sent),
                Poll::Ready(Err(error)) => return Poll::Ready(News::Over(farewell_to(&error))),
                Poll::Pending => {}
            }
        }
        if !reads {
            return Poll::Pending;
        }
        self.socket.poll_next_unpin(context).map(|read| match read {
            Some(Ok(frame)) => News::Frame(frame),
            Some(Err(error)) => News::Over(farewell_to(&error)),
            None => News::Over(None),
        })
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.waiting.is_empty() {
            std::task::ready!(self.socket.poll_ready_unpin(context))?;
            let frame = match self.waiting.pop_front() {
                Some(Parcel::Message(delivered)) => frames::message(&delivered),
                Some(Parcel::Frame(frame)) => frame,
                None => break,
            };
            self.unsent = true;
            self.socket.start_send_unpin(frame)?;
        }
        std::task::ready!(self.socket.poll_flush_unpin(context))?;
        self.unsent = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what waits, says good-bye with a code where there is one, and waits for the peer to
    /// do the same.
    pub(super) async fn close(mut self, code: Option<CloseCode>, reason: &'static str) {
        if let Some(code) = code {
            let frame = CloseFrame { code, reason: reason.into() };
            self.push(Parcel::Frame(Message::Close(Some(frame))));
        }
        let over = async { while !matches!(self.news(true).await, News::Over(_)) {} };
        // Whoever does not answer is left.
        let _ = tokio::time::timeout(CLOSE_WAIT_MAX, over).await;
    }
}

/// With which code to leave a peer after an error of its own; none when it cannot be told.
fn farewell_to(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}
