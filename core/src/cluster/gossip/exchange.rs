//! Exchanges over a stream: two nodes tell each other all that they know, piece by piece.
//!
//! A newcomer begins with one; views that stay different are made equal by one; somebody who is
//! lost, and whoever was named as a seed and is not among the members, is sought by one now and
//! then, so that two halves of a cluster find each other again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use core::net::SocketAddr;

use super::Gossip;
use super::counters::Drop;
use super::datagram::{Answering, Asking, Exchanged, Head, PIECE_MAX, is_plausible_piece};
use super::members::CONTACTS_MAX;
use super::news::News;
use super::seal::EXCHANGE_BYTES_MAX;
use super::spread::Spread;
use crate::ids::{DiskId, ExchangeId, RequestId};
use crate::machine::{Broken, GossipEffect, Time};

/// How many exchanges a node asks for at once, at most.
pub const EXCHANGES_MAX: usize = 16;
/// How long an exchange may take before it is given up.
pub const EXCHANGE_WAIT: Duration = Duration::from_secs(5);
/// How many seeds a node that is alone asks at once.
const SEEDS_AT_ONCE: usize = 3;
/// From one look for the cluster to the next, of a node that is alone.
const LONELY_INTERVAL: Duration = Duration::from_millis(500);
/// For so many times the time after which a difference is repaired, it is remembered.
const DIFFERENCE_LASTS: u32 = 5;

/// What an exchange is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see whether the target of a probe answers at all.
    Probe {
        /// The probe's number.
        number: u64,
    },
    /// To see whether the other's view is the same.
    Compare,
    /// To get the other's view, and give the own one, from an identity on.
    Pull {
        /// The first identity of the piece.
        from: DiskId,
        /// The last one that the own piece covers, where there is more.
        to: Option<DiskId>,
    },
}

#[derive(Debug)]
struct Open {
    to: SocketAddr,
    purpose: Purpose,
    /// When to give it up.
    deadline: Time,
}

/// The exchanges that this node asks for.
#[derive(Debug)]
pub(super) struct Exchanges {
    next: ExchangeId,
    open: BTreeMap<ExchangeId, Open>,
    /// Where the cluster may be: seeds, and members known before this start.
    contacts: Vec<SocketAddr>,
    /// When to compare views with somebody.
    compare_at: Time,
    /// When to seek whoever is lost.
    seek_at: Time,
    /// Since when a peer's view has differed from the own one, which has not changed since.
    differs_since: Option<Time>,
    /// Who may be sought; `None` when members have changed since that was seen.
    lost: Option<Vec<SocketAddr>>,
}

impl Exchanges {
    pub(super) fn new(compare_at: Time, seek_at: Time) -> Self {
        Self {
            next: ExchangeId(0),
            open: BTreeMap::new(),
            contacts: Vec::new(),
            compare_at,
            seek_at,
            differs_since: None,
            lost: None,
        }
    }

    /// More addresses where the cluster may be; beyond [`CONTACTS_MAX`] they are left out.
    pub(super) fn add_contacts(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if self.contacts.len() < CONTACTS_MAX && !self.contacts.contains(address) {
                self.contacts.push(*address);
            }
        }
        self.lost = None;
    }

    /// The seeds are to be asked now.
    pub(super) fn seek_now(&mut self, now: Time) {
        self.seek_at = now;
    }

    /// The own view has changed.
    pub(super) fn view_changed(&mut self) {
        self.differs_since = None;
        self.lost = None;
    }

    /// When something is to be done.
    pub(super) fn due_at(&self) -> Time {
        let open = self.open.first_key_value().map(|(_, open)| open.deadline);
        open.into_iter().fold(self.compare_at.min(self.seek_at), Time::min)
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        let sizes = (self.open.len(), self.contacts.len());
        if sizes.0 <= EXCHANGES_MAX && sizes.1 <= CONTACTS_MAX {
            return Ok(());
        }
        Err(Broken { invariant: "BoundsHold", detail: format!("exchanges, contacts: {sizes:?}") })
    }
}

