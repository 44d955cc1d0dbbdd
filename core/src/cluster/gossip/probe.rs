//! Who answers? One member after the other is asked, in an order that is drawn anew each round;
//! one that is silent is asked by others, and over a stream.
//!
//! SWIM (Das et al. 2002), with Lifeguard's health: who hears nobody, helpers included, or is said
//! to be silent itself, asks more slowly and waits longer, because the fault may be its own.

use std::collections::VecDeque;

use core::net::SocketAddr;

use super::Gossip;
use super::datagram::{Asking, Head, Word};
use super::exchange::Purpose;
use super::news::News;
use super::table::MEMBERS_MAX;
use crate::ids::DiskId;
use crate::machine::{Broken, GossipEffect, Time};

/// For how many others a node asks at once, at most.
pub const RELAYS_MAX: usize = 256;
/// How much slower than a healthy one a node probes, at most: one third as often.
pub const HEALTH_MAX: u32 = 2;
/// The number of a question whose answer says nothing but its head.
pub(super) const PLEA: u64 = 0;

/// A probe that is under way.
#[derive(Debug)]
struct Probe {
    number: u64,
    target: DiskId,
    sent: Time,
    /// When to have others ask.
    indirect_at: Option<Time>,
    /// When to take it for unanswered.
    ends_at: Time,
    helpers: usize,
    nacks: usize,
}

/// A question asked for another.
#[derive(Debug)]
struct Relay {
    number: u64,
    asker: SocketAddr,
    asked: u64,
    /// When to tell the asker that there is no answer.
    nack_at: Time,
}

/// What is being asked.
#[derive(Debug)]
pub(super) struct Probing {
    /// This round's order; those from `at` on have yet to be asked.
    order: Vec<DiskId>,
    at: usize,
    /// When to begin the next probe.
    next_at: Time,
    current: Option<Probe>,
    number: u64,
    /// 0 is well; each step slows the probes by their own interval.
    health: u32,
    /// Ascending by number and by time.
    relays: VecDeque<Relay>,
}

impl Probing {
    /// Begins at some moment; questions are numbered from there on.
    pub(super) fn new(next_at: Time, number: u64) -> Self {
        let (order, relays) = (Vec::new(), VecDeque::new());
        Self { order, at: 0, next_at, current: None, number: number + PLEA, health: 0, relays }
    }

    /// When something is to be done; no probe begins where there is nobody.
    pub(super) fn due_at(&self, has_peers: bool) -> Time {
        let next = if has_peers { self.next_at } else { Time(u64::MAX) };
        let current = self.current.as_ref().map(|probe| probe.indirect_at.unwrap_or(probe.ends_at));
        let relay = self.relays.front().map(|relay| relay.nack_at);
        [current, relay].into_iter().flatten().fold(next, Time::min)
    }

    pub(super) fn health(&self) -> u32 {
        self.health
    }

    pub(super) fn ill(&mut self) {
        self.health = (self.health + 1).min(HEALTH_MAX);
    }

    fn well(&mut self) {
        self.health = self.health.saturating_sub(1);
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Gives the probe that is under way its time again: this process was not there to hear.
    pub(super) fn forgive(&mut self, until: Time) {
        if let Some(probe) = &mut self.current {
            probe.indirect_at = probe.indirect_at.map(|at| at.max(until));
            probe.ends_at = probe.ends_at.max(until);
        }
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let sorted = self.relays.iter().zip(self.relays.iter().skip(1));
        let ascending = sorted.fold(true, |so_far, (a, b)| so_far && a.number < b.number);
        let few = self.relays.len() <= RELAYS_MAX && self.order.len() <= 2 * MEMBERS_MAX;
        if ascending && few && self.health <= HEALTH_MAX {
            return Ok(());
        }
        Err(Broken { invariant: "BoundsHold", detail: format!("probing: {self:?}") })
    }
}

impl Gossip {
    /// A member has come: it is asked at some time within this round.
    pub(super) fn probe_too(&mut self, disk: DiskId) {
        let probing = &mut self.probing;
        if probing.order.len() < 2 * MEMBERS_MAX {
            let place = probing.at + self.dice.below(probing.order.len() - probing.at + 1);
            probing.order.insert(place, disk);
        }
    }

    /// Does what is due.
    pub(super) fn probe(&mut self, effects: &mut Vec<GossipEffect>) {
        let now = self.now.since_start;
        while self.probing.relays.front().is_some_and(|relay| relay.nack_at <= now) {
            let relay = self.probing.relays.pop_front().expect("there is one");
            self.say(relay.asker, Word::Nack { number: relay.asked }, Vec::new(), effects);
        }
        if let Some(probe) = &self.probing.current {
            match probe.indirect_at {
                Some(at) if at <= now => self.ask_others(effects),
                None if probe.ends_at <= now => self.unanswered(effects),
                Some(_) | None => {}
            }
        }
        if self.probing.next_at <= now {
            let pace = 1 + self.probing.health;
            self.probing.next_at = now + self.thresholds.probe_interval * pace;
            if self.probing.current.is_none() {
                self.ask_next(effects);
            }
        }
    }

