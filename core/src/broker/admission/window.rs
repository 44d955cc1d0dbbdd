//! How many bytes may be under way, from how long it takes until they are done.
//!
//! One probe is under way at a time: it marks what has been handed in, and ends when all of it is
//! durable. While commits take less than the target and somebody waits, the window grows by a
//! quarter a probe; when they take longer it shrinks in proportion. So a fast
//! disk gets large batches, and a slow one no queue in front of it that only adds delay. The
//! target follows the disk: four times its quickest commits, which no window makes quicker.

use std::time::Duration;

use crate::machine::Time;

/// The window when nothing is known yet, in bytes, where its bounds allow.
const LIMIT_START: usize = 1 << 20;
/// What a probe leaves of the window at least.
const SHRINK_MOST: f64 = 0.125;
/// The least and the most time that a commit may take before the window shrinks.
const TARGET_MIN: Duration = Duration::from_millis(10);
const TARGET_MAX: Duration = Duration::from_millis(250);
/// How many times its quickest commits the target is.
const TARGET_OF_QUICKEST: u32 = 4;
/// After how many probes the quickest commit is half forgotten, about.
const FORGETTING: u32 = 64;
/// The least that is taken for the rate, in bytes a second.
pub(super) const RATE_MIN: u64 = 1 << 20;

/// A window over the bytes in flight.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    min: usize,
    max: usize,
    probe: Option<Probe>,
    /// Whether somebody has waited since the probe began.
    short: bool,
    quickest: Duration,
    latency: Duration,
    /// What was measured while somebody waited.
    rate: Option<u64>,
}

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    began: Time,
    /// It ends when so many bytes are durable.
    mark: u64,
    /// How many were when it began.
    durable: u64,
}

impl Window {
    /// A window of at least and at most so many bytes.
    #[must_use]
    pub fn new(min: usize, max: usize) -> Self {
        let (limit, quickest) = (LIMIT_START.max(min).min(max), TARGET_MIN);
        let (latency, rate, min) = (Duration::ZERO, None, min.min(max));
        Self { limit, min, max, probe: None, short: false, quickest, latency, rate }
    }

    /// Whether more may go to the disk. What goes is not cut: the last may exceed the window.
    pub fn is_open(&self, in_flight: usize) -> bool {
        in_flight < self.limit
    }

    /// Somebody has to wait.
    pub fn is_short(&mut self) {
        self.short = true;
    }

    /// So many bytes were handed in since the start, and so many of them are not durable yet.
    pub fn observe(&mut self, now: Time, entered: u64, in_flight: usize) {
        let durable = entered - in_flight as u64;
        if let Some(probe) = self.probe
            && durable >= probe.mark
        {
            self.probe = None;
            let took = now.since(probe.began).max(Duration::from_micros(1));
            self.adjust(took, durable - probe.durable);
            self.short = false;
        }
        if self.probe.is_none() && in_flight > 0 {
            self.probe = Some(Probe { began: now, mark: entered, durable });
        }
    }

    fn adjust(&mut self, took: Duration, bytes: u64) {
        self.latency = (self.latency * 7 + took) / 8;
        // The smallest window measures the disk alone; a larger one that is full, itself too.
        self.quickest = match self.short {
            _ if self.limit <= self.min => took,
            true => self.quickest.min(took),
            false => (self.quickest + self.quickest / FORGETTING).min(took),
        };
        if self.short {
            let rate = bytes as f64 / took.as_secs_f64();
            self.rate = Some(self.rate.map_or(rate as u64, |old| (old * 7 + rate as u64) / 8));
        }
        let target = (self.quickest * TARGET_OF_QUICKEST).clamp(TARGET_MIN, TARGET_MAX);
        if took > target {
            let share = (target.as_secs_f64() / took.as_secs_f64()).max(SHRINK_MOST);
            self.limit = ((self.limit as f64 * share) as usize).max(self.min);
        } else if self.short {
            self.limit = (self.limit + self.limit / 4).min(self.max);
        }
    }

    /// How many bytes it lets go to the disk.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How long a commit takes, smoothed.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// How many bytes become durable in a second while somebody waits, smoothed; never 0. Nothing
    /// while nobody has waited long enough to tell.
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(|rate| rate.max(RATE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: usize = 64 << 10;

    /// A disk that takes `delay` a commit and `rate` bytes a second, always with work waiting.
    fn settle(delay: Duration, rate: usize) -> Window {
        let mut window = Window::new(MIN, 64 << 20);
        let (mut now, mut entered) = (Time(1), 0);
        for _ in 0..400 {
            let batch = window.limit();
            entered += batch as u64;
            window.observe(now, entered, batch);
            window.is_short();
            now = now + delay + Duration::from_secs_f64(batch as f64 / rate as f64);
            window.observe(now, entered, 0);
        }
        window
    }

    #[test]
    fn a_fast_disk_gets_large_batches() {
        let window = settle(Duration::from_micros(200), 400 << 20);
        assert!(window.limit() > 2 << 20, "{}", window.limit());
        assert!(window.latency() < 5 * TARGET_MIN, "{:?}", window.latency());
        let rate = window.rate().expect("somebody waited") >> 20;
        assert!((300..=400).contains(&rate), "{rate} MiB/s");
    }

    #[test]
    fn a_slow_disk_gets_no_long_queue() {
        let window = settle(Duration::from_millis(5), 10 << 20);
        assert!(window.limit() < 1 << 20, "{}", window.limit());
        assert!(window.latency() < 5 * TARGET_MIN, "{:?}", window.latency());
    }

    #[test]
    fn a_disk_with_slow_syncs_is_not_starved() {
        let window = settle(Duration::from_millis(60), 100 << 20);
        let rate = window.rate().expect("somebody waited") >> 20;
        assert!(rate > 30, "{rate} of 100 MiB/s");
    }

    #[test]
    fn it_keeps_within_its_bounds() {
        assert!(settle(Duration::from_secs(2), 1 << 20).limit() >= MIN);
        assert!(settle(Duration::from_micros(1), usize::MAX).limit() <= 64 << 20);
        assert_eq!(Window::new(MIN, 1_000).limit(), 1_000);
    }

    #[test]
    fn it_does_not_grow_while_nobody_waits() {
        let mut window = Window::new(MIN, 64 << 20);
        for step in 0..100 {
            window.observe(Time(step * 2_000 + 1), step + 1, 1);
            window.observe(Time(step * 2_000 + 1_001), step + 1, 0);
        }
        assert_eq!(window.limit(), LIMIT_START);
    }
}
