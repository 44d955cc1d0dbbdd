//! When each publish is due. The schedule never waits for the node: what the node does not take
//! in time is sent late, and its latency counts from when it was due.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// A steady rate of messages, in turns of one batch each; turn 0 is due at the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    began: Instant,
    /// Messages per second.
    rate: u64,
    /// Messages per turn.
    batch: u64,
    /// Messages in all.
    pub(super) messages: u64,
}

impl Schedule {
    /// A schedule that begins now.
    pub(super) fn start(rate: u64, batch: u64, span: Duration) -> Self {
        let messages = u128::from(rate) * span.as_nanos() / SECOND;
        let messages = u64::try_from(messages).unwrap_or(u64::MAX).max(1);
        Self { began: Instant::now(), rate, batch, messages }
    }

    /// How many turns there are.
    pub(super) fn turns(&self) -> u64 {
        self.messages.div_ceil(self.batch)
    }

    /// The numbers of the messages of a turn.
    pub(super) fn of_turn(&self, turn: u64) -> Range<u64> {
        turn * self.batch..self.messages.min((turn + 1) * self.batch)
    }

    /// When a turn is due.
    pub(super) fn due(&self, turn: u64) -> Instant {
        self.after(u128::from(turn) * u128::from(self.batch))
    }

    /// When the turn of a message is due.
    pub(super) fn due_of(&self, message: u64) -> Instant {
        self.due(message / self.batch)
    }

    /// When the next message would be due, were there one more.
    pub(super) fn end(&self) -> Instant {
        self.after(u128::from(self.messages))
    }

    /// The moment at which so many messages take their time at the rate.
    fn after(&self, messages: u128) -> Instant {
        let nanos = messages * SECOND / u128::from(self.rate);
        self.began + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How many turns are due at a moment.
    fn due_by(&self, moment: Instant) -> u64 {
        let nanos = moment.saturating_duration_since(self.began).as_nanos() + 1;
        let turns = (nanos * u128::from(self.rate)).div_ceil(u128::from(self.batch) * SECOND);
        u64::try_from(turns).unwrap_or(u64::MAX).min(self.turns())
    }

    /// A permit for each turn, given when it is due by a thread of its own: the runtime's timers
    /// round up to the millisecond, which would be counted as the node's latency.
    pub(super) fn pace(self) -> Arc<Semaphore> {
        let due = Arc::new(Semaphore::new(0));
        let permits = due.clone();
        std::thread::spawn(move || {
            let mut given = 0;
            while given < self.turns() {
                let now = Instant::now();
                let by_now = self.due_by(now);
                permits.add_permits(usize::try_from(by_now - given).unwrap_or(usize::MAX));
                given = by_now;
                std::thread::park_timeout(self.due(given).saturating_duration_since(now));
            }
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_due_at_the_rate() {
        let schedule = Schedule::start(1_000, 1, Duration::from_secs(2));
        assert_eq!((schedule.messages, schedule.turns()), (2_000, 2_000));
        let at = |turn| schedule.due(turn) - schedule.began();
        assert_eq!((at(0), at(1), at(1_999)), millis(0, 1, 1_999));
        assert_eq!(schedule.end() - schedule.began(), Duration::from_secs(2));
    }

    #[test]
    fn a_turn_is_a_batch_and_the_last_one_what_is_left() {
        let schedule = Schedule::start(100, 30, Duration::from_secs(1));
        assert_eq!(schedule.turns(), 4);
        assert_eq!((schedule.of_turn(0), schedule.of_turn(3)), (0..30, 90..100));
        assert_eq!(schedule.due(2) - schedule.began(), Duration::from_millis(600));
        assert_eq!(schedule.due_of(89), schedule.due(2));
    }

    #[test]
    fn a_turn_is_due_from_its_moment_on_and_not_before() {
        for (rate, batch) in [(1, 1), (3, 1), (7, 2), (1_000_000, 1), (999_999, 1_000)] {
            let schedule = Schedule::start(rate, batch, Duration::from_secs(30));
            for turn in [0, 1, 2, 3, 10, schedule.turns() - 1] {
                let turn = turn.min(schedule.turns() - 1);
                let due = schedule.due(turn);
                assert_eq!(schedule.due_by(due), turn + 1, "{rate} {batch} {turn}");
                let before = due.checked_sub(Duration::from_nanos(1)).expect("it is not the first");
                assert!(turn == 0 || schedule.due_by(before) == turn, "{rate} {batch} {turn}");
            }
            assert_eq!(schedule.due_by(schedule.end() + Duration::from_secs(9)), schedule.turns());
        }
    }

    #[test]
    fn the_least_schedule_is_one_message() {
        assert_eq!(Schedule::start(1, 1, Duration::from_millis(1)).messages, 1);
    }

    fn millis(a: u64, b: u64, c: u64) -> (Duration, Duration, Duration) {
        (Duration::from_millis(a), Duration::from_millis(b), Duration::from_millis(c))
    }
}
