//! Cluster time: what retention, TTL, delays and time lookups are measured by.
//!
//! Clocks decide neither order nor leases. From three voters on cluster time follows the median of
//! their wall clocks, so that one wrong clock changes nothing. It is advanced by the own monotone
//! clock, corrected by at most 500 parts in a million, and never goes back. A lone node takes its
//! wall clock as it was at its start: one that jumps while the node runs changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::DiskId;
use crate::machine::{Now, Time, WallTime};

/// How fast a difference is worked off: one part in so many of the time that passes, 500 in a
/// million.
const SLEW_DIVISOR: u64 = 2_000;
/// From what difference to cluster time on a node says that its wall clock is wrong.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(5);
/// For how long what a voter's clock showed is taken for what it shows, advanced.
const READING_AGE_MAX: Duration = Duration::from_secs(10);
/// How many voters' clocks are needed before one of them may be wrong.
const VOTERS_TRUSTED_MIN: usize = 3;

/// Cluster time on this node: where it was at one moment, and what is still to be corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterClock {
    /// The moment, by the monotone clock.
    anchor: Time,
    /// Cluster time then, in microseconds.
    micros: u64,
    /// What is to be added since then, bit by bit, in microseconds.
    correction: i64,
}

impl ClusterClock {
    /// Goes on from both clocks as they were read together at the start.
    #[must_use]
    pub fn new(origin: Now) -> Self {
        let micros = origin.wall.0.saturating_mul(1_000);
        Self { anchor: origin.since_start, micros, correction: 0 }
    }

    /// Cluster time at a moment.
    #[must_use]
    pub fn at(&self, now: Now) -> WallTime {
        WallTime(self.micros_at(now.since_start) / 1_000)
    }

    /// The same in microseconds.
    #[must_use]
    pub fn micros_at(&self, at: Time) -> u64 {
        let elapsed = at.since(self.anchor).as_micros() as u64;
        let done = self.correction.unsigned_abs().min(elapsed / SLEW_DIVISOR);
        let plain = self.micros.saturating_add(elapsed);
        if self.correction < 0 { plain - done } else { plain.saturating_add(done) }
    }

    /// The moment at which cluster time will be `at`; the moment from which it is counted, where
    /// that was before it.
    #[must_use]
    pub fn when(&self, at: WallTime) -> Time {
        let span = at.0.saturating_mul(1_000).saturating_sub(self.micros);
        let whole = self.correction.unsigned_abs();
        // Within the correction every 2 000 microseconds count as one more, or one less.
        let under_way = if self.correction < 0 {
            span.saturating_add(span.div_ceil(SLEW_DIVISOR - 1))
        } else {
            span - span / (SLEW_DIVISOR + 1)
        };
        let wait = if under_way / SLEW_DIVISOR < whole {
            under_way
        } else if self.correction < 0 {
            span.saturating_add(whole)
        } else {
            span.saturating_sub(whole)
        };
        self.anchor + Duration::from_micros(wait)
    }

    /// Is right at once. Only before anybody has used it: it may go back.
    pub fn set(&mut self, now: Time, micros: u64) {
        *self = Self { anchor: now, micros, correction: 0 };
    }

    /// Becomes right by and by.
    pub fn slew(&mut self, now: Time, micros: u64) {
        let here = self.micros_at(now);
        let correction = (i128::from(micros) - i128::from(here))
            .clamp(i128::from(i64::MIN) + 1, i128::from(i64::MAX));
        *self = Self { anchor: now, micros: here, correction: correction as i64 };
    }

    /// By how much a wall clock differs from cluster time, if that is too much.
    #[must_use]
    pub fn off(&self, now: Now) -> Option<Duration> {
        let difference = Duration::from_millis(now.wall.0.abs_diff(self.at(now).0));
        (difference > CLOCK_OFF_MAX).then_some(difference)
    }
}

/// What a voter's clock showed.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Time,
    micros: u64,
}

impl Reading {
    fn is_fresh(&self, now: Time) -> bool {
        now.since(self.at) <= READING_AGE_MAX
    }

    /// What it would show now.
    fn advanced(&self, now: Time) -> u64 {
        self.micros.saturating_add(now.since(self.at).as_micros() as u64)
    }
}

/// The voters' clocks, as their answers have shown them.
///
/// Bounded by the voters: whoever is none is forgotten when the median is taken.
#[derive(Clone, Debug, Default)]
pub struct VoterClocks {
    walls: BTreeMap<DiskId, Reading>,
    /// What a voter takes for cluster time.
    times: BTreeMap<DiskId, Reading>,
}

