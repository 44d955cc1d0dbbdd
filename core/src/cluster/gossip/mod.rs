//! Who lives: SWIM with Lifeguard and eager push, as a machine of its own, so that a long change of
//! the metadata never delays a probe.
//!
//! Each node probes the others ([`probe`]), doubts those that are silent ([`suspicion`]), tells
//! what it learns ([`spread`]) and makes its view equal to the others' ([`exchange`]). What it
//! believes stands in its table of members ([`table`]); others are shown [`Members`].
//!
//! Every message has the sender's incarnation, load, and a hash over its view at its head. Bytes
//! from outside are checked, counted and dropped ([`Drop`]); no input makes it panic.

mod counters;
mod datagram;
mod dice;
mod exchange;
mod member;
mod members;
mod news;
mod probe;
mod seal;
mod spread;
mod suspicion;
mod table;
mod thresholds;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use core::net::SocketAddr;

pub use counters::{Drop, GossipCounters};
pub use exchange::{EXCHANGE_WAIT, EXCHANGES_MAX};
pub use member::{
    Description, HISTORY_MAX, Incarnation, Load, MEMBER_NAME_BYTES_MAX, Member, MemberEvent,
    MemberEventKind, MemberState, Transition, ZONE_BYTES_MAX,
};
pub use members::{CONTACTS_MAX, Members, read_contacts};
pub use probe::{HEALTH_MAX, RELAYS_MAX};
pub use seal::{DATAGRAM_BYTES_MAX, EXCHANGE_BYTES_MAX, GOSSIP_VERSION};
pub use table::{GRAVES_MAX, MEMBERS_MAX, RETIRED_MAX};
pub use thresholds::Thresholds;

use self::datagram::{Datagram, Head, Word};
use self::dice::Dice;
use self::exchange::Exchanges;
use self::news::{News, Verdict};
use self::probe::Probing;
use self::seal::Seal;
use self::spread::{Spread, Spreading};
use self::suspicion::Suspicions;
use self::table::{Table, Taken};
use crate::ids::{Boot, ClusterId, DiskId};
use crate::machine::{Broken, Digest, GossipEffect, GossipInput, Machine, Now, Time};
use crate::zoo::{Bug, planted};

/// How late a wake may be before silence proves nothing.
const LATE_MAX: Duration = Duration::from_millis(50);
/// How often measurements (response times, load) are shown that came with no change of a member.
const SHOW_INTERVAL: Duration = Duration::from_secs(5);
/// From the word that a node leaves to its end: so long the others pass it on with its help.
const FAREWELL: Duration = Duration::from_millis(250);

/// What a gossip machine is made from.
#[derive(Debug)]
pub struct GossipSeed {
    /// The node's identity.
    pub disk: DiskId,
    /// This run of it.
    pub boot: Boot,
    /// What it says of itself; its texts keep within [`MEMBER_NAME_BYTES_MAX`] and
    /// [`ZONE_BYTES_MAX`].
    pub about: Description,
    /// Its cluster, if it belongs to one already.
    pub cluster: Option<ClusterId>,
    /// The secret that members share, if they do.
    pub key: Option<Bytes>,
    /// What the gossip is tuned by.
    pub thresholds: Thresholds,
    /// Where the cluster may be: seeds, and what [`Members::contacts`] gave before the start.
    pub contacts: Vec<SocketAddr>,
    /// From which its random draws come.
    pub dice: u64,
}

/// The gossip machine.
///
/// Invariants, checked by `check`: (1) the table of members keeps its own; (2) exactly the suspect
/// members have a suspicion; (3) the bounds of its rooms hold.
#[derive(Debug)]
pub struct Gossip {
    thresholds: Thresholds,
    seal: Seal,
    dice: Dice,
    cluster: Option<ClusterId>,
    table: Table,
    probing: Probing,
    suspicions: Suspicions,
    spreading: Spreading,
    exchanges: Exchanges,
    counters: GossipCounters,
    /// The time of the input that is handled.
    now: Now,
    /// When to wake: as it was after the last input.
    due_at: Time,
    /// Something is to be shown.
    changed: bool,
    /// When to show what was measured.
    show_at: Time,
    /// When to say that the others know that the node leaves.
    departs_at: Option<Time>,
    departed: bool,
}

