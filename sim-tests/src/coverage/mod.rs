//! Which faults have met which phase of the protocol: what a sweep has tried, and what it has not.
//!
//! A fault meets a phase where the one is within a second of the other, anywhere in the cluster:
//! for so long an election, a change of the set or a state under way goes on.

mod excuses;
mod phase;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(crate) use excuses::excuse;
pub(crate) use phase::Phase;

/// How far apart a fault and a phase are at most that meet.
const NEAR: Duration = Duration::from_secs(1);

/// What a run has met so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    newest: [Option<Duration>; Phase::COUNT],
    recent: VecDeque<Recent>,
    reached: Reached,
}

/// A fault that a phase may still meet.
#[derive(Clone, Copy, Debug)]
struct Recent {
    at: Duration,
    class: &'static str,
    /// A bit for each phase that it has met.
    met: u32,
}

/// What runs have met: how often each phase, and how many faults of a class each of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) phases: [u64; Phase::COUNT],
    pub(crate) cells: BTreeMap<(&'static str, Phase), u64>,
}

impl Coverage {
    /// A phase shows itself.
    pub(crate) fn passes(&mut self, phase: Phase, now: Duration) {
        self.newest[phase as usize] = Some(now);
        self.reached.phases[phase as usize] += 1;
        while self.recent.front().is_some_and(|fault| now.saturating_sub(fault.at) > NEAR) {
            self.recent.pop_front();
        }
        for fault in &mut self.recent {
            self.reached.meets(fault, phase);
        }
    }

    /// A fault strikes.
    pub(crate) fn strikes(&mut self, class: &'static str, now: Duration) {
        let mut fault = Recent { at: now, class, met: 0 };
        for phase in Phase::ALL {
            let newest = self.newest[phase as usize];
            if newest.is_some_and(|newest| now.saturating_sub(newest) <= NEAR) {
                self.reached.meets(&mut fault, phase);
            }
        }
        self.recent.push_back(fault);
    }

    /// What was met.
    pub(crate) fn reached(&self) -> Reached {
        self.reached.clone()
    }
}

impl Reached {
    fn meets(&mut self, fault: &mut Recent, phase: Phase) {
        let bit = 1 << phase as u32;
        if fault.met & bit == 0 {
            fault.met |= bit;
            *self.cells.entry((fault.class, phase)).or_insert(0) += 1;
        }
    }

    /// Adds what another run has met.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in self.phases.iter_mut().zip(other.phases) {
            *sum += count;
        }
        for (&cell, count) in &other.cells {
            *self.cells.entry(cell).or_insert(0) += count;
        }
    }

    /// How many faults of a class have met a phase.
    pub(crate) fn met(&self, class: &'static str, phase: Phase) -> u64 {
        self.cells.get(&(class, phase)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_fault_meets_what_is_a_second_from_it_on_either_side() {
        let mut seen = Coverage::default();
        seen.passes(Phase::Cut, at(100));
        seen.passes(Phase::Trim, at(1_000));
        seen.strikes("pause", at(1_500));
        seen.passes(Phase::Lead, at(2_500));
        seen.passes(Phase::Match, at(2_501));
        let reached = seen.reached();
        assert_eq!(reached.met("pause", Phase::Cut), 0, "it was over");
        assert_eq!(reached.met("pause", Phase::Trim), 1);
        assert_eq!(reached.met("pause", Phase::Lead), 1);
        assert_eq!(reached.met("pause", Phase::Match), 0, "it came too late");
        assert_eq!(reached.met("crash", Phase::Trim), 0, "there was none");
    }

    #[test]
    fn a_fault_counts_once_however_often_a_phase_shows_itself() {
        let mut seen = Coverage::default();
        seen.passes(Phase::Trim, at(0));
        seen.strikes("pause", at(10));
        (20..30).for_each(|ms| seen.passes(Phase::Trim, at(ms)));
        let mut sum = seen.reached();
        assert_eq!(sum.met("pause", Phase::Trim), 1);
        assert_eq!(sum.phases[Phase::Trim as usize], 11);
        sum.add(&seen.reached());
        assert_eq!(sum.met("pause", Phase::Trim), 2);
    }

    #[test]
    fn each_phase_stands_where_its_number_says() {
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
            assert!(Phase::ALL.iter().filter(|other| other.name() == phase.name()).count() == 1);
        }
    }
}
