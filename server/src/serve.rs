//! The accept loop: connections in, a bounded number of them, and a graceful end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sprawl_io::handle::NodeHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{self, Face};
use crate::connection::{Place, Terms, converse};
use crate::guests::Guests;
use crate::host::Host;
use crate::stop::Stop;

/// How many bytes the head of a request may have: request line and headers.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// How many headers a request may have.
pub const HEADERS_MAX: usize = 100;
/// How long the loop rests after an `accept` that failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the face of a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that the node tells others, `host:port`.
    pub address: String,
    /// Random bytes, from which the ids are made that clients did not give.
    pub entropy: [u8; 32],
    /// Who reads the host's figures for `/metrics` and `/health`; nobody does in simulation.
    pub host: Option<Arc<dyn Host>>,
    /// How much is taken on.
    pub limits: Limits,
}

/// How much the face takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are held at once. One client holds half of them at most; what is
    /// beyond is refused.
    pub bodies_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_wait_max: Duration,
    /// How long the head of a request may take, and so how long a connection may be idle.
    pub head_wait_max: Duration,
    /// How long a client may take nothing of its answer before the connection is cut.
    pub write_wait_max: Duration,
    /// Connections at once; the next one waits in the listener's queue.
    pub connections_max: usize,
    /// How long connections may take to end after the stop.
    pub drain_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 10 << 20,
            bodies_bytes_max: 256 << 20,
            body_wait_max: Duration::from_secs(30),
            head_wait_max: Duration::from_secs(30),
            write_wait_max: Duration::from_secs(30),
            connections_max: 10_000,
            drain_wait_max: Duration::from_secs(20),
        }
    }
}

/// Answers clients of `node` on `listener` until `stop` returns.
///
/// Then it accepts no more, cuts long polls short, finishes what is in flight and returns when the
/// last connection has ended, at the latest after [`Limits::drain_wait_max`]. The node itself goes
/// on: whoever started it shuts it down afterwards.
pub async fn serve(
    listener: TcpListener,
    node: NodeHandle,
    settings: Settings,
    stop: impl Future<Output = ()>,
) {
    let limits = settings.limits;
    let http_port = listener.local_addr().map_or(0, |address| address.port());
    let stopping = Stop::default();
    let face = Face::new(node, settings, http_port, stopping.clone());
    let terms = Terms { router: api::router(face), limits, stopping: stopping.clone() };
    let guests = Guests::new(limits.bodies_bytes_max);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, address, slot)) => {
                let place = Place::new(slot, guests.welcome(address.ip()));
                tokio::spawn(converse(stream, place, terms.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stopping.give();
    let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    let drained = tokio::time::timeout(limits.drain_wait_max, slots.acquire_many(all)).await;
    if drained.is_err() {
        tracing::warn!("connections did not end in time and are cut");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, address) = listener.accept().await?;
    // Answers are written whole; waiting for more to send with them would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, address, slot))
}