impl VoterClocks {
    /// A voter answers: what its wall clock shows, and what it takes for cluster time, if it knows.
    /// `sent` is when it was asked; its answer is taken to be from the middle between then and now.
    pub fn answered(
        &mut self,
        voter: DiskId,
        (sent, now): (Time, Time),
        wall: WallTime,
        micros: Option<u64>,
    ) {
        let half = now.since(sent) / 2;
        let later = half.as_micros() as u64;
        let wall = wall.0.saturating_mul(1_000).saturating_add(later);
        self.walls.insert(voter, Reading { at: now, micros: wall });
        if let Some(micros) = micros {
            self.times.insert(voter, Reading { at: now, micros: micros.saturating_add(later) });
        }
    }

    /// What cluster time should be now, in microseconds; `None` where that cannot be said, and on
    /// the only voter. `here` is what this node takes for it: of an even number of clocks it is
    /// one more.
    pub fn target(&mut self, now: Now, me: DiskId, voters: &[DiskId], here: u64) -> Option<u64> {
        let mut clocks = self.shown(now, me, voters);
        if voters.len() < VOTERS_TRUSTED_MIN {
            // The first of them goes on as it began, and the others follow it.
            let first = voters.iter().min().filter(|first| **first != me)?;
            return self.times.get(first).map(|reading| reading.advanced(now.since_start));
        }
        if clocks.len() * 2 <= voters.len() {
            return None;
        }
        if clocks.len().is_multiple_of(2) {
            clocks.push(here);
            clocks.sort_unstable();
        }
        Some(clocks[clocks.len() / 2])
    }

    /// What a run begins with, in microseconds: what it is told by voters that know cluster time,
    /// or else, where all have just started, what more than half of the voters' clocks have reached
    /// at least, of all voters' clocks the median. It is not ahead of a right clock while more than
    /// half are right: time that is ahead has ids forgotten and messages removed, time that is
    /// behind has them wait. Nor is it before the `newest` time that the own disk holds, which was
    /// cluster time before the start: as many clocks may be behind as like, while others start.
    pub fn beginning(
        &mut self,
        now: Now,
        me: DiskId,
        voters: &[DiskId],
        newest: WallTime,
    ) -> Option<u64> {
        let clocks = self.shown(now, me, voters);
        let majority = voters.len() / 2 + 1;
        let reached = || {
            let reached = *clocks.get(clocks.len().checked_sub(majority)?)?;
            let seen = newest.0.saturating_mul(1_000).saturating_add(now.since_start.0);
            Some(reached.max(seen))
        };
        self.told(now.since_start)
            .or_else(|| reached().filter(|_| voters.len() >= VOTERS_TRUSTED_MIN))
    }

    /// What the voters' clocks show now, ascending, in microseconds. Others are forgotten.
    fn shown(&mut self, now: Now, me: DiskId, voters: &[DiskId]) -> Vec<u64> {
        let fresh = |reading: &Reading| reading.is_fresh(now.since_start);
        self.walls.retain(|voter, reading| voters.contains(voter) && fresh(reading));
        self.times.retain(|voter, reading| voters.contains(voter) && fresh(reading));
        let others = self.walls.iter().filter(|(voter, _)| **voter != me);
        let mut clocks: Vec<u64> =
            others.map(|(_, reading)| reading.advanced(now.since_start)).collect();
        if voters.contains(&me) {
            clocks.push(now.wall.0.saturating_mul(1_000));
        }
        clocks.sort_unstable();
        clocks
    }

    /// Cluster time now, as voters have told it that knew it, in microseconds.
    #[must_use]
    pub fn told(&self, now: Time) -> Option<u64> {
        let fresh = self.times.values().filter(|reading| reading.is_fresh(now));
        let mut told: Vec<u64> = fresh.map(|reading| reading.advanced(now)).collect();
        told.sort_unstable();
        told.get(told.len().checked_sub(1)? / 2).copied()
    }