impl Gossip {
    /// A machine that knows nobody yet. It begins when it is first woken, at once.
    #[must_use]
    pub fn new(seed: GossipSeed, now: Now) -> Self {
        let GossipSeed { disk, boot, about, cluster, key, thresholds, contacts, dice } = seed;
        assert!(about.is_plausible(), "a name or a zone is too long: {about:?}");
        let mut dice = Dice::new(dice);
        let start = now.since_start;
        let own = Member::new(disk, about, Incarnation { boot, counter: 0 }, now);
        let within =
            |dice: &mut Dice, span: Duration| start + span * dice.below(1_000) as u32 / 1_000;
        let probing = Probing::new(within(&mut dice, thresholds.probe_interval), dice.number());
        let compare_at = within(&mut dice, thresholds.exchange_interval);
        let mut exchanges = Exchanges::new(compare_at, start);
        exchanges.add_contacts(&contacts);
        Self {
            seal: Seal::new(key.as_deref()),
            dice,
            cluster,
            table: Table::new(own, thresholds.forget_after),
            probing,
            suspicions: Suspicions::default(),
            spreading: Spreading::default(),
            exchanges,
            thresholds,
            counters: GossipCounters::default(),
            now,
            due_at: start,
            changed: true,
            show_at: start + SHOW_INTERVAL,
            departs_at: None,
            departed: false,
        }
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> &GossipCounters {
        &self.counters
    }

    /// How many steps slower than a healthy node it probes.
    #[must_use]
    pub fn health(&self) -> u32 {
        self.probing.health()
    }

    /// What it believes of a member.
    #[must_use]
    pub fn member(&self, disk: DiskId) -> Option<&Member> {
        self.table.get(disk)
    }

    /// All members, ascending by identity.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.all()
    }

    fn own(&self) -> DiskId {
        self.table.own().disk
    }

    fn head(&self) -> Head {
        let own = self.table.own();
        Head {
            cluster: self.cluster,
            from: own.disk,
            incarnation: own.incarnation(),
            load: self.table.own().load,
            view: self.table.view(),
        }
    }

    fn wrap(&self, word: Word, news: Vec<News>) -> Bytes {
        let datagram = self.seal.wrap(&Datagram { head: self.head(), word, news });
        let length = datagram.len();
        assert!(length <= DATAGRAM_BYTES_MAX, "a datagram of {length} bytes");
        datagram
    }

    fn send(&mut self, to: SocketAddr, datagram: Bytes, effects: &mut Vec<GossipEffect>) {
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.len() as u64;
        effects.push(GossipEffect::Send { to, datagram });
    }

    fn send_to(&mut self, disk: DiskId, datagram: Bytes, effects: &mut Vec<GossipEffect>) {
        if let Some(to) = self.table.get(disk).map(|member| member.about.address) {
            self.send(to, datagram, effects);
        }
    }

    fn say(
        &mut self,
        to: SocketAddr,
        word: Word,
        news: Vec<News>,
        effects: &mut Vec<GossipEffect>,
    ) {
        let datagram = self.wrap(word, news);
        self.send(to, datagram, effects);
    }

    /// Takes a datagram apart.
    fn receive(&mut self, from: SocketAddr, bytes: &Bytes, effects: &mut Vec<GossipEffect>) {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        let datagram: Datagram = match self.seal.unwrap(bytes, DATAGRAM_BYTES_MAX) {
            Ok(datagram) => datagram,
            Err(why) => return self.counters.drop(why),
        };
        if !datagram.is_plausible() {
            return self.counters.drop(Drop::Malformed);
        }
        let Datagram { head, word, news } = datagram;
        if !self.admit(&head) {
            return;
        }
        for piece in news {
            self.learn(piece, Spread::Eager, effects);
        }
        self.hear(&head, effects);
        match word {
            Word::Ping { number, to } if to == self.own() => {
                let news = self.said_of(head.from);
                self.say(from, Word::Ack { number }, news, effects);
            }
            Word::Ping { .. } => self.counters.drop(Drop::Misdirected),
            Word::Ask { number, target, address } => {
                self.relay(from, number, target, address, effects);
            }
            Word::Ack { number } => {
                if !self.acknowledged(number, &head, effects) {
                    self.counters.drop(Drop::Late);
                }
                self.compare(from, &head, effects);
            }
            Word::Nack { number } => {
                if !self.denied(number) {
                    self.counters.drop(Drop::Late);
                }
            }
            Word::News => {}
        }
    }

    /// Whether a message is from somebody who is to be heard. A node without a cluster takes the
    /// first one that it hears of, so that it is no bridge between two.
    fn admit(&mut self, head: &Head) -> bool {
        let why = if !head.is_plausible() {
            Drop::Malformed
        } else if head.from == self.own() {
            Drop::Own
        } else if self.table.is_retired(head.from) {
            Drop::Retired
        } else if self.cluster.is_some_and(|own| head.cluster.is_some_and(|c| c != own)) {
            Drop::Foreign
        } else {
            if self.cluster.is_none() && head.cluster.is_some() {
                self.cluster = head.cluster;
                self.changed = true;
            }
            return true;
        };
        self.counters.drop(why);
        false
    }

