//! The secret that the nodes of a cluster share, and what is proved with it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a seal is, in bytes.
pub(super) const SEAL_BYTES: usize = 32;

/// The secret of a cluster. It is never printed.
#[derive(Clone)]
pub struct ClusterKey(Arc<[u8]>);

impl ClusterKey {
    /// The key of this secret, of any length but 0.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    /// The secret itself, for what seals by its own rules.
    pub(crate) fn secret(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// HMAC-SHA-256 over who speaks, all that was said before, and what is said now (RFC 2104).
    fn mac(&self, speaker: Speaker, before: &[u8], now: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("of any length");
        // Without the speaker, one who does not know the key could send a node's own words back.
        mac.update(&[speaker as u8]);
        mac.update(&(before.len() as u64).to_le_bytes());
        mac.update(before);
        mac.update(now);
        mac
    }

    pub(super) fn seal(&self, speaker: Speaker, before: &[u8], now: &[u8]) -> [u8; SEAL_BYTES] {
        self.mac(speaker, before, now).finalize().into_bytes().into()
    }

    /// Whether the seal is right, found out in a time that does not depend on where it differs.
    pub(super) fn fits(&self, speaker: Speaker, before: &[u8], now: &[u8], seal: &[u8]) -> bool {
        self.mac(speaker, before, now).verify_slice(seal).is_ok()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// Which of the two sides of a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Dialer = 1,
    Acceptor = 2,
}

impl Speaker {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}
