//! Openraft's watched values, woken in the order in which their watchers wait: tokio's own wakes
//! them in an order that differs from run to run, and a simulation would not repeat itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use openraft_rt::{OptionalSend, OptionalSync, watch};
use tokio::sync::Notify;

/// Watched values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FifoWatch;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    changed: Notify,
    setters: AtomicUsize,
    watchers: AtomicUsize,
}

/// Sets the value.
pub(crate) struct Setter<T>(Arc<Shared<T>>);

/// Watches the value, and knows which version of it it has seen.
pub(crate) struct Watcher<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.version.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
    }
}

impl<T> Clone for Setter<T> {
    fn clone(&self) -> Self {
        self.0.setters.fetch_add(1, SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Drop for Setter<T> {
    fn drop(&mut self) {
        if self.0.setters.fetch_sub(1, SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        self.shared.watchers.fetch_add(1, SeqCst);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, SeqCst);
    }
}

impl watch::Watch for FifoWatch {
    type Sender<T: OptionalSend + OptionalSync> = Setter<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Watcher<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Setter<T>, Watcher<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            changed: Notify::new(),
            setters: AtomicUsize::new(1),
            watchers: AtomicUsize::new(1),
        });
        (Setter(shared.clone()), Watcher { shared, seen: 0 })
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<FifoWatch, T> for Setter<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        if self.0.watchers.load(SeqCst) == 0 {
            return Err(watch::SendError(value));
        }
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.tell();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = modify(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
        if modified {
            self.0.tell();
        }
        modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Watcher<T> {
        self.0.watchers.fetch_add(1, SeqCst);
        Watcher { shared: self.0.clone(), seen: self.0.version.load(SeqCst) }
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<FifoWatch, T> for Watcher<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        loop {
            // A waiter is registered when it is made, so that no change after the look is missed.
            let changed = self.shared.changed.notified();
            let version = self.shared.version.load(SeqCst);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.setters.load(SeqCst) == 0 {
                return Err(watch::RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.seen = self.shared.version.load(SeqCst);
        self.shared.read()
    }
}
