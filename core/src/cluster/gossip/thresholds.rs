//! How often, how long and how many: what the gossip is tuned by.

use std::time::Duration;

/// The fraction of the way from the longest suspicion to the shortest, in thousandths, by the
/// confirmations that would end it (rows, from one) and those that came (columns, from none):
/// log(came + 1) / log(wanted + 1).
const CONFIRMED: [[u64; 4]; 3] =
    [[0, 1_000, 1_000, 1_000], [0, 631, 1_000, 1_000], [0, 500, 792, 1_000]];

/// The numbers that an administrator may change, all of a cluster's nodes alike.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// From one probe to the next, of a healthy prober.
    pub probe_interval: Duration,
    /// How long a probed member has to answer.
    pub direct_timeout: Duration,
    /// How much longer it has when others ask on the prober's behalf.
    pub indirect_timeout: Duration,
    /// How many others ask.
    pub indirect: usize,
    /// The least suspicion, in probe intervals, of a cluster of up to ten.
    pub suspicion_factor: u32,
    /// Eager pushes that fall within so much become one datagram a peer.
    pub push_window: Duration,
    /// From the first eager push to the second, to other peers.
    pub push_again: Duration,
    /// From one round of tick gossip to the next, while there is news.
    pub gossip_interval: Duration,
    /// To how many peers a round goes.
    pub gossip_fanout: usize,
    /// From one periodic exchange to the next.
    pub exchange_interval: Duration,
    /// From one try to reach somebody who is lost to the next.
    pub reconnect_interval: Duration,
    /// How long a view must be quiet before a peer's other view is asked for.
    pub repair_after: Duration,
    /// How long a member that failed or left is listed.
    pub forget_after: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            probe_interval: millis(200),
            direct_timeout: millis(50),
            indirect_timeout: millis(50),
            indirect: 3,
            suspicion_factor: 4,
            push_window: millis(5),
            push_again: millis(10),
            gossip_interval: millis(200),
            gossip_fanout: 3,
            exchange_interval: millis(30_000),
            reconnect_interval: millis(2_000),
            repair_after: millis(1_000),
            forget_after: millis(3_600_000),
        }
    }
}

impl Thresholds {
    /// To how many peers each eager push goes: ⌈ln N⌉ + 2 of N live members.
    #[must_use]
    pub fn push_fanout(&self, live: usize) -> usize {
        (live.max(1) as f64).ln().ceil() as usize + 2
    }

    /// How often a node passes a piece of news on by tick gossip and piggyback.
    #[must_use]
    pub fn passes(&self, live: usize) -> u32 {
        3 * self.push_fanout(live) as u32
    }

    /// How many confirmations of a suspicion end it soonest: min(3, N − 2).
    #[must_use]
    pub fn confirmations(&self, live: usize) -> usize {
        live.saturating_sub(2).min(3)
    }

    /// How long a suspicion lasts that so many have confirmed, the first accuser not counted
    /// (Lifeguard, Dadgar et al. 2018, section 3). Where nobody else could confirm, it is the
    /// shortest at once.
    #[must_use]
    pub fn suspicion(&self, live: usize, confirmed: usize) -> Duration {
        let scale = ((live.max(1) as f64).log10() * 1_000.0).round().max(1_000.0) as u32;
        let least = self.probe_interval * self.suspicion_factor * scale / 1_000;
        let wanted = self.confirmations(live);
        let Some(row) = wanted.checked_sub(1) else { return least };
        let gone = CONFIRMED[row][confirmed.min(wanted)];
        least + least * (1_000 - gone) as u32 / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_falls_to_half_with_confirmations() {
        let millis = |live, confirmed| Thresholds::default().suspicion(live, confirmed).as_millis();
        assert_eq!([0, 1, 2, 3, 4].map(|c| millis(10, c)), [1_600, 1_200, 966, 800, 800]);
        assert_eq!([0, 3].map(|c| millis(100, c)), [3_200, 1_600]);
        assert_eq!([0, 3].map(|c| millis(1_000, c)), [4_800, 2_400]);
        assert_eq!([0, 1].map(|c| millis(3, c)), [1_600, 800]);
        assert_eq!([millis(1, 0), millis(2, 0)], [800, 800], "nobody could confirm");
    }

    #[test]
    fn pushes_reach_everyone_of_a_few_and_some_of_many() {
        let fanout = |live| Thresholds::default().push_fanout(live);
        assert_eq!([1, 2, 10, 100, 1_000].map(fanout), [2, 3, 5, 7, 9]);
    }
}
