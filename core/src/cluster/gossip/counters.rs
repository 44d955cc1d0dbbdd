//! What the gossip has counted, for metrics; nothing is decided by it.

/// Why something that came was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// It is longer than anything that is sent.
    TooLong,
    /// It is of another version of gossip.
    Version,
    /// Its bytes spell nothing, or what no node would say.
    Malformed,
    /// It has no keyed hash, and this node has a key.
    Unsealed,
    /// It has a keyed hash, and this node has no key.
    Sealed,
    /// Its keyed hash is not that of this node's key.
    Forged,
    /// It comes from another cluster.
    Foreign,
    /// It comes from a node that the metadata has retired.
    Retired,
    /// It comes from this node's own identity.
    Own,
    /// It probes another node, which had this address before.
    Misdirected,
    /// It answers what is not asked, or not any more.
    Late,
    /// It is about a member for whom there is no room.
    Full,
}

impl Drop {
    /// All of them, with the names that metrics give them.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::TooLong, "too_long"),
        (Self::Version, "version"),
        (Self::Malformed, "malformed"),
        (Self::Unsealed, "unsealed"),
        (Self::Sealed, "sealed"),
        (Self::Forged, "forged"),
        (Self::Foreign, "foreign"),
        (Self::Retired, "retired"),
        (Self::Own, "own"),
        (Self::Misdirected, "misdirected"),
        (Self::Late, "late"),
        (Self::Full, "full"),
    ];
}

/// What was counted since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GossipCounters {
    /// Datagrams that came.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams that were sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Exchanges that this node asked for.
    pub exchanges: u64,
    /// Of them, those that nobody answered.
    pub exchanges_failed: u64,
    /// Probes that were begun.
    pub probes: u64,
    /// Probes that nobody answered.
    pub probes_failed: u64,
    /// Probes that only a stream answered: datagrams do not pass.
    pub probes_by_stream: u64,
    /// Suspicions that began here, by an own probe or by news.
    pub suspicions: u64,
    /// How often this node objected to what was said about it.
    pub refutations: u64,
    /// Verdicts that this node gave itself.
    pub verdicts: u64,
    /// Wakes that came so late that silence proved nothing.
    pub late_wakes: u64,
    /// What was not used, by reason, in the order of [`Drop::ALL`].
    pub dropped: [u64; 12],
}

impl GossipCounters {
    /// How much was not used for this reason.
    #[must_use]
    pub fn dropped(&self, why: Drop) -> u64 {
        self.dropped[why as usize]
    }

    pub(super) fn drop(&mut self, why: Drop) {
        self.dropped[why as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_counts_in_its_own_place() {
        let mut counters = GossipCounters::default();
        for (at, (why, _)) in Drop::ALL.into_iter().enumerate() {
            counters.drop(why);
            assert_eq!((why as usize, counters.dropped(why)), (at, 1));
        }
    }
}
