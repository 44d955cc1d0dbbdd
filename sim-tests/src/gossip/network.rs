//! The links between nodes: each has a latency of its own, and loses, repeats, delays or cuts.

use std::collections::BTreeSet;

use crate::plan::Draw;

/// The shortest way, in microseconds; the longest is ten times as long.
const LATENCY_LEAST: u64 = 500;
/// What latencies differ by from link to link.
const LATENCY_SPREAD: u64 = 4_000;
/// What they differ by from datagram to datagram.
const JITTER: u64 = 500;
/// How long the heavy tail of delays is.
const DELAY_MAX: u64 = 300_000;

/// A wall between some nodes and the others.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// The nodes of one side.
    pub(super) side: BTreeSet<usize>,
    /// Whether the other side is still heard by this one.
    pub(super) one_way: bool,
}

/// What the network does to datagrams, in thousandths of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) repeats: u64,
    pub(super) delays: u64,
    pub(super) cuts: Vec<Cut>,
}

/// The network.
pub(super) struct Network {
    seed: u64,
    draw: Draw,
    pub(super) weather: Weather,
}

impl Network {
    pub(super) fn new(seed: u64, loss: u64) -> Self {
        let weather = Weather { loss, ..Weather::default() };
        Self { seed, draw: Draw::new(seed, 1), weather }
    }

    /// Whether a datagram from one node may reach another.
    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        self.weather.cuts.iter().all(|cut| {
            match (cut.side.contains(&from), cut.side.contains(&to)) {
                (true, false) => false,
                (false, true) => cut.one_way,
                (true, true) | (false, false) => true,
            }
        })
    }

    /// The time from one node to another now, in microseconds.
    pub(super) fn latency(&mut self, from: usize, to: usize) -> u64 {
        let (low, high) = (from.min(to) as u64, from.max(to) as u64);
        let mut link = self.seed ^ (low << 32 | high).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        link = (link ^ (link >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let own = ((link >> 32) * LATENCY_SPREAD) >> 32;
        LATENCY_LEAST + own + self.draw.range(0, JITTER)
    }

    /// After how long a datagram arrives: never, once, or twice.
    pub(super) fn deliveries(&mut self, from: usize, to: usize) -> [Option<u64>; 2] {
        if !self.weather.cuts.is_empty() && !self.passes(from, to) {
            return [None, None];
        }
        let mut one = || {
            let lost = self.weather.loss > 0 && self.draw.range(0, 999) < self.weather.loss;
            if lost {
                return None;
            }
            let late = self.weather.delays > 0 && self.draw.range(0, 999) < self.weather.delays;
            let extra = if late { self.draw.log_range(1_000, DELAY_MAX) } else { 0 };
            Some(self.latency(from, to) + extra)
        };
        let first = one();
        let twice = self.weather.repeats > 0 && self.draw.range(0, 999) < self.weather.repeats;
        [first, if twice { Some(self.latency(from, to) + 1_000) } else { None }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_take_half_a_millisecond_to_five_and_lose_what_they_should() {
        let mut network = Network::new(7, 10);
        let times: Vec<_> = (0..20_000).map(|at| network.deliveries(at % 50, 60)[0]).collect();
        let arrived: Vec<u64> = times.iter().copied().flatten().collect();
        let (least, most) = (arrived.iter().min(), arrived.iter().max());
        assert!(least >= Some(&500) && most <= Some(&5_000), "{least:?} {most:?}");
        let lost = times.len() - arrived.len();
        assert!((120..280).contains(&lost), "1 % of 20 000 is not {lost}");
    }

    #[test]
    fn a_wall_stops_one_way_or_both() {
        let mut network = Network::new(7, 0);
        let side = BTreeSet::from([0, 1]);
        let passes =
            |network: &Network| [(0, 1), (0, 2), (2, 0), (2, 3)].map(|(a, b)| network.passes(a, b));
        network.weather.cuts = vec![Cut { side: side.clone(), one_way: false }];
        assert_eq!(passes(&network), [true, false, false, true]);
        network.weather.cuts = vec![Cut { side, one_way: true }];
        assert_eq!(passes(&network), [true, false, true, true]);
    }
}
