//! Moments, as the world hands them in.

use std::ops::Add;
use std::time::Duration;

use crate::ids::{BadNumber, plausible};

/// A moment on the node's monotone clock: microseconds since this process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Time {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A moment that a clock on the wall shows: milliseconds since 1970 in UTC. It may jump.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(try_from = "u64")]
pub struct WallTime(pub u64);

impl TryFrom<u64> for WallTime {
    type Error = BadNumber;
    fn try_from(millis: u64) -> Result<Self, BadNumber> {
        plausible(millis).map(Self)
    }
}

/// The time of an input, by both clocks of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// Monotone; timers and ages are measured by it.
    pub since_start: Time,
    /// May jump either way; read once at the start, never compared with another node's.
    pub wall: WallTime,
}
