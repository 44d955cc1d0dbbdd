//! How much the shards of a node have to do, for gossip to tell the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sprawl_core::cluster::gossip::Load;
use sprawl_core::machine::Time;

/// How often it is read at most: what is read is the mean since the reading before.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Where one shard notes what it does. Each reads and writes its own.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    busy_micros: AtomicU64,
    waiting_bytes: AtomicU64,
}

impl Gauge {
    /// It has worked for so long, and so many bytes of publishes wait in it now.
    pub(crate) fn note(&self, worked: Duration, waiting_bytes: u64) {
        self.busy_micros.fetch_add(worked.as_micros() as u64, Ordering::Relaxed);
        self.waiting_bytes.store(waiting_bytes, Ordering::Relaxed);
    }
}

/// Reads the gauges of all shards.
#[derive(Debug)]
pub(crate) struct Gauges {
    shards: Vec<Arc<Gauge>>,
    read_at: Time,
    busy_micros: u64,
}

impl Gauges {
    /// Begins at a time at which none has worked.
    pub(crate) fn new(shards: Vec<Arc<Gauge>>, now: Time) -> Self {
        Self { shards, read_at: now, busy_micros: 0 }
    }

    /// The load since the last reading, when that is long enough ago.
    pub(crate) fn read(&mut self, now: Time) -> Option<Load> {
        let span = now.since(self.read_at);
        if span < READ_INTERVAL {
            return None;
        }
        let sum = |of: fn(&Gauge) -> &AtomicU64| -> u64 {
            self.shards.iter().map(|gauge| of(gauge).load(Ordering::Relaxed)).sum()
        };
        let (busy, waiting_bytes) = (sum(|gauge| &gauge.busy_micros), sum(|g| &g.waiting_bytes));
        let worked = u128::from(busy - self.busy_micros);
        let could = span.as_micros() * self.shards.len().max(1) as u128;
        (self.read_at, self.busy_micros) = (now, busy);
        // A round of work that began before the last reading counts when it ends.
        let busy_permille = (worked * 1_000 / could).min(1_000) as u16;
        Some(Load { busy_permille, waiting_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_mean_over_shards_since_the_last_reading() {
        let gauges: Vec<Arc<Gauge>> = (0..2).map(|_| Arc::default()).collect();
        let (start, second) = (Time::default(), Duration::from_secs(1));
        let mut read = Gauges::new(gauges.clone(), start);
        gauges[0].note(second / 2, 10);
        gauges[1].note(second / 4, 7);
        assert_eq!(read.read(start + second / 2), None, "it is too soon");
        let load = Load { busy_permille: 375, waiting_bytes: 17 };
        assert_eq!(read.read(start + second), Some(load));
        gauges[1].note(second * 9, 0);
        let load = Load { busy_permille: 1_000, waiting_bytes: 10 };
        assert_eq!(read.read(start + second * 2), Some(load));
        let idle = Load { busy_permille: 0, waiting_bytes: 10 };
        assert_eq!(read.read(start + second * 4), Some(idle));
    }
}