impl Gossip {
    /// Asks somebody for an exchange, if not too many are under way.
    pub(super) fn ask(
        &mut self,
        to: SocketAddr,
        purpose: Purpose,
        body: Asking,
        effects: &mut Vec<GossipEffect>,
    ) {
        if self.exchanges.open.len() >= EXCHANGES_MAX {
            return;
        }
        let exchange = self.exchanges.next;
        self.exchanges.next = exchange.next();
        let deadline = self.now.since_start + EXCHANGE_WAIT;
        self.exchanges.open.insert(exchange, Open { to, purpose, deadline });
        self.counters.exchanges += 1;
        let request = self.seal.wrap(&Exchanged { head: self.head(), body });
        effects.push(GossipEffect::Exchange { exchange, to, request });
    }

    /// Asks for a piece of somebody's view, and tells the own one there.
    fn pull(&mut self, to: SocketAddr, from: DiskId, effects: &mut Vec<GossipEffect>) {
        let (members, more) = self.piece(from);
        let last = more.then(|| members.last().expect("where there is more, there is some").disk);
        let body = Asking::Piece { from, members, more };
        self.ask(to, Purpose::Pull { from, to: last }, body, effects);
    }

    /// What this node knows from an identity on, and whether there is more above.
    fn piece(&self, from: DiskId) -> (Vec<News>, bool) {
        let mut above = self.table.from(from);
        let members = above.by_ref().take(PIECE_MAX);
        let told = members.map(|m| News::in_full(m, self.suspicions.accusers(m.disk))).collect();
        (told, above.next().is_some())
    }

    /// Answers an exchange.
    pub(super) fn asked(
        &mut self,
        id: RequestId,
        request: &Bytes,
        effects: &mut Vec<GossipEffect>,
    ) {
        let asked: Exchanged<Asking> = match self.seal.unwrap(request, EXCHANGE_BYTES_MAX) {
            Ok(asked) => asked,
            Err(why) => return self.counters.drop(why),
        };
        if !self.admit(&asked.head) {
            return;
        }
        let body = match asked.body {
            Asking::Compare => Answering::Compared,
            Asking::Piece { members, .. } if !is_plausible_piece(&members) => {
                return self.counters.drop(Drop::Malformed);
            }
            Asking::Piece { from, members, more: _ } => {
                for news in members {
                    self.learn(news, Spread::Eager, effects);
                }
                let (members, more) = self.piece(from);
                Answering::Piece { members, more }
            }
        };
        self.hear(&asked.head, effects);
        let answer = self.seal.wrap(&Exchanged { head: self.head(), body });
        effects.push(GossipEffect::Answer { id, answer });
    }

    /// An exchange was answered, or was not.
    pub(super) fn answered(
        &mut self,
        exchange: ExchangeId,
        answer: Option<Bytes>,
        effects: &mut Vec<GossipEffect>,
    ) {
        let Some(open) = self.exchanges.open.remove(&exchange) else {
            return self.counters.drop(Drop::Late);
        };
        let Some(answer) = answer else {
            self.counters.exchanges_failed += 1;
            return;
        };
        let answered: Exchanged<Answering> = match self.seal.unwrap(&answer, EXCHANGE_BYTES_MAX) {
            Ok(answered) => answered,
            Err(why) => return self.counters.drop(why),
        };
        if !self.admit(&answered.head) {
            return;
        }
        match (open.purpose, answered.body) {
            (Purpose::Probe { number }, Answering::Compared) => {
                self.acknowledged_by_stream(number);
            }
            (Purpose::Compare, Answering::Compared) => {
                if answered.head.view != self.table.view() {
                    self.pull(open.to, DiskId(0), effects);
                }
            }
            (Purpose::Pull { from, to }, Answering::Piece { members, more }) => {
                if !is_plausible_piece(&members) {
                    return self.counters.drop(Drop::Malformed);
                }
                let last = members.last().filter(|_| more).map(|news| news.disk);
                for news in members {
                    self.learn(news, Spread::Later, effects);
                }
                // Each piece covers as much as the side that had more to tell there.
                let covered = [to, last].into_iter().flatten().min();
                if let Some(DiskId(covered)) = covered.filter(|covered| *covered >= from)
                    && let Some(next) = covered.checked_add(1)
                {
                    self.pull(open.to, DiskId(next), effects);
                }
            }
            (Purpose::Probe { .. } | Purpose::Compare, Answering::Piece { .. })
            | (Purpose::Pull { .. }, Answering::Compared) => self.counters.drop(Drop::Malformed),
        }
        self.hear(&answered.head, effects);
    }

