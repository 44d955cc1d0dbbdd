//! Makes the ids that clients did not give.

use std::sync::{Mutex, PoisonError};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A seeded source of ids; 128 random bits each, so that no two ever meet.
#[derive(Debug)]
pub(super) struct Mint(Mutex<ChaCha12Rng>);

impl Mint {
    pub(super) fn new(entropy: [u8; 32]) -> Self {
        Self(Mutex::new(ChaCha12Rng::from_seed(entropy)))
    }

    /// A new id: 32 hex digits.
    pub(super) fn id(&self) -> String {
        let mut bits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:016x}{:016x}", bits.next_u64(), bits.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_seed_alone() {
        let (one, same, other) = (Mint::new([1; 32]), Mint::new([1; 32]), Mint::new([2; 32]));
        let first = one.id();
        assert_eq!((first.len(), &first), (32, &same.id()));
        assert_ne!(first, other.id());
        assert_ne!(first, one.id());
    }
}