    /// Takes what a message says by its head: the load, and an objection to a suspicion.
    fn hear(&mut self, head: &Head, effects: &mut Vec<GossipEffect>) {
        let Some(member) = self.table.get_mut(head.from) else { return };
        member.load = head.load;
        let known = member.incarnation();
        if head.incarnation > known && head.incarnation.boot == known.boot {
            let Head { from: disk, incarnation, .. } = *head;
            let news = News { disk, incarnation, verdict: Verdict::Healthy, about: None };
            self.learn(news, Spread::Eager, effects);
        }
    }

    /// What goes along with an answer: news, above all what is said against the asker itself, who
    /// may not have heard it.
    fn said_of(&mut self, asker: DiskId) -> Vec<News> {
        let against = match (self.table.get(asker), self.table.grave(asker)) {
            (Some(member), _) if !member.state().is_live() => Some(News::of(member, &[])),
            (None, Some(incarnation)) => {
                let verdict = Verdict::Failed;
                Some(News { disk: asker, incarnation, verdict, about: None })
            }
            (_, _) => None,
        };
        let mut news = self.gossip_along(1, against.as_ref().map_or(0, News::bytes_max));
        news.extend(against);
        news
    }

    /// Takes a piece of news.
    fn learn(&mut self, news: News, how: Spread, effects: &mut Vec<GossipEffect>) {
        if news.disk == self.own() {
            return self.hear_of_self(&news, effects);
        }
        match self.table.take(&news, self.now) {
            Taken::Full => self.counters.drop(Drop::Full),
            Taken::Known => {
                if let Verdict::Suspect(by) = &news.verdict
                    && self.table.get(news.disk).map(Member::incarnation) == Some(news.incarnation)
                {
                    self.confirm(news.disk, by);
                }
            }
            Taken::Changed(kind) => {
                // Whoever asked for a view is the one who did not know: it need not tell.
                let joined = kind == MemberEventKind::Joined;
                let how = if joined && how == Spread::Later { Spread::Not } else { how };
                match &news.verdict {
                    Verdict::Suspect(by) if !joined => {
                        self.suspected(news.disk, news.incarnation, by);
                    }
                    Verdict::Healthy | Verdict::Suspect(_) | Verdict::Failed | Verdict::Left => {
                        self.suspicions.close(news.disk);
                    }
                }
                self.changed(kind, news.disk, how, effects);
                if joined && matches!(news.verdict, Verdict::Suspect(_)) {
                    self.learn(news, how, effects);
                }
            }
        }
    }

    /// A member's state has changed: it is told to all whom it concerns.
    fn changed(
        &mut self,
        kind: MemberEventKind,
        disk: DiskId,
        how: Spread,
        effects: &mut Vec<GossipEffect>,
    ) {
        let incarnation = self.table.get(disk).expect("it has a state").incarnation();
        let back = match kind {
            MemberEventKind::Joined | MemberEventKind::Restarted | MemberEventKind::Refuted => true,
            MemberEventKind::Suspected | MemberEventKind::Failed | MemberEventKind::Left => false,
        };
        if back && disk != self.own() {
            self.probe_too(disk);
        }
        self.changed = true;
        self.exchanges.view_changed();
        let once = planted(Bug::JoinToldOnce) && kind == MemberEventKind::Joined;
        self.spread(disk, if once && how == Spread::Eager { Spread::Once } else { how });
        effects.push(GossipEffect::Event(MemberEvent { member: disk, incarnation, kind }));
    }

    /// Somebody says something about this node: if it is not well, or not this run's word, the
    /// node raises its incarnation and says that it is here.
    fn hear_of_self(&mut self, news: &News, effects: &mut Vec<GossipEffect>) {
        let own = self.table.own();
        let (disk, incarnation) = (own.disk, own.incarnation());
        let leaves = !own.state().is_live();
        let ours = news.incarnation.boot == incarnation.boot;
        let good = news.verdict == Verdict::Healthy && news.incarnation == incarnation;
        if leaves || !ours || news.incarnation < incarnation || good {
            return;
        }
        let counter = match planted(Bug::RefutesWithoutRaise) {
            true => incarnation.counter,
            false => news.incarnation.counter + 1,
        };
        let incarnation = Incarnation { counter, ..incarnation };
        self.table.set(disk, MemberState::Healthy, incarnation, self.now);
        self.counters.refutations += 1;
        self.probing.ill();
        if let Verdict::Suspect(by) = &news.verdict {
            by.iter().for_each(|accuser| self.spreading.also(*accuser));
        }
        self.changed(MemberEventKind::Refuted, disk, Spread::Eager, effects);
    }

