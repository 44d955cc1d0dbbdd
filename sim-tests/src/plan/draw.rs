//! Dice: one ChaCha stream per purpose, so that a new draw for one moves no other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of draws.
#[derive(Clone, Debug)]
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of a purpose within a seed.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(purpose);
        Self(dice)
    }

    /// Evenly from `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range: {low}..={high}");
        let span = u128::from(high - low) + 1;
        low + ((u128::from(self.0.next_u64()) * span) >> 64) as u64
    }

    /// From `low` to `high`, each order of magnitude alike.
    pub(crate) fn log_range(&mut self, low: u64, high: u64) -> u64 {
        let (log_low, log_high) = ((low.max(1) as f64).ln(), (high as f64).ln());
        let part = self.range(0, 1 << 32) as f64 / (1u64 << 32) as f64;
        ((log_low + (log_high - log_low) * part).exp() as u64).clamp(low, high)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.range(0, 99) < percent
    }

    /// True in so many of a hundred cases; what never happens draws nothing.
    pub(crate) fn share(&mut self, percent: u64) -> bool {
        percent > 0 && self.percent(percent)
    }

    /// One of some.
    pub(crate) fn pick<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.range(0, some.len() as u64 - 1) as usize]
    }

    /// Random bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
