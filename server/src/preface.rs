//! Which HTTP a new connection speaks: HTTP/2 begins with a preface of its own, and all else is
//! HTTP/1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client that speaks HTTP/2 without being asked sends first (RFC 9113, 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2, without TLS and by prior knowledge.
    Http2,
}

/// A stream whose first bytes were looked at; it gives them again.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    first: [u8; PREFACE.len()],
    given: usize,
    held: usize,
    stream: S,
}

/// Reads until it is plain what the client speaks.
///
/// # Errors
///
/// The stream's own, and `TimedOut` when that is not plain in time. The stream is dropped.
pub(crate) async fn open<S>(mut stream: S, wait_max: Duration) -> io::Result<(Spoken, Opened<S>)>
where
    S: AsyncRead + Unpin,
{
    let (mut first, mut held) = ([0; PREFACE.len()], 0);
    let listen = async {
        while held < PREFACE.len() && first[..held] == PREFACE[..held] {
            match stream.read(&mut first[held..]).await? {
                0 => break,
                bytes => held += bytes,
            }
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(wait_max, listen).await??;
    let spoken = if first == PREFACE { Spoken::Http2 } else { Spoken::Http1 };
    Ok((spoken, Opened { first, given: 0, held, stream }))
}

impl<S: AsyncRead + Unpin> AsyncRead for Opened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given == self.held {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let bytes = buffer.remaining().min(self.held - self.given);
        buffer.put_slice(&self.first[self.given..self.given + bytes]);
        self.given += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const WAIT: Duration = Duration::from_millis(20);

    /// What is found out about a client that sends this and then waits, or ends.
    async fn heard(sent: &[u8], ends: bool) -> Option<(Spoken, Vec<u8>)> {
        let (near, mut far) = tokio::io::duplex(1_024);
        far.write_all(sent).await.expect("there is room");
        let waits = (!ends).then_some(far);
        let (spoken, mut opened) = open(near, WAIT).await.ok()?;
        drop(waits);
        let mut all = Vec::new();
        opened.read_to_end(&mut all).await.expect("it ends");
        Some((spoken, all))
    }

    #[tokio::test]
    async fn the_preface_tells_and_nothing_is_lost() {
        let http2 = [&PREFACE[..], b"more"].concat();
        assert_eq!(heard(&http2, false).await, Some((Spoken::Http2, http2)));
        for first in ["GET / HTTP/1.0\r\n\r\n", "POST", "PRO", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\rx"]
        {
            let found = heard(first.as_bytes(), false).await;
            assert_eq!(found, Some((Spoken::Http1, first.into())), "{first}");
        }
        assert_eq!(heard(b"PRI", true).await, Some((Spoken::Http1, b"PRI".into())));
    }

    #[tokio::test]
    async fn a_client_that_says_too_little_is_not_waited_for() {
        assert_eq!(heard(b"", false).await, None);
        assert_eq!(heard(b"PRI * HTTP/2.0", false).await, None);
    }
}
