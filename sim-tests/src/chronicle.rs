//! The events of a run in one chain hash, and what is printed of them while it goes on.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sprawl_core::machine::Digest;

/// How much of a run is printed while it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Nothing.
    None,
    /// Faults, starts, and what changes a state.
    Short,
    /// Each input and each effect.
    Full,
    /// Each input and each effect from one event to another, by their numbers.
    Between(u64, u64),
}

/// The chain hash after each event, for whoever compares two runs. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticks {
    all: Arc<Mutex<Vec<u64>>>,
}

impl Ticks {
    /// The hashes, in the order of the events.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is kept of the events of a run.
#[derive(Debug)]
pub(crate) struct Chronicle {
    chain: Digest,
    events: u64,
    log: Log,
    ticks: Option<Ticks>,
}

impl Chronicle {
    pub(crate) fn new(log: Log, ticks: Option<Ticks>) -> Self {
        Self { chain: Digest::default(), events: 0, log, ticks }
    }

    /// Something happens.
    pub(crate) fn event(&mut self, event: impl Hash) {
        self.events += 1;
        event.hash(&mut self.chain);
        if let Some(ticks) = &self.ticks {
            let mut all = ticks.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(self.chain.finish());
        }
    }

    /// The chain hash so far, and over how many events.
    pub(crate) fn sum(&self) -> (u64, u64) {
        (self.chain.finish(), self.events)
    }

    /// Whether what changes a state is printed.
    pub(crate) fn is_short(&self) -> bool {
        self.log == Log::Short || self.is_full()
    }

    /// Whether each input and each effect is.
    pub(crate) fn is_full(&self) -> bool {
        match self.log {
            Log::None | Log::Short => false,
            Log::Full => true,
            Log::Between(from, to) => (from..=to).contains(&self.events),
        }
    }

    /// Prints a line.
    pub(crate) fn print(&self, who: &str, what: &str) {
        println!("{:>12.3?} {who:<10} {what}", elapsed());
    }
}

/// Simulated time since the run began.
pub(crate) fn elapsed() -> Duration {
    madsim::time::TimeHandle::current().elapsed()
}
