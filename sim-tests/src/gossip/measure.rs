//! What the members' events say: how fast a change is known everywhere, how fast a death, and
//! whether a verdict was false. ChangeKnownWithin, FailureDetectedWithin, NoFalseFailed and
//! IncarnationMonotone are judged here.
//!
//! A change begins at the first node that knows of it: of a leave and an objection that is the
//! member itself, of a join, a restart and a verdict the first other one. It ends at the last node
//! that lived when it began and lives still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sprawl_core::cluster::gossip::{Incarnation, MemberEvent, MemberEventKind, MemberState};
use sprawl_core::ids::DiskId;

use crate::invariants::Findings;

/// How long every live node has, at most, to know that a node is dead.
pub(crate) const DETECTED_MAX: Duration = Duration::from_secs(5);

/// Durations, to be asked for quantiles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Vec<u64>);

impl Spans {
    fn add(&mut self, micros: u64) {
        self.0.push(micros);
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The spans at these parts of a hundred; zero where there are none.
    pub(crate) fn at<const N: usize>(&self, parts: [usize; N]) -> [Duration; N] {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        parts.map(|part| {
            Duration::from_micros(sorted.get((last * part).div_ceil(100)).copied().unwrap_or(0))
        })
    }
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// From the first node that knows to the last, by kind of change.
    pub(crate) known: BTreeMap<MemberEventKind, Spans>,
    /// The same, where some process stood still meanwhile.
    pub(crate) known_paused: BTreeMap<MemberEventKind, Spans>,
    /// From a death to each live node's knowing it.
    pub(crate) detected: Spans,
    /// From a death to the last live node's knowing it.
    pub(crate) detected_by_all: Spans,
    /// Suspicions of nodes that lived.
    pub(crate) doubted: u64,
    /// Verdicts on nodes that lived.
    pub(crate) false_verdicts: u64,
}

impl Tally {
    /// How many changes were measured.
    pub(crate) fn changes(&self) -> usize {
        let of = |known: &BTreeMap<_, Spans>| known.values().map(Spans::len).sum::<usize>();
        of(&self.known) + of(&self.known_paused)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, spans) in &other.known {
            self.known.entry(*kind).or_default().extend(spans);
        }
        for (kind, spans) in &other.known_paused {
            self.known_paused.entry(*kind).or_default().extend(spans);
        }
        self.detected.extend(&other.detected);
        self.detected_by_all.extend(&other.detected_by_all);
        self.doubted += other.doubted;
        self.false_verdicts += other.false_verdicts;
    }

    /// All kinds of change together, but for objections, which only follow a doubt.
    pub(crate) fn all_known(&self) -> Spans {
        let mut all = Spans::default();
        let changes = self.known.iter().filter(|(kind, _)| **kind != MemberEventKind::Refuted);
        changes.for_each(|(_, spans)| all.extend(spans));
        all
    }
}

/// What the world knows of a node when another says something of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truth {
    /// Its process runs, with this boot number.
    pub(super) runs: Option<u64>,
}

/// The node that says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observer {
    pub(super) node: usize,
    /// Whether it speaks of itself.
    pub(super) own: bool,
    /// When it last stood still, until then.
    pub(super) paused_until: u64,
}

/// A change that not all know.
struct Change {
    kind: MemberEventKind,
    newest: (Incarnation, MemberState),
    began: u64,
    missing: BTreeSet<usize>,
    last: u64,
    paused: bool,
}

/// A death that not all know.
struct Death {
    boot: u64,
    at: u64,
    missing: BTreeSet<usize>,
    last: u64,
}

/// Measures, from members' events.
pub(super) struct Measure {
    pub(super) tally: Tally,
    findings: Findings,
    /// Whether a false verdict, a slow change or a slow verdict is a violation.
    strict: bool,
    known_max: u64,
    /// Nothing that begins before is measured.
    pub(super) from: u64,
    newest: BTreeMap<DiskId, (Incarnation, MemberState)>,
    changes: BTreeMap<DiskId, Vec<Change>>,
    deaths: BTreeMap<DiskId, Death>,
    /// The last incarnation that a node showed of another.
    shown: Vec<BTreeMap<DiskId, Incarnation>>,
}

fn state(kind: MemberEventKind) -> Option<MemberState> {
    match kind {
        MemberEventKind::Joined | MemberEventKind::Restarted | MemberEventKind::Refuted => {
            Some(MemberState::Healthy)
        }
        MemberEventKind::Suspected => None,
        MemberEventKind::Failed => Some(MemberState::Failed),
        MemberEventKind::Left => Some(MemberState::Left),
    }
}

