//! How a datagram or an exchange is wrapped: a version, and under a cluster key a keyed hash.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, now 1 |
//! | 1 | 0 plain, 1 keyed |
//! | 2–17 | keyed only: the first 16 bytes of HMAC-SHA-256 (RFC 2104) over all other bytes |
//! | … | a frame of [`wire`](crate::wire) |
//!
//! The hash says that a holder of the key made it, not when: what is sent again later is old news,
//! which incarnations and the probes' numbers tell from new.

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use super::counters::Drop;
use crate::wire;

/// The version of gossip that this build speaks.
pub const GOSSIP_VERSION: u8 = 1;
/// The longest datagram, in bytes: it fits every path's packets, so that it travels whole.
pub const DATAGRAM_BYTES_MAX: usize = 1_400;
/// The longest message of an exchange, in bytes.
pub const EXCHANGE_BYTES_MAX: usize = 1 << 20;
/// The bytes before the frame, at most.
pub(super) const WRAP_BYTES_MAX: usize = 2 + MAC_BYTES;

const MAC_BYTES: usize = 16;
const PLAIN: u8 = 0;
const KEYED: u8 = 1;

/// Wraps and unwraps, with the cluster's key or without.
#[derive(Clone)]
pub(super) struct Seal {
    key: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.key.is_some() { "Seal(keyed)" } else { "Seal(plain)" })
    }
}

impl Seal {
    /// A seal under this key, of any length.
    pub(super) fn new(key: Option<&[u8]>) -> Self {
        let keyed = |key| Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        Self { key: key.map(keyed) }
    }

    fn mac(key: &Hmac<Sha256>, version: u8, frame: &[u8]) -> Hmac<Sha256> {
        let mut mac = key.clone();
        mac.update(&[version, KEYED]);
        mac.update(frame);
        mac
    }

    /// Wraps a value.
    pub(super) fn wrap<T: Serialize>(&self, value: &T) -> Bytes {
        let mut bytes = Vec::with_capacity(160);
        match &self.key {
            None => {
                bytes.extend([GOSSIP_VERSION, PLAIN]);
                wire::encode_behind(value, &mut bytes);
            }
            Some(key) => {
                bytes.extend([GOSSIP_VERSION, KEYED]);
                bytes.extend([0; MAC_BYTES]);
                wire::encode_behind(value, &mut bytes);
                let (head, frame) = bytes.split_at_mut(WRAP_BYTES_MAX);
                let mac = Self::mac(key, GOSSIP_VERSION, frame).finalize().into_bytes();
                head[2..].copy_from_slice(&mac[..MAC_BYTES]);
            }
        }
        bytes.into()
    }

    /// Unwraps a value, or says why nothing of it was used.
    pub(super) fn unwrap<T: DeserializeOwned>(
        &self,
        bytes: &[u8],
        bytes_max: usize,
    ) -> Result<T, Drop> {
        if bytes.len() > bytes_max {
            return Err(Drop::TooLong);
        }
        let [version, kind, rest @ ..] = bytes else { return Err(Drop::Malformed) };
        if *version != GOSSIP_VERSION {
            return Err(Drop::Version);
        }
        let frame = match (*kind, &self.key) {
            (PLAIN, None) => rest,
            (PLAIN, Some(_)) => return Err(Drop::Unsealed),
            (KEYED, None) => return Err(Drop::Sealed),
            (KEYED, Some(key)) => {
                let (mac, frame) = rest.split_at_checked(MAC_BYTES).ok_or(Drop::Malformed)?;
                let expected = Self::mac(key, *version, frame);
                expected.verify_truncated_left(mac).map_err(|_| Drop::Forged)?;
                frame
            }
            (_, _) => return Err(Drop::Malformed),
        };
        wire::decode(frame).map_err(|_| Drop::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_holders_of_the_key_are_heard() {
        let (plain, ours, theirs) =
            (Seal::new(None), Seal::new(Some(b"ours")), Seal::new(Some(b"theirs")));
        let read = |seal: &Seal, bytes: &[u8]| seal.unwrap::<u64>(bytes, 1_400);
        assert_eq!(read(&plain, &plain.wrap(&7_u64)), Ok(7));
        assert_eq!(read(&ours, &ours.wrap(&7_u64)), Ok(7));
        assert_eq!(read(&ours, &theirs.wrap(&7_u64)), Err(Drop::Forged));
        assert_eq!(read(&ours, &plain.wrap(&7_u64)), Err(Drop::Unsealed));
        assert_eq!(read(&plain, &ours.wrap(&7_u64)), Err(Drop::Sealed));
        assert_eq!(read(&plain, &[2, 0, 1, 7]), Err(Drop::Version));
        assert_eq!(read(&plain, &[]), Err(Drop::Malformed));
        assert_eq!(plain.unwrap::<u64>(&[1; 9], 8), Err(Drop::TooLong));
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed() {
        let seal = Seal::new(Some(b"key"));
        let whole = seal.wrap(&77_u64);
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(seal.unwrap::<u64>(&bytes, 1_400).is_err(), "bit {at}");
        }
    }
}
