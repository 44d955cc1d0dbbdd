//! A value that one side sets and several follow, woken in the order in which they wait.
//!
//! Tokio's watch channel wakes its receivers in an order that differs from run to run of one
//! process; a simulation that runs seeds one after the other would not repeat itself.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    /// The value, and how often it was set.
    value: RwLock<(T, u64)>,
    changed: Notify,
}

/// Sets the value.
#[derive(Debug)]
pub(crate) struct Signal<T>(Arc<Shared<T>>);

/// Follows the value. A clone has seen what its origin has.
#[derive(Clone, Debug)]
pub(crate) struct Follower<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + PartialEq> Signal<T> {
    /// A signal with its first value, which followers have seen.
    pub(crate) fn new(value: T) -> Self {
        let changed = Notify::new();
        Self(Arc::new(Shared { value: RwLock::new((value, 0)), changed }))
    }

    /// Sets the value; says whether it was another.
    pub(crate) fn set(&self, value: T) -> bool {
        self.set_where(|_| true, value)
    }

    /// Sets the value if the one that it has fits; says whether it became another.
    pub(crate) fn set_where(&self, fits: impl FnOnce(&T) -> bool, value: T) -> bool {
        let mut held = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let other = fits(&held.0) && held.0 != value;
        if other {
            *held = (value, held.1 + 1);
        }
        drop(held);
        if other {
            self.0.changed.notify_waiters();
        }
        other
    }

    /// Somebody who follows from now on.
    pub(crate) fn follow(&self) -> Follower<T> {
        let (_, seen) = *self.0.value.read().unwrap_or_else(PoisonError::into_inner);
        Follower { shared: self.0.clone(), seen }
    }
}

impl<T: Clone> Follower<T> {
    /// The value as it is.
    pub(crate) fn get(&self) -> T {
        self.shared.value.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Returns when the value was set since this follower last returned from here.
    pub(crate) async fn changed(&mut self) -> T {
        loop {
            // A waiter is registered when it is made, so that no change after the look is missed.
            let changed = self.shared.changed.notified();
            {
                let held = self.shared.value.read().unwrap_or_else(PoisonError::into_inner);
                if held.1 != self.seen {
                    self.seen = held.1;
                    return held.0.clone();
                }
            }
            changed.await;
        }
    }

    /// Returns when the value fits, with it.
    pub(crate) async fn until(&mut self, fits: impl Fn(&T) -> bool) -> T {
        loop {
            let value = self.get();
            if fits(&value) {
                return value;
            }
            self.changed().await;
        }
    }
}
