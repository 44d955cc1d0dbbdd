//! A shard's own stream of random draws.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws from the seed that the shard was made with.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly between half of a span and all of it.
    pub(crate) fn jitter(&mut self, span: Duration) -> Duration {
        let half = span / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::from(u32::MAX));
        half + Duration::from_micros((u64::from(self.0.next_u32()) * micros) >> 32)
    }
}
