//! What the network is made of: streams of bytes, and datagrams.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

/// Two halves of a connection.
pub type Halves<S> = (<S as Sockets>::Reader, <S as Sockets>::Writer);

/// The sockets of one node: one address for connections and for datagrams. A clone is the same
/// sockets.
pub trait Sockets: Clone + Send + Sync + 'static {
    /// What reads from a connection.
    type Reader: AsyncRead + Unpin + Send + 'static;
    /// What writes to a connection. Dropping both halves ends it.
    type Writer: AsyncWrite + Unpin + Send + 'static;

    /// Where they listen.
    fn local(&self) -> SocketAddr;

    /// Connects; whoever asks bounds the time.
    ///
    /// # Errors
    ///
    /// When nobody listens there, or the network says that there is no way.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Halves<Self>>> + Send;

    /// The next connection that somebody made to here.
    ///
    /// # Errors
    ///
    /// When the system has no room for it; the next one may be taken.
    fn accept(&self) -> impl Future<Output = io::Result<(SocketAddr, Halves<Self>)>> + Send;

    /// Sends a datagram at once.
    ///
    /// # Errors
    ///
    /// When the system did not take it; it is lost.
    fn send_datagram(&self, to: SocketAddr, message: &[u8]) -> io::Result<()>;

    /// The next datagram: its length in `buffer`, and who claims to have sent it.
    ///
    /// # Errors
    ///
    /// When the system reports one; the next datagram may be received.
    fn receive_datagram(
        &self,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}
