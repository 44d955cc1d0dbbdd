//! From a probe that nobody answered to a verdict: a suspicion waits for its member to object, the
//! less long the more others have found the same (Lifeguard).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Gossip;
use super::datagram::Word;
use super::member::{Incarnation, MemberEventKind, MemberState};
use super::news::{ACCUSERS_MAX, News};
use super::probe::PLEA;
use super::spread::Spread;
use crate::ids::DiskId;
use crate::machine::{Broken, GossipEffect, Time};

/// A suspicion that waits.
#[derive(Debug)]
struct Suspicion {
    incarnation: Incarnation,
    since: Time,
    /// Who found it silent, the first one first.
    accusers: Vec<DiskId>,
    /// When to ask the member itself once more, saying what is said of it.
    plea_at: Option<Time>,
    /// When to give the verdict.
    verdict_at: Time,
}

impl Suspicion {
    fn due(&self) -> Time {
        self.plea_at.unwrap_or(self.verdict_at).min(self.verdict_at)
    }
}

/// All suspicions: one for each suspect member.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    open: BTreeMap<DiskId, Suspicion>,
    due: BTreeSet<(Time, DiskId)>,
}

impl Suspicions {
    /// Who found a member silent.
    pub(super) fn accusers(&self, disk: DiskId) -> &[DiskId] {
        self.open.get(&disk).map_or(&[], |suspicion| &suspicion.accusers)
    }

    /// When something is to be done about one of them.
    pub(super) fn due_at(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn close(&mut self, disk: DiskId) {
        if let Some(suspicion) = self.open.remove(&disk) {
            self.due.remove(&(suspicion.due(), disk));
        }
    }

    fn open(&mut self, disk: DiskId, suspicion: Suspicion) {
        self.close(disk);
        self.due.insert((suspicion.due(), disk));
        self.open.insert(disk, suspicion);
    }

    /// Sets all of them back: for so long this process could not hear anybody object.
    pub(super) fn postpone(&mut self, by: Duration) {
        for suspicion in self.open.values_mut() {
            suspicion.since = suspicion.since + by;
            suspicion.verdict_at = suspicion.verdict_at + by;
        }
        let due = self.open.iter().map(|(disk, suspicion)| (suspicion.due(), *disk));
        self.due = due.collect();
    }

    /// Those that are open.
    pub(super) fn disks(&self) -> impl Iterator<Item = DiskId> {
        self.open.keys().copied()
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let due: BTreeSet<_> = self.open.iter().map(|(disk, open)| (open.due(), *disk)).collect();
        let few = self.open.values().all(|open| (1..=ACCUSERS_MAX).contains(&open.accusers.len()));
        if due == self.due && few {
            return Ok(());
        }
        let detail = format!("suspicions: {:?}, due {:?}", self.open, self.due);
        Err(Broken { invariant: "BoundsHold", detail })
    }
}

impl Gossip {
    /// An own probe of a member was not answered.
    pub(super) fn accuse(&mut self, disk: DiskId, effects: &mut Vec<GossipEffect>) {
        let Some(member) = self.table.get(disk) else { return };
        let incarnation = member.incarnation();
        match member.state() {
            MemberState::Healthy => {
                self.table.set(disk, MemberState::Suspect, incarnation, self.now);
                let own = self.own();
                self.suspected(disk, incarnation, &[own]);
                self.changed(MemberEventKind::Suspected, disk, Spread::Eager, effects);
                self.spreading.also(disk);
            }
            MemberState::Suspect => {
                let own = self.own();
                self.confirm(disk, &[own]);
            }
            MemberState::Failed | MemberState::Left => {}
        }
    }

    /// A member has become suspect.
    pub(super) fn suspected(&mut self, disk: DiskId, incarnation: Incarnation, by: &[DiskId]) {
        self.counters.suspicions += 1;
        let since = self.now.since_start;
        let mut accusers: Vec<DiskId> = Vec::with_capacity(ACCUSERS_MAX);
        for accuser in by.iter().take(ACCUSERS_MAX) {
            if !accusers.contains(accuser) {
                accusers.push(*accuser);
            }
        }
        if accusers.is_empty() {
            accusers.push(self.own());
        }
        let live = self.table.live();
        let most = self.thresholds.confirmations(live);
        let plea_at = Some(since + self.thresholds.suspicion(live, most) / 2);
        let verdict_at = since + self.thresholds.suspicion(live, accusers.len() - 1);
        let suspicion = Suspicion { incarnation, since, accusers, plea_at, verdict_at };
        self.suspicions.open(disk, suspicion);
    }

    /// Others, or this node, found a suspect silent too.
    pub(super) fn confirm(&mut self, disk: DiskId, by: &[DiskId]) {
        let live = self.table.live();
        let most = self.thresholds.confirmations(live) + 1;
        let Some(suspicion) = self.suspicions.open.get_mut(&disk) else { return };
        let due = suspicion.due();
        let before = suspicion.accusers.len();
        for accuser in by {
            let room = suspicion.accusers.len() < most.min(ACCUSERS_MAX);
            if room && !suspicion.accusers.contains(accuser) {
                suspicion.accusers.push(*accuser);
            }
        }
        if suspicion.accusers.len() == before {
            return;
        }
        let lasts = self.thresholds.suspicion(live, suspicion.accusers.len() - 1);
        suspicion.verdict_at = suspicion.since + lasts;
        let now_due = suspicion.due();
        self.suspicions.due.remove(&(due, disk));
        self.suspicions.due.insert((now_due, disk));
        self.spread(disk, Spread::Eager);
    }

    /// Does what is due about suspicions.
    pub(super) fn judge_suspects(&mut self, effects: &mut Vec<GossipEffect>) {
        while let Some(&(at, disk)) = self.suspicions.due.first()
            && at <= self.now.since_start
        {
            let open = self.suspicions.open.get_mut(&disk).expect("what is due is open");
            let incarnation = open.incarnation;
            if open.plea_at.is_some_and(|plea| plea < open.verdict_at) {
                open.plea_at = None;
                let next = open.due();
                self.suspicions.due.remove(&(at, disk));
                self.suspicions.due.insert((next, disk));
                self.plead(disk, effects);
                continue;
            }
            self.suspicions.close(disk);
            self.counters.verdicts += 1;
            self.table.set(disk, MemberState::Failed, incarnation, self.now);
            self.changed(MemberEventKind::Failed, disk, Spread::Eager, effects);
        }
    }

    /// Tells a suspect what is said of it: its answer carries its objection.
    fn plead(&mut self, disk: DiskId, effects: &mut Vec<GossipEffect>) {
        let member = self.table.get(disk).expect("a suspect is a member");
        let (to, news) = (member.about.address, News::of(member, self.suspicions.accusers(disk)));
        self.say(to, Word::Ping { number: PLEA, to: disk }, vec![news], effects);
    }
}
