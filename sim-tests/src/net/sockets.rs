//! The sockets of a simulated process, as the network of a node uses them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use sprawl_io::peer::{Halves, Sockets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Net;
use super::flow::{Segment, WINDOW_BYTES};
use super::state::{Host, Place, Side, State};

/// The longest piece that is on its way as one.
const SEGMENT_BYTES_MAX: usize = 64 << 10;

/// The sockets of one process. A clone is the same sockets; they are free when the last is gone.
#[derive(Clone)]
pub(crate) struct SimSockets {
    bound: Arc<Bound>,
}

struct Bound {
    net: Net,
    at: SocketAddr,
    serial: u64,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.net.act(|state| {
            if state.hosts.get(&self.at).is_some_and(|host| host.serial == self.serial)
                && let Some(host) = state.hosts.remove(&self.at)
            {
                // Nobody will accept them any more.
                host.connected.iter().for_each(|&number| state.let_go((number, Side::Listener)));
            }
        });
    }
}

impl SimSockets {
    pub(super) fn bind(net: &Net, at: SocketAddr) -> io::Result<Self> {
        let mut state = net.lock();
        if state.hosts.contains_key(&at) {
            return Err(ErrorKind::AddrInUse.into());
        }
        state.power(at.ip());
        let serial = state.number();
        let (datagrams, connected) = Default::default();
        let host = Host { serial, datagrams, connected, receiver: None, acceptor: None };
        state.hosts.insert(at, host);
        drop(state);
        Ok(Self { bound: Arc::new(Bound { net: net.clone(), at, serial }) })
    }

    /// What `look` finds at the sockets; nothing when they are not this process's any more.
    fn host<T>(&self, look: impl FnOnce(&mut Host) -> Option<T>) -> Option<T> {
        let mut state = self.bound.net.lock();
        let host = state.hosts.get_mut(&self.bound.at);
        host.filter(|host| host.serial == self.bound.serial).and_then(look)
    }

    fn halves(&self, place: Place) -> Halves<Self> {
        let half = Arc::new(Half { net: self.bound.net.clone(), place });
        (Reader(half.clone()), Writer(half))
    }
}

impl Sockets for SimSockets {
    type Reader = Reader;
    type Writer = Writer;

    fn local(&self) -> SocketAddr {
        self.bound.at
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Halves<Self>> {
        let number = self.bound.net.act(|state| state.connect(self.bound.at, to));
        let place = (number, Side::Dialer);
        // From here on somebody lets go of the connection, whoever gives up waiting for it.
        let halves = self.halves(place);
        std::future::poll_fn(|context| {
            let mut state = self.bound.net.lock();
            let end = state.end(place).expect("its halves are held");
            match end.broken {
                Some(kind) => Poll::Ready(Err(io::Error::from(kind))),
                None if end.open => Poll::Ready(Ok(())),
                None => {
                    end.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok(halves)
    }

    async fn accept(&self) -> io::Result<(SocketAddr, Halves<Self>)> {
        let number = std::future::poll_fn(|context| {
            let found = self.host(|host| {
                host.acceptor = Some(context.waker().clone());
                host.connected.pop_front()
            });
            found.map_or(Poll::Pending, Poll::Ready)
        });
        let number = number.await;
        let halves = self.halves((number, Side::Listener));
        let mut state = self.bound.net.lock();
        let dialer = state.end((number, Side::Dialer)).expect("its other halves are held");
        Ok((dialer.at, halves))
    }

    fn send_datagram(&self, to: SocketAddr, message: &[u8]) -> io::Result<()> {
        self.bound.net.act(|state| state.send_datagram(self.bound.at, to, message));
        Ok(())
    }

    async fn receive_datagram(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (from, body) = std::future::poll_fn(|context| {
            let found = self.host(|host| {
                host.receiver = Some(context.waker().clone());
                host.datagrams.pop_front()
            });
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let length = body.len().min(buffer.len());
        buffer[..length].copy_from_slice(&body[..length]);
        Ok((length, from))
    }
}

/// What both halves of an end hold; the connection ends when neither does.
struct Half {
    net: Net,
    place: Place,
}

impl Half {
    /// Does something with the end, if it has not broken.
    fn with<T>(
        &self,
        act: impl FnOnce(&mut State, Place) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.net.act(|state| {
            let end = state.end(self.place).expect("a half of it is held");
            match end.broken {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None => act(state, self.place),
            }
        })
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.net.act(|state| state.let_go(self.place));
    }
}

/// Reads from a simulated connection.
pub(crate) struct Reader(Arc<Half>);

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.with(|state, place| {
            let Some(end) = state.end(place) else { return Poll::Pending };
            let mut count = 0;
            while buffer.remaining() > 0
                && let Some(first) = end.received.front_mut()
            {
                let length = first.len().min(buffer.remaining());
                buffer.put_slice(&first[..length]);
                first.advance(length);
                count += length;
                if first.is_empty() {
                    end.received.pop_front();
                }
            }
            if count > 0 {
                state.send(place, Segment::Read(count));
            } else if !end.ended {
                end.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        })
    }
}

/// Writes to a simulated connection.
pub(crate) struct Writer(Arc<Half>);

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.with(|state, place| {
            let Some(end) = state.end(place) else { return Poll::Pending };
            let room = WINDOW_BYTES.saturating_sub(end.unread);
            let length = bytes.len().min(room).min(SEGMENT_BYTES_MAX);
            if length == 0 && !bytes.is_empty() {
                end.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            end.unread += length;
            state.send(place, Segment::Data(Bytes::copy_from_slice(&bytes[..length])));
            Poll::Ready(Ok(length))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with(|state, place| {
            let finished = state.end(place).map(|end| std::mem::replace(&mut end.finished, true));
            if finished == Some(false) {
                state.send(place, Segment::Finish);
            }
            Poll::Ready(Ok(()))
        })
    }
}
