//! Cluster time: what retention, TTL, delays and time lookups are measured by.
//!
//! Clocks decide neither order nor leases. On a lone node cluster time is the wall clock as it was
//! read at the node's start, advanced by the monotone clock since: a wall clock that jumps while
//! the node runs changes nothing.

use std::time::Duration;

use crate::machine::{Now, Time, WallTime};

/// Where cluster time began on this node.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterClock {
    origin: Now,
}

impl ClusterClock {
    /// Goes on from both clocks as they were read together at the start.
    #[must_use]
    pub fn new(origin: Now) -> Self {
        Self { origin }
    }

    /// Cluster time at a moment.
    #[must_use]
    pub fn at(&self, now: Now) -> WallTime {
        let elapsed = now.since_start.since(self.origin.since_start);
        WallTime(self.origin.wall.0 + elapsed.as_millis() as u64)
    }

    /// The moment at which cluster time will be `at`; the start, where that was before it.
    #[must_use]
    pub fn when(&self, at: WallTime) -> Time {
        let span = at.0.saturating_sub(self.origin.wall.0);
        self.origin.since_start + Duration::from_millis(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_moves_nothing() {
        let origin = Now { since_start: Time(2_000_000), wall: WallTime(50_000) };
        let clock = ClusterClock::new(origin);
        let later = Now { since_start: Time(5_500_000), wall: WallTime(9) };
        assert_eq!(clock.at(later), WallTime(53_500));
        assert_eq!(clock.when(WallTime(53_500)), Time(5_500_000));
        assert_eq!(clock.when(WallTime(1)), Time(2_000_000));
    }
}
