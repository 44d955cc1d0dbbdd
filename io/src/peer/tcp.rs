//! The operating system's sockets: one port for TCP and for UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::Sockets;
use super::sockets::Halves;

/// How many free ports of TCP are tried until one is free for UDP too.
const PORT_TRIES_MAX: usize = 64;
/// How many connections the system holds until they are accepted.
const ACCEPT_QUEUE_MAX: u32 = 1_024;

/// Both sockets of one port.
#[derive(Clone, Debug)]
pub struct TcpSockets {
    shared: Arc<Bound>,
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    datagrams: UdpSocket,
    local: SocketAddr,
}

impl TcpSockets {
    /// Takes the port for both. Port 0 takes one that is free for both.
    ///
    /// # Errors
    ///
    /// When the port is in use by either, or the address is not this machine's.
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        let mut tries = 1;
        loop {
            let bound = bind_once(at).await;
            let taken = matches!(&bound, Err(e) if e.kind() == io::ErrorKind::AddrInUse);
            if at.port() != 0 || !taken || tries == PORT_TRIES_MAX {
                return bound.map(|bound| Self { shared: Arc::new(bound) });
            }
            tries += 1;
        }
    }
}

async fn bind_once(at: SocketAddr) -> io::Result<Bound> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A former run's connections may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    let listener = socket.listen(ACCEPT_QUEUE_MAX)?;
    let local = listener.local_addr()?;
    let datagrams = UdpSocket::bind(local).await?;
    // Until the runtime has looked at it once, it takes nothing at once.
    datagrams.writable().await?;
    Ok(Bound { listener, datagrams, local })
}

fn halves(stream: TcpStream) -> io::Result<Halves<TcpSockets>> {
    // Frames are gathered before they are written: the system need not wait for more.
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

impl Sockets for TcpSockets {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    fn local(&self) -> SocketAddr {
        self.shared.local
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Halves<Self>> {
        halves(TcpStream::connect(to).await?)
    }

    async fn accept(&self) -> io::Result<(SocketAddr, Halves<Self>)> {
        let (stream, from) = self.shared.listener.accept().await?;
        Ok((from, halves(stream)?))
    }

    fn send_datagram(&self, to: SocketAddr, message: &[u8]) -> io::Result<()> {
        self.shared.datagrams.try_send_to(message, to).map(drop)
    }

    async fn receive_datagram(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.shared.datagrams.recv_from(buffer).await
    }
}