    /// Whether there is no other clock to wait for: all voters have shown theirs, or there are
    /// fewer than three, of which the first goes by its own.
    #[must_use]
    pub fn suffice(&self, me: DiskId, voters: &[DiskId]) -> bool {
        let shown = voters.iter().filter(|voter| **voter == me || self.walls.contains_key(*voter));
        match voters.len() < VOTERS_TRUSTED_MIN {
            true => voters.iter().min().is_none_or(|first| *first == me),
            false => shown.count() == voters.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: WallTime = WallTime(0);

    fn now(micros: u64, wall: u64) -> Now {
        Now { since_start: Time(micros), wall: WallTime(wall) }
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_nothing() {
        let clock = ClusterClock::new(now(2_000_000, 50_000));
        assert_eq!(clock.at(now(5_500_000, 9)), WallTime(53_500));
        assert_eq!(clock.when(WallTime(53_500)), Time(5_500_000));
        assert_eq!(clock.when(WallTime(1)), Time(2_000_000));
        assert_eq!(clock.off(now(5_500_000, 58_500)), None);
        assert_eq!(clock.off(now(5_500_000, 58_501)), Some(Duration::from_millis(5_001)));
    }

    #[test]
    fn a_correction_is_worked_off_and_never_goes_back() {
        for target in [1_000_000_000_u64, 1_001_000_000, 999_000_000] {
            let mut clock = ClusterClock::new(now(0, 1_000_000));
            clock.slew(Time(0), target);
            let mut last = 0;
            for second in 0..3_000_u64 {
                let at = Time(second * 1_000_000);
                let micros = clock.micros_at(at);
                assert!(micros >= last + 999_000 || second == 0, "{last} then {micros}");
                assert!(micros <= last + 1_001_000 || second == 0, "{last} then {micros}");
                last = micros;
                let shown = WallTime(micros / 1_000);
                let when = clock.when(shown);
                let (early, late) = (when.0 / 1_000, at.0 / 1_000);
                assert!(early.abs_diff(late) <= 1, "{early} for {late}");
                assert!(clock.at(now(when.0 + 1, 0)) >= shown);
            }
            assert_eq!(last, target + 2_999 * 1_000_000);
        }
    }

    #[test]
    fn one_wrong_clock_of_three_changes_nothing() {
        let [me, b, c] = [1, 2, 3].map(DiskId);
        for wrong in 0..3_usize {
            let mut walls = [1_000_000_u64; 3];
            walls[wrong] = 9_000_000;
            let mut clocks = VoterClocks::default();
            for (voter, wall) in [(b, walls[1]), (c, walls[2])] {
                clocks.answered(voter, (Time(0), Time(0)), WallTime(wall), None);
            }
            let here = 1_000_000_000;
            let target = clocks.target(now(0, walls[0]), me, &[me, b, c], here);
            assert_eq!(target, Some(here), "clock {wrong} is wrong");
            // With one answer only, what this node took for the time is the third.
            let mut two = VoterClocks::default();
            two.answered(b, (Time(0), Time(0)), WallTime(walls[1]), None);
            assert_eq!(two.target(now(0, walls[0]), me, &[me, b, c], here), Some(here));
            assert!(clocks.suffice(me, &[me, b, c]) && !two.suffice(me, &[me, b, c]));
            assert_eq!(VoterClocks::default().target(now(0, 5), me, &[me, b, c], here), None);
            // A run that begins trusts two of three, or else the one of two that is behind.
            let (right, now) = (Some(here), now(0, walls[0]));
            assert_eq!(clocks.beginning(now, me, &[me, b, c], NEVER), right);
            assert_eq!(two.beginning(now, me, &[me, b, c], NEVER), right);
            let nobody = VoterClocks::default().beginning(now, me, &[me, b, c], NEVER);
            assert_eq!(nobody, None, "one of three says nothing");
            let five = [me, b, c, DiskId(4), DiskId(5)];
            assert_eq!(clocks.beginning(now, me, &five, NEVER), right, "of three the first");
            assert_eq!(two.beginning(now, me, &five, NEVER), None);
        }
    }

    #[test]
    fn a_lone_voter_goes_on_as_it_began_and_is_followed() {
        let [me, other] = [1, 2].map(DiskId);
        let mut clocks = VoterClocks::default();
        assert_eq!(clocks.target(now(0, 99), me, &[me], 5), None);
        assert!(clocks.suffice(me, &[me, other]) && !clocks.suffice(other, &[me, other]));
        clocks.answered(other, (Time(0), Time(2_000)), WallTime(77), Some(40_000));
        assert_eq!(clocks.told(Time(5_000)), Some(44_000));
        assert_eq!(clocks.told(Time(11_000_000)), None, "too old");
        assert_eq!(clocks.target(now(5_000, 99), me, &[other], 5), Some(44_000));
        assert_eq!(clocks.target(now(11_000_000, 99), me, &[other], 5), None, "too old");
    }
}
