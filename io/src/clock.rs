//! The two clocks of a node, behind one trait, so that simulation can set each node's wrong.

use std::future::Future;

use sprawl_core::machine::{Now, Time};

/// A monotone clock, a wall clock, and sleep by the first.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The time by both.
    fn now(&self) -> Now;

    /// Returns when the monotone clock has reached `time`.
    fn sleep_until(&self, time: Time) -> impl Future<Output = ()> + Send;
}

/// The machine's own clocks.
#[cfg(not(madsim))]
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

#[cfg(not(madsim))]
impl SystemClock {
    /// A clock whose monotone time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
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

    async fn sleep_until(&self, time: Time) {
        let span = std::time::Duration::from_micros(time.0);
        tokio::time::sleep_until(self.start + span).await;
    }
}
