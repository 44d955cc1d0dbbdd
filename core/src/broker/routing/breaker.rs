//! A breaker for each peer: after some calls in a row that did not arrive, further ones fail at
//! once for a while; then one of them is let through to try, and after as long again the next one.
//!
//! A probe may be a call that waits at the peer for what comes: nobody else waits for its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::metadata::NODES_MAX;
use crate::ids::DiskId;
use crate::machine::Time;
use crate::zoo::{Bug, planted};

/// After how many calls in a row that did not arrive a breaker opens.
pub(crate) const FAILURES_MAX: u32 = 5;
/// For how long it is open first; each probe that fails doubles it.
const OPEN_MIN: Duration = Duration::from_millis(100);
/// For how long it is open at most.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// One peer that was not reached lately.
#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    /// How many calls in a row did not arrive.
    failures: u32,
    /// For how long it was opened last; nothing while it is closed.
    span: Duration,
    /// When to let the next probe through.
    until: Time,
    /// How many probes are under way.
    probes: u32,
}

/// The breakers of one shard: of peers that are reached there is nothing to remember.
#[derive(Debug, Default)]
pub(crate) struct Breakers(BTreeMap<DiskId, Breaker>);

impl Breakers {
    /// Whether a call may be made; one that may though the breaker was open is a probe.
    pub(crate) fn admits(&mut self, peer: DiskId, now: Time) -> bool {
        let Some(breaker) = self.0.get_mut(&peer).filter(|held| !held.span.is_zero()) else {
            return true;
        };
        let admitted = breaker.until <= now;
        if admitted {
            breaker.probes = breaker.probes.saturating_add(1);
            breaker.until = now + breaker.span;
        }
        admitted
    }

    /// When to let the next call through, where none is now.
    #[cfg(test)]
    fn opens_at(&self, peer: DiskId) -> Option<Time> {
        self.0.get(&peer).filter(|held| !held.span.is_zero()).map(|held| held.until)
    }

    /// A call was answered: all is forgotten.
    pub(crate) fn answered(&mut self, peer: DiskId) {
        if planted(Bug::BreakerNeverCloses) {
            self.0.get_mut(&peer).into_iter().for_each(Breaker::has_tried);
            return;
        }
        self.0.remove(&peer);
    }

    /// A call did not arrive; whether that opened the breaker, or left it open.
    pub(crate) fn failed(&mut self, peer: DiskId, now: Time) -> bool {
        let breaker = self.0.entry(peer).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        let opens =
            breaker.probes > 0 || breaker.span.is_zero() && breaker.failures >= FAILURES_MAX;
        if opens {
            breaker.open(now);
        }
        opens
    }

    /// Nobody knows whether a call arrived: if it was a probe, the peer has not answered it.
    pub(crate) fn doubted(&mut self, peer: DiskId, now: Time) {
        if let Some(breaker) = self.0.get_mut(&peer).filter(|held| held.probes > 0) {
            breaker.open(now);
        }
    }

    /// Forgets all peers but these.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&DiskId) -> bool) {
        self.0.retain(|peer, _| is_kept(peer));
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.len() > NODES_MAX {
            return Err(format!("{} breakers, the bound is {NODES_MAX}", self.0.len()));
        }
        Ok(())
    }
}

impl Breaker {
    /// Its probe has come back.
    fn has_tried(&mut self) {
        self.failures = 0;
        self.probes = self.probes.saturating_sub(1);
    }

    fn open(&mut self, now: Time) {
        self.span = (self.span * 2).clamp(OPEN_MIN, OPEN_MAX);
        self.until = now + self.span;
        self.probes = self.probes.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DiskId = DiskId(2);

    fn at(millis: u64) -> Time {
        Time::default() + Duration::from_millis(millis)
    }

    fn opened() -> Breakers {
        let mut breakers = Breakers::default();
        for _ in 1..FAILURES_MAX {
            assert!(breakers.admits(PEER, at(0)));
            assert!(!breakers.failed(PEER, at(0)));
        }
        assert!(breakers.failed(PEER, at(0)), "the last one opens it");
        breakers
    }

    #[test]
    fn it_opens_lets_one_probe_through_and_closes() {
        let mut breakers = opened();
        assert!(!breakers.admits(PEER, at(99)));
        assert!(breakers.admits(DiskId(3), at(0)), "another peer's is its own");
        assert!(breakers.admits(PEER, at(100)), "the probe");
        assert!(!breakers.admits(PEER, at(199)), "one at a time");
        assert!(breakers.admits(PEER, at(200)), "the first one waits there");
        breakers.answered(PEER);
        assert!(breakers.admits(PEER, at(200)) && breakers.admits(PEER, at(200)));
    }

    #[test]
    fn probes_that_fail_come_more_rarely_and_success_resets_it() {
        let mut breakers = opened();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let until = breakers.opens_at(PEER).expect("it is open");
            pauses.push(until.since(now).as_millis());
            now = until;
            assert!(breakers.admits(PEER, now));
            assert!(breakers.failed(PEER, now));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        breakers.answered(PEER);
        let mut anew = breakers;
        assert!((0..4).all(|_| !anew.failed(PEER, now)) && anew.failed(PEER, now));
        assert_eq!(anew.opens_at(PEER), Some(now + OPEN_MIN));
    }

    #[test]
    fn a_probe_of_unknown_outcome_leaves_it_open() {
        let mut breakers = opened();
        breakers.doubted(PEER, at(50));
        assert_eq!(breakers.opens_at(PEER), Some(at(100)), "no probe was under way");
        assert!(breakers.admits(PEER, at(100)));
        breakers.doubted(PEER, at(130));
        assert!(!breakers.admits(PEER, at(329)) && breakers.admits(PEER, at(330)));
        breakers.retain(|_| false);
        assert!(breakers.admits(PEER, at(330)) && breakers.check().is_ok());
    }
}
