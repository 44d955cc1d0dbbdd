//! Stands between two nodes and does to their bytes what bad networks do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What the proxy does, from the next bytes on.
#[derive(Default)]
pub(super) struct Faults {
    /// How long every piece is held up.
    pub(super) delay_ms: AtomicU64,
    /// Nothing is passed on, and nobody is told.
    pub(super) swallow: AtomicBool,
    /// After how many more bytes towards the target one bit of a byte is flipped; below 0, never.
    pub(super) flip_after: AtomicI64,
    /// What went towards the target.
    pub(super) heard: Mutex<Vec<u8>>,
    cut: Notify,
}

impl Faults {
    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.cut.notify_waiters();
    }
}

/// Listens somewhere and passes on to `target`.
pub(super) async fn between(target: SocketAddr) -> (SocketAddr, Arc<Faults>) {
    let listener = TcpListener::bind(super::anywhere()).await.expect("a port is free");
    let at = listener.local_addr().expect("it is bound");
    let faults = Arc::new(Faults { flip_after: AtomicI64::new(-1), ..Faults::default() });
    let given = faults.clone();
    tokio::spawn(async move {
        loop {
            let (caller, _) = listener.accept().await.expect("it listens");
            let Ok(called) = TcpStream::connect(target).await else { continue };
            let (from_caller, to_caller) = caller.into_split();
            let (from_called, to_called) = called.into_split();
            tokio::spawn(pass(from_caller, to_called, faults.clone(), true));
            tokio::spawn(pass(from_called, to_caller, faults.clone(), false));
        }
    });
    (at, given)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: Arc<Faults>, there: bool) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let count = tokio::select! {
            biased;
            () = faults.cut.notified() => return,
            read = from.read(&mut piece) => read.unwrap_or(0),
        };
        if count == 0 {
            return;
        }
        if faults.swallow.load(SeqCst) {
            continue;
        }
        let delay = Duration::from_millis(faults.delay_ms.load(SeqCst));
        sleep_until(Instant::now() + delay).await;
        if there {
            faults.heard.lock().expect("nobody panics").extend(&piece[..count]);
            let left = faults.flip_after.fetch_sub(count as i64, SeqCst);
            if (0..count as i64).contains(&left) {
                piece[left as usize] ^= 1 << (left % 8);
            } else if left < 0 {
                faults.flip_after.store(-1, SeqCst);
            }
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