    /// The next member of the round that lives still.
    fn next_target(&mut self) -> Option<DiskId> {
        if self.table.peers().is_empty() {
            return None;
        }
        loop {
            let probing = &mut self.probing;
            if let Some(&disk) = probing.order.get(probing.at) {
                probing.at += 1;
                let member = self.table.get(disk);
                if member.is_some_and(|member| member.state().is_live()) {
                    return Some(disk);
                }
                continue;
            }
            // A new round has all peers, and there is one at least: this happens once.
            probing.order = self.table.peers().to_vec();
            probing.at = 0;
            self.dice.shuffle(&mut self.probing.order);
        }
    }

    fn ask_next(&mut self, effects: &mut Vec<GossipEffect>) {
        let Some(target) = self.next_target() else { return };
        let (now, pace) = (self.now.since_start, 1 + self.probing.health);
        let number = self.probing.next_number();
        let indirect_at = now + self.thresholds.direct_timeout * pace;
        let ends_at = indirect_at + self.thresholds.indirect_timeout * pace;
        self.probing.current = Some(Probe {
            number,
            target,
            sent: now,
            indirect_at: Some(indirect_at),
            ends_at,
            helpers: 0,
            nacks: 0,
        });
        self.counters.probes += 1;
        let member = self.table.get(target).expect("a target is a member");
        let to = member.about.address;
        let accusers = self.suspicions.accusers(target);
        let said = (!accusers.is_empty()).then(|| News::of(member, accusers));
        let mut news = self.gossip_along(1, said.as_ref().map_or(0, News::bytes_max));
        if let Some(said) = said {
            news.retain(|piece| piece.disk != target);
            news.push(said);
        }
        self.say(to, Word::Ping { number, to: target }, news, effects);
    }

    /// The target has not answered directly: others ask, and a stream does.
    fn ask_others(&mut self, effects: &mut Vec<GossipEffect>) {
        let Some(probe) = &mut self.probing.current else { return };
        probe.indirect_at = None;
        let (number, target) = (probe.number, probe.target);
        let Some(address) = self.table.get(target).map(|member| member.about.address) else {
            return;
        };
        let mut helpers = self.draw_peers(self.thresholds.indirect + 1);
        helpers.retain(|helper| *helper != target);
        helpers.truncate(self.thresholds.indirect);
        if let Some(probe) = &mut self.probing.current {
            probe.helpers = helpers.len();
        }
        let datagram = self.wrap(Word::Ask { number, target, address }, Vec::new());
        for helper in helpers {
            self.send_to(helper, datagram.clone(), effects);
        }
        self.ask(address, Purpose::Probe { number }, Asking::Compare, effects);
    }

    fn unanswered(&mut self, effects: &mut Vec<GossipEffect>) {
        let probe = self.probing.current.take().expect("it is under way");
        self.counters.probes_failed += 1;
        if probe.helpers > 0 && probe.nacks == 0 {
            self.probing.ill();
        }
        self.accuse(probe.target, effects);
    }

    /// Asks a third node for another.
    pub(super) fn relay(
        &mut self,
        asker: SocketAddr,
        asked: u64,
        target: DiskId,
        address: SocketAddr,
        effects: &mut Vec<GossipEffect>,
    ) {
        if self.probing.relays.len() >= RELAYS_MAX {
            return;
        }
        let number = self.probing.next_number();
        // The asker waits for the indirect timeout; the way back takes a part of it.
        let nack_at = self.now.since_start + self.thresholds.indirect_timeout * 3 / 5;
        self.probing.relays.push_back(Relay { number, asker, asked, nack_at });
        self.say(address, Word::Ping { number, to: target }, Vec::new(), effects);
    }

    /// An answer came: to an own probe, or to one for another; whether it was waited for.
    pub(super) fn acknowledged(
        &mut self,
        number: u64,
        head: &Head,
        effects: &mut Vec<GossipEffect>,
    ) -> bool {
        if self.probing.current.as_ref().is_some_and(|probe| probe.number == number) {
            let probe = self.probing.current.take().expect("it is under way");
            self.probing.well();
            if head.from == probe.target && probe.indirect_at.is_some() {
                let time = self.now.since_start.since(probe.sent);
                if let Some(member) = self.table.get_mut(probe.target) {
                    member.answered_after(time);
                }
            }
            return true;
        }
        let Ok(at) = self.probing.relays.binary_search_by_key(&number, |relay| relay.number) else {
            return number == PLEA;
        };
        let relay = self.probing.relays.remove(at).expect("it was found");
        self.say(relay.asker, Word::Ack { number: relay.asked }, Vec::new(), effects);
        true
    }

    /// The target of a probe answered over a stream.
    pub(super) fn acknowledged_by_stream(&mut self, number: u64) {
        if self.probing.current.as_ref().is_some_and(|probe| probe.number == number) {
            self.probing.current = None;
            self.counters.probes_by_stream += 1;
        }
    }

    /// A helper lives, and the target does not answer it; whether it was waited for.
    pub(super) fn denied(&mut self, number: u64) -> bool {
        let current = self.probing.current.as_mut().filter(|probe| probe.number == number);
        current.map(|probe| probe.nacks += 1).is_some()
    }
}