impl Measure {
    pub(super) fn new(nodes: usize, strict: bool, known_max: Duration, findings: Findings) -> Self {
        Self {
            tally: Tally::default(),
            findings,
            strict,
            known_max: known_max.as_micros() as u64,
            from: 0,
            newest: BTreeMap::new(),
            changes: BTreeMap::new(),
            deaths: BTreeMap::new(),
            shown: vec![BTreeMap::new(); nodes],
        }
    }

    /// A process begins: what it showed before is gone.
    pub(super) fn started(&mut self, node: usize) {
        self.shown[node].clear();
    }

    /// A node says what became of a member; `live` gives those who are to know it too.
    pub(super) fn event(
        &mut self,
        at: u64,
        observer: Observer,
        event: &MemberEvent,
        truth: Truth,
        live: impl Fn() -> BTreeSet<usize>,
    ) {
        let Observer { node, own, .. } = observer;
        let shown = self.shown[node].entry(event.member).or_default();
        if event.incarnation < *shown {
            let detail = format!("node {node} went back to {event:?} from {shown:?}");
            self.findings.violated("IncarnationMonotone", detail);
        }
        *shown = event.incarnation.max(*shown);
        let lives = truth.runs == Some(event.incarnation.boot.0);
        if event.kind == MemberEventKind::Suspected {
            self.tally.doubted += u64::from(lives);
        }
        if event.kind == MemberEventKind::Failed {
            self.verdict(at, node, event, lives);
        }
        let Some(state) = state(event.kind) else { return };
        let word = (event.incarnation, state);
        let newest = self.newest.get(&event.member);
        if newest.is_none_or(|newest| word > *newest) {
            self.newest.insert(event.member, word);
            if at >= self.from && (own || event.kind != MemberEventKind::Refuted) {
                let missing = live();
                let change = Change {
                    kind: event.kind,
                    newest: word,
                    began: at,
                    missing,
                    last: at,
                    paused: false,
                };
                self.changes.entry(event.member).or_default().push(change);
            }
        }
        self.learned(at, observer, event.member, word);
    }

    fn learned(
        &mut self,
        at: u64,
        observer: Observer,
        member: DiskId,
        word: (Incarnation, MemberState),
    ) {
        let Some(open) = self.changes.get_mut(&member) else { return };
        for change in open.iter_mut().filter(|change| change.newest <= word) {
            if change.missing.remove(&observer.node) {
                change.last = at;
                change.paused |= observer.paused_until >= change.began;
            }
        }
        self.settle(member);
    }

    /// Closes what all know.
    fn settle(&mut self, member: DiskId) {
        let Some(open) = self.changes.get_mut(&member) else { return };
        for change in open.extract_if(.., |change| change.missing.is_empty()) {
            let took = change.last - change.began;
            let known =
                if change.paused { &mut self.tally.known_paused } else { &mut self.tally.known };
            known.entry(change.kind).or_default().add(took);
            if self.strict && !change.paused && took > self.known_max {
                let detail = format!("{member} {:?}: {took} µs to the last node", change.kind);
                self.findings.violated("ChangeKnownWithin", detail);
            }
        }
        if open.is_empty() {
            self.changes.remove(&member);
        }
    }

    fn verdict(&mut self, at: u64, observer: usize, event: &MemberEvent, lives: bool) {
        if lives {
            self.tally.false_verdicts += 1;
            if self.strict {
                let detail = format!("node {observer} took a live node for dead: {event:?}");
                self.findings.violated("NoFalseFailed", detail);
            }
        }
        let Some(death) = self.deaths.get_mut(&event.member) else { return };
        if death.boot == event.incarnation.boot.0 && death.missing.remove(&observer) {
            death.last = at;
            self.tally.detected.add(at - death.at);
        }
        self.close_death(event.member);
    }

    fn close_death(&mut self, member: DiskId) {
        if let Some(death) = self.deaths.get(&member)
            && death.missing.is_empty()
        {
            let took = death.last - death.at;
            self.deaths.remove(&member);
            self.tally.detected_by_all.add(took);
            if self.strict && u128::from(took) > DETECTED_MAX.as_micros() {
                let detail = format!("the death of {member} was known everywhere after {took} µs");
                self.findings.violated("FailureDetectedWithin", detail);
            }
        }
    }

    /// A node died; these live and counted it among the live.
    pub(super) fn died(&mut self, at: u64, member: DiskId, boot: u64, knew: BTreeSet<usize>) {
        if at >= self.from && !knew.is_empty() {
            self.deaths.insert(member, Death { boot, at, missing: knew, last: at });
        }
    }