    fn leave(&mut self, effects: &mut Vec<GossipEffect>) {
        if self.departs_at.is_some() || self.departed {
            return;
        }
        let own = self.table.own();
        let (disk, incarnation) = (own.disk, own.incarnation());
        self.table.set(disk, MemberState::Left, incarnation, self.now);
        self.departs_at = Some(self.now.since_start + FAREWELL);
        self.changed(MemberEventKind::Left, disk, Spread::Eager, effects);
    }

    fn retire(&mut self, disks: &[DiskId]) {
        if self.table.retire(disks) {
            let gone: Vec<DiskId> =
                self.suspicions.disks().filter(|disk| self.table.get(*disk).is_none()).collect();
            gone.into_iter().for_each(|disk| self.suspicions.close(disk));
            self.changed = true;
            self.exchanges.view_changed();
        }
    }

    /// Does whatever is due.
    fn pass_time(&mut self, effects: &mut Vec<GossipEffect>) {
        let now = self.now.since_start;
        if self.departs_at.is_some_and(|at| at <= now) {
            self.departs_at = None;
            self.departed = true;
            effects.push(GossipEffect::Departed);
        }
        if self.departed {
            return;
        }
        self.repeat(effects);
        if self.table.own().state().is_live() {
            self.judge_suspects(effects);
            self.probe(effects);
            self.keep_in_touch(effects);
        }
        if self.table.forget_due(now) {
            self.changed = true;
            self.exchanges.view_changed();
        }
        if self.show_at <= now {
            self.show_at = now + SHOW_INTERVAL;
            self.changed = true;
        }
    }

    /// Sets back what silence would prove, if this process was not there to hear.
    fn excuse_lateness(&mut self, now: Time) {
        let late = now.since(self.due_at.max(self.now.since_start));
        if late > LATE_MAX {
            self.counters.late_wakes += 1;
            self.suspicions.postpone(late);
            self.probing.forgive(now + self.thresholds.direct_timeout);
        }
    }

    fn next_due(&self) -> Time {
        let far = Time(u64::MAX);
        if self.departed {
            return far;
        }
        let told = self.spreading.due_at().unwrap_or(far).min(self.departs_at.unwrap_or(far));
        let kept = self.table.forget_at().unwrap_or(far).min(self.show_at);
        if !self.table.own().state().is_live() {
            return told.min(kept);
        }
        let probed = self.probing.due_at(!self.table.peers().is_empty());
        let asked = probed.min(self.exchanges.due_at());
        told.min(kept).min(asked).min(self.suspicions.due_at().unwrap_or(far))
    }

    fn show(&mut self, effects: &mut Vec<GossipEffect>) {
        self.changed = false;
        let all = self.table.all().cloned().collect();
        let members = Members { own: self.own(), cluster: self.cluster, all };
        effects.push(GossipEffect::Show(Arc::new(members)));
    }
}

impl Machine for Gossip {
    type Input = GossipInput;
    type Effect = GossipEffect;

    fn handle(&mut self, now: Now, input: GossipInput, effects: &mut Vec<GossipEffect>) {
        self.excuse_lateness(now.since_start);
        self.now = now;
        match input {
            GossipInput::Received { from, datagram } => self.receive(from, &datagram, effects),
            GossipInput::Asked { id, request } => self.asked(id, &request, effects),
            GossipInput::Answered { exchange, answer } => self.answered(exchange, answer, effects),
            GossipInput::Join { addresses } => {
                self.exchanges.add_contacts(&addresses);
                self.exchanges.seek_now(now.since_start);
            }
            GossipInput::Retired(disks) => self.retire(&disks),
            GossipInput::Loaded(load) => self.table.loaded(load),
            GossipInput::Cluster(cluster) => {
                self.changed |= self.cluster != Some(cluster);
                self.cluster = Some(cluster);
            }
            GossipInput::Leave => self.leave(effects),
            GossipInput::Woke => self.pass_time(effects),
        }
        self.push(effects);
        if self.changed {
            self.show(effects);
        }
        self.due_at = self.next_due();
    }

    fn wakeup(&self) -> Option<Time> {
        (self.due_at < Time(u64::MAX)).then_some(self.due_at)
    }

    fn digest(&self, hash: &mut Digest) {
        self.cluster.hash(hash);
        self.counters.hash(hash);
        self.due_at.hash(hash);
        for member in self.table.all() {
            member.hash(hash);
        }
    }

    fn check(&self) -> Result<(), Broken> {
        self.table.check()?;
        self.probing.check()?;
        self.suspicions.check()?;
        self.spreading.check()?;
        self.exchanges.check()?;
        let suspects = self.table.all().filter(|member| member.state() == MemberState::Suspect);
        if suspects.map(|member| member.disk).eq(self.suspicions.disks()) {
            return Ok(());
        }
        let detail = format!("suspicions of {:?}", self.suspicions.disks().collect::<Vec<_>>());
        Err(Broken { invariant: "BoundsHold", detail })
    }
}
