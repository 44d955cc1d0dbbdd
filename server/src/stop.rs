//! One signal, given once and heard by all: the node is stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A signal that is given once. Clones are the same signal; waiters are woken in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    waiters: Notify,
}

impl Stop {
    /// Gives the signal; whoever waits, or will wait, is let go.
    pub(crate) fn give(&self) {
        self.0.given.store(true, Ordering::SeqCst);
        self.0.waiters.notify_waiters();
    }

    /// Whether it was given.
    pub(crate) fn is_given(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Returns when it was given.
    pub(crate) async fn given(&self) {
        // A waiter is registered when it is made, so that a signal after the look is not missed.
        let waiter = self.0.waiters.notified();
        if !self.is_given() {
            waiter.await;
        }
    }
}