    /// A process has ended: nobody waits for what it learns.
    pub(super) fn gone(&mut self, node: usize) {
        let changed: Vec<DiskId> = self.changes.keys().copied().collect();
        for member in changed {
            for change in self.changes.get_mut(&member).into_iter().flatten() {
                change.missing.remove(&node);
            }
            self.settle(member);
        }
        let dead: Vec<DiskId> = self.deaths.keys().copied().collect();
        for member in dead {
            if let Some(death) = self.deaths.get_mut(&member) {
                death.missing.remove(&node);
            }
            self.close_death(member);
        }
    }

    /// A node returns: whoever has not seen that it was dead need not any more.
    pub(super) fn returned(&mut self, at: u64, member: DiskId) {
        if let Some(death) = self.deaths.remove(&member) {
            self.overdue(at, member, &death);
        }
        self.changes.remove(&member);
    }

    fn overdue(&self, at: u64, member: DiskId, death: &Death) {
        let late = u128::from(at - death.at) > DETECTED_MAX.as_micros();
        if self.strict && late {
            let detail = format!("the death of {member} was never known to {:?}", death.missing);
            self.findings.violated("FailureDetectedWithin", detail);
        }
    }

    /// The run ends: what is open and overdue is late.
    pub(super) fn end(&mut self, at: u64) {
        for (member, death) in &self.deaths {
            self.overdue(at, *member, death);
        }
        for (member, change) in
            self.changes.iter().flat_map(|(m, all)| all.iter().map(move |c| (m, c)))
        {
            if self.strict && at - change.began > self.known_max && !change.paused {
                let Change { kind, missing, .. } = change;
                let detail = format!("{member} {kind:?} was never known to {missing:?}");
                self.findings.violated("ChangeKnownWithin", detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sprawl_core::ids::Boot;

    use super::*;

    const MEMBER: DiskId = DiskId(9);

    fn event(kind: MemberEventKind, counter: u64) -> MemberEvent {
        let incarnation = Incarnation { boot: Boot(1), counter };
        MemberEvent { member: MEMBER, incarnation, kind }
    }

    /// What is violated when nodes say these things at these times, and then it ends.
    fn judged(
        said: &[(u64, usize, MemberEvent)],
        runs: Option<u64>,
        end: u64,
    ) -> Vec<&'static str> {
        let findings = Findings::default();
        let known_max = Duration::from_millis(100);
        let mut measure = Measure::new(3, true, known_max, findings.clone());
        if runs.is_none() {
            measure.died(0, MEMBER, 1, BTreeSet::from([0, 1]));
        }
        for (at, node, event) in said {
            let observer = Observer { node: *node, own: false, paused_until: 0 };
            let live = || BTreeSet::from([0, 1]);
            measure.event(*at + 1, observer, event, Truth { runs }, live);
        }
        measure.end(end);
        findings.violations().into_keys().collect()
    }

    #[test]
    fn a_change_is_known_in_time_or_late_or_never() {
        let joined = || event(MemberEventKind::Joined, 0);
        let alive = Some(1);
        let quick = [(0, 0, joined()), (90_000, 1, joined())];
        assert_eq!(judged(&quick, alive, 1_000_000), [""; 0]);
        let slow = [(0, 0, joined()), (110_000, 1, joined())];
        assert_eq!(judged(&slow, alive, 1_000_000), ["ChangeKnownWithin"]);
        assert_eq!(judged(&quick[..1], alive, 1_000_000), ["ChangeKnownWithin"]);
    }

    #[test]
    fn a_death_is_known_in_time_or_late_or_never() {
        let failed = || event(MemberEventKind::Failed, 0);
        let quick = [(4_900_000, 0, failed()), (4_950_000, 1, failed())];
        assert_eq!(judged(&quick, None, 9_000_000), [""; 0]);
        let slow = [(5_100_000, 0, failed()), (5_150_000, 1, failed())];
        assert_eq!(judged(&slow, None, 9_000_000), ["FailureDetectedWithin"]);
        let broken = judged(&[], None, 9_000_000);
        assert_eq!(broken, ["FailureDetectedWithin"]);
    }

    #[test]
    fn a_verdict_on_the_living_and_a_step_back_are_noticed() {
        let failed = [(0, 0, event(MemberEventKind::Failed, 0))];
        assert!(judged(&failed, Some(1), 10).contains(&"NoFalseFailed"));
        assert_eq!(judged(&failed, Some(2), 10), [""; 0], "an earlier run of it is dead");
        let back = [1, 0].map(|counter| (0, 0, event(MemberEventKind::Refuted, counter)));
        assert_eq!(judged(&back, Some(1), 10), ["IncarnationMonotone"]);
    }
}
