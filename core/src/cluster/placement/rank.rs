//! How much a node is wanted for a key: its place in weighted rendezvous hashing.

use std::cmp::Ordering;

use super::Candidate;
use crate::ids::DiskId;

/// How many binary digits of a logarithm stand behind the point.
const FRACTION_BITS: u32 = 32;

/// A node's place for a key: the least is wanted most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    /// −log₂ of the hash as a fraction of its range, in units of 2⁻³².
    distance: u64,
    weight: u32,
    disk: DiskId,
}

impl Rank {
    /// Compares `distance / weight`, by multiplying across; of equals the lesser identity wins.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.distance) * u128::from(other.weight);
        let others = u128::from(other.distance) * u128::from(self.weight);
        mine.cmp(&others).then(self.disk.cmp(&other.disk))
    }
}

/// The place of a node for a key.
pub(super) fn rank(key: u64, node: &Candidate) -> Rank {
    let disk = node.disk.0 ^ crate::zoo::seat(crate::zoo::Bug::PlacementUnordered);
    let hash = mix(key ^ mix(disk as u64 ^ mix((disk >> 64) as u64)));
    Rank { distance: distance(hash), weight: node.weight.max(1), disk: node.disk }
}

/// A bijection in which each bit of the input turns about half of the output over: the finalizer
/// of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// 64 − log₂(hash), in units of 2⁻³²: the digits behind the point by repeated squaring.
fn distance(hash: u64) -> u64 {
    let hash = hash.max(1);
    let whole = 63 - hash.leading_zeros();
    // Between 1 and 2, with 63 binary digits behind the point.
    let mut mantissa = hash << hash.leading_zeros();
    let mut logarithm = u64::from(whole);
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let is_two = square >> 127 == 1;
        mantissa = if is_two { (square >> 64) as u64 } else { (square >> 63) as u64 };
        logarithm = logarithm << 1 | u64::from(is_two);
    }
    (64 << FRACTION_BITS) - logarithm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        let unit = 1 << FRACTION_BITS;
        assert_eq!(distance(1), 64 * unit);
        assert_eq!(distance(1 << 63), unit);
        assert_eq!(distance(1 << 40), 24 * unit);
        // log₂ 3 = 1.58496250072115618145…
        let three = (64 << FRACTION_BITS) - distance(3);
        assert_eq!(three, 6_807_362_105);
        assert!(distance(u64::MAX) <= 1);
    }

    #[test]
    fn twice_the_weight_is_chosen_twice_as_often() {
        let node = |disk, weight| {
            let zone = String::new();
            Candidate { disk: DiskId(disk), zone, weight, held: 0 }
        };
        let (light, heavy) = (node(1, 100), node(2, 200));
        let wins = (0..30_000).filter(|&key| {
            rank(mix(key), &heavy).compare(&rank(mix(key), &light)) == Ordering::Less
        });
        let wins = wins.count();
        assert!((19_700..20_300).contains(&wins), "{wins} of 30000");
    }
}