    /// Does what is due: gives up, compares, seeks.
    pub(super) fn keep_in_touch(&mut self, effects: &mut Vec<GossipEffect>) {
        let now = self.now.since_start;
        while let Some(first) = self.exchanges.open.first_entry()
            && first.get().deadline <= now
        {
            first.remove();
            self.counters.exchanges_failed += 1;
        }
        if self.exchanges.compare_at <= now {
            self.exchanges.compare_at = now + self.jittered(self.thresholds.exchange_interval);
            if let Some(peer) = self.draw_peers(1).first().and_then(|disk| self.table.get(*disk)) {
                self.ask(peer.about.address, Purpose::Compare, Asking::Compare, effects);
            }
        }
        if self.exchanges.seek_at <= now {
            self.seek(effects);
        }
    }

    fn seek(&mut self, effects: &mut Vec<GossipEffect>) {
        let now = self.now.since_start;
        if self.exchanges.lost.is_none() {
            self.exchanges.lost = Some(self.lost_addresses());
        }
        let lost = self.exchanges.lost.as_ref().map_or(0, Vec::len);
        let alone = self.table.peers().is_empty();
        let pause = if alone { LONELY_INTERVAL } else { self.thresholds.reconnect_interval };
        self.exchanges.seek_at = now + self.jittered(pause);
        for _ in 0..lost.min(if alone { SEEDS_AT_ONCE } else { 1 }) {
            let chosen = self.dice.below(lost);
            let Some(address) = self.exchanges.lost.as_ref().map(|all| all[chosen]) else { return };
            match alone {
                true => self.pull(address, DiskId(0), effects),
                false => self.ask(address, Purpose::Compare, Asking::Compare, effects),
            }
        }
    }

    /// Where members are that failed, and seeds that are not among the live members.
    fn lost_addresses(&self) -> Vec<SocketAddr> {
        let live = self.table.all().filter(|member| member.state().is_live());
        let reached: BTreeSet<SocketAddr> = live.map(|member| member.about.address).collect();
        let failed = self.table.lost().map(|member| member.about.address);
        let sought = failed.chain(self.exchanges.contacts.iter().copied());
        let all: BTreeSet<SocketAddr> =
            sought.filter(|address| !reached.contains(address)).collect();
        all.into_iter().collect()
    }

    /// Compares the view of somebody who just answered with the own one: a difference that stays
    /// is repaired.
    pub(super) fn compare(&mut self, from: SocketAddr, head: &Head, out: &mut Vec<GossipEffect>) {
        if head.view == self.table.view() {
            return;
        }
        let (now, after) = (self.now.since_start, self.thresholds.repair_after);
        match self.exchanges.differs_since {
            Some(since) if now.since(since) > after * DIFFERENCE_LASTS => {
                self.exchanges.differs_since = Some(now);
            }
            Some(since) if now.since(since) >= after => {
                self.exchanges.differs_since = None;
                self.pull(from, DiskId(0), out);
            }
            Some(_) => {}
            None => self.exchanges.differs_since = Some(now),
        }
    }

    /// A pause of three to five quarters of this: so nodes that start together spread out.
    fn jittered(&mut self, pause: Duration) -> Duration {
        pause * (750 + self.dice.below(500) as u32) / 1_000
    }
}
