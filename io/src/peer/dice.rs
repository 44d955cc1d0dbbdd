//! Random numbers of the network: nonces that nobody guesses, and jitter.

use std::sync::Mutex;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::lock;

/// How long a nonce is, in bytes.
pub(super) const NONCE_BYTES: usize = 32;

/// One stream, from the entropy that the start was given.
pub(super) struct Dice(Mutex<ChaCha20Rng>);

impl Dice {
    pub(super) fn new(entropy: [u8; 32]) -> Self {
        Self(Mutex::new(ChaCha20Rng::from_seed(entropy)))
    }

    pub(super) fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        lock(&self.0).fill_bytes(&mut nonce);
        nonce
    }

    pub(super) fn number(&self) -> u64 {
        lock(&self.0).next_u64()
    }

    /// Evenly from half of `span` to one and a half of it.
    pub(super) fn about(&self, span: Duration) -> Duration {
        let part = (self.number() >> 32) as u32;
        span / 2 + span.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}
