//! The two clocks of a node, behind one trait, so that simulation can set each node's wrong.

use sprawl_core::machine::{Now, Time};
use tokio::time::Instant;

/// A monotone clock and a wall clock.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The time by both.
    fn now(&self) -> Now;

    /// When the monotone clock reaches `time`, as the runtime counts it.
    fn moment(&self, time: Time) -> Instant;
}

/// The machine's own clocks.
#[cfg(not(madsim))]
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: Instant,
}

#[cfg(not(madsim))]
impl SystemClock {
    /// A clock whose monotone time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

#[cfg(not(madsim))]
impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now {
            since_start: Time(0) + self.start.elapsed(),
            wall: sprawl_core::machine::WallTime(wall.as_millis() as u64),
        }
    }

    fn moment(&self, time: Time) -> Instant {
        self.start + std::time::Duration::from_micros(time.0)
    }
}
