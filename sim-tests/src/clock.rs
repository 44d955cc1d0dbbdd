//! The clocks of a simulated node: a monotone one that starts with the process, and a wall clock
//! that faults may set wrong while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sprawl_core::machine::{Now, Time, WallTime};
use sprawl_io::clock::Clock;
use tokio::time::Instant;

/// True time at the start of every run: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// What a right clock shows so many simulated milliseconds after the start of the run.
pub(crate) fn wall(since_start_ms: u64) -> WallTime {
    WallTime(EPOCH_MS as u64 + since_start_ms)
}

/// How wrong a node's wall clock is, in milliseconds; the node's faults set it.
pub(crate) type WallError = Arc<AtomicI64>;

/// The clocks of one process.
#[derive(Clone, Debug)]
pub(crate) struct SimClock {
    world: Instant,
    process: Instant,
    error: WallError,
}

impl SimClock {
    /// The clocks of a process that starts now, in a world that began at `world`.
    pub(crate) fn start(world: Instant, error: WallError) -> Self {
        Self { world, process: Instant::now(), error }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let passed = self.world.elapsed().as_millis() as i64;
        let wall = EPOCH_MS + passed + self.error.load(Ordering::Relaxed);
        let since_start = Time(0) + self.process.elapsed();
        Now { since_start, wall: WallTime(wall.max(0) as u64) }
    }

    fn moment(&self, time: Time) -> Instant {
        self.process + Duration::from_micros(time.0)
    }
}
