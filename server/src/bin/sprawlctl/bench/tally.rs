//! What came of a run: counts, and latencies as a log-linear histogram.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::messages::Numbers;

/// The longest latency that is told apart from longer ones, in microseconds: two hours.
const LATENCY_MICROS_MAX: u64 = 7_200_000_000;
/// To how many decimal digits latencies are told apart.
const DIGITS: u8 = 3;
/// How many kinds of errors are counted apart.
const KINDS_MAX: usize = 50;

/// Latencies, to three digits.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS);
        Self(histogram.expect("the bounds are in order and the digits at most five"))
    }

    pub(super) fn add(&mut self, latency: Duration, times: u64) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(micros.max(1), times);
    }

    /// The names of the figures and their values, in milliseconds; all zero when nothing was added.
    pub(super) fn figures(&self) -> [(&'static str, f64); 6] {
        let millis = |micros: u64| micros as f64 / 1_000.0;
        let at = |share: f64| millis(self.0.value_at_quantile(share));
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", millis(self.0.max())),
            ("mean", self.0.mean() / 1_000.0),
        ]
    }

    /// The figures as a JSON object.
    pub(super) fn json(&self) -> Value {
        let named = |(name, millis): &(&str, f64)| (name.replace('.', "_"), json!(millis));
        self.figures().iter().map(named).collect()
    }
}

/// How often each kind of thing happened.
pub(super) type Kinds = BTreeMap<String, u64>;

/// What came of the publishes.
#[derive(Debug)]
pub(super) struct Tally {
    /// From when a message was due to when its answer had come.
    pub(super) latencies: Latencies,
    /// Which messages are acknowledged.
    pub(super) stored: Numbers,
    /// How many of those the node knew from an earlier try.
    pub(super) duplicates: u64,
    /// Tries whose refusal may pass, by kind.
    pub(super) retried: Kinds,
    /// Messages that are not acknowledged, by kind.
    pub(super) failed: Kinds,
    /// How much later than due the newest turn was first sent.
    pub(super) behind: Duration,
    /// When the newest acknowledgement came.
    pub(super) last: Option<Instant>,
}

impl Tally {
    pub(super) fn new(messages: u64) -> Self {
        Self {
            latencies: Latencies::new(),
            stored: Numbers::below(messages),
            duplicates: 0,
            retried: Kinds::new(),
            failed: Kinds::new(),
            behind: Duration::ZERO,
            last: None,
        }
    }

    /// A turn is sent for the first time, so much later than due.
    pub(super) fn sent(&mut self, behind: Duration) {
        self.behind = behind;
    }

    /// A message is acknowledged.
    pub(super) fn stored(&mut self, number: u64, due: Instant, duplicate: bool) {
        let now = Instant::now();
        self.latencies.add(now.saturating_duration_since(due), 1);
        self.stored.insert(number);
        self.duplicates += u64::from(duplicate);
        self.last = Some(now);
    }

    /// A try was refused, and the refusal may pass.
    pub(super) fn retried(&mut self, kind: String) {
        count(&mut self.retried, kind, 1);
    }

    /// A turn was not sent at all; it waited so long.
    pub(super) fn unsent(&mut self, waited: Duration) {
        self.behind = self.behind.max(waited);
    }

    /// Messages are not acknowledged, and will not be.
    pub(super) fn failed(&mut self, kind: &str, waited: Duration, messages: u64) {
        self.latencies.add(waited, messages);
        count(&mut self.failed, kind.to_owned(), messages);
    }
}

fn count(kinds: &mut Kinds, kind: String, times: u64) {
    let known = kinds.len() < KINDS_MAX || kinds.contains_key(&kind);
    *kinds.entry(if known { kind } else { "others".to_owned() }).or_default() += times;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::new();
        for millis in 1..=1_000 {
            latencies.add(Duration::from_millis(millis), 1);
        }
        let wanted = [500.0, 900.0, 990.0, 999.0, 1_000.0, 500.5];
        for ((name, found), wanted) in latencies.figures().into_iter().zip(wanted) {
            assert!((found / wanted - 1.0).abs() < 0.001, "{name}: {found}, not {wanted}");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_counts_as_the_bound() {
        let mut latencies = Latencies::new();
        latencies.add(Duration::ZERO, 1);
        latencies.add(Duration::from_secs(1 << 20), 1);
        let figures = latencies.figures();
        assert!(figures[0].1 < 0.01 && figures[4].1 > 7_000_000.0, "{figures:?}");
    }

    #[test]
    fn kinds_are_bounded() {
        let mut kinds = Kinds::new();
        (0..100).for_each(|number| count(&mut kinds, format!("kind {number}"), 2));
        assert_eq!((kinds.len(), kinds["others"]), (KINDS_MAX + 1, 100));
    }
}
