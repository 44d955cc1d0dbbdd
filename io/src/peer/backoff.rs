//! How long to wait before the next attempt to connect: longer each time, and never in step.

use std::time::Duration;

use super::dice::Dice;

/// Waits that double up to a bound.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        assert!(min <= max, "back-off from {min:?} to {max:?}");
        Self { min, max, next: min }
    }

    /// How long to wait now. Jitter keeps those who lost the same peer from coming back at once.
    pub(super) fn wait(&mut self, dice: &Dice) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.max);
        dice.about(span).min(self.max)
    }

    /// A connection came about and lasted.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_again() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let (dice, mut backoff) = (Dice::new([1; 32]), Backoff::new(min, max));
        for round in 0..2 {
            for doublings in 0..10 {
                let span = (min * (1 << doublings)).min(max);
                let wait = backoff.wait(&dice);
                let fits = span / 2..=(span * 3 / 2).min(max);
                assert!(fits.contains(&wait), "round {round}, {doublings}: {wait:?}");
            }
            backoff.reset();
        }
    }
}
