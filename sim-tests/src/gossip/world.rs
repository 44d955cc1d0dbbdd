//! The world: a heap of events, the nodes' processes, and the carrying out of what machines want.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use sprawl_core::cluster::Gossip;
use sprawl_core::cluster::gossip::{
    Description, GossipSeed, Incarnation, MemberState, Members, Thresholds, read_contacts,
};
use sprawl_core::ids::{Boot, ClusterId, DiskId, ExchangeId, RequestId};
use sprawl_core::machine::{Digest, GossipEffect, GossipInput, Machine, Now, Time, WallTime};

use super::measure::{Measure, Observer, Truth};
use super::network::{Network, Weather};
use super::story::{Deed, expand};
use super::{Outcome, Profile, SETTLES, Settings};
use crate::invariants::{BoundsHold, Findings};
use crate::plan::Draw;

/// How long a stream waits for a peer that says nothing, in microseconds.
const STREAM_WAIT: u64 = 1_000_000;
/// How long after the last fault all views must be equal, in microseconds.
const CONVERGES_MAX: u64 = 60_000_000;
/// How often that is looked at.
const LOOK: u64 = 500_000;
/// How long a process must have run to count among those who are to know a change at once.
const SETTLED: u64 = 2_000_000;
/// The mean time from one pause of a process to the next.
const PAUSE_EACH: u64 = 20_000_000;
/// How many nodes are the seeds of all.
const SEEDS: usize = 3;

/// Something that is to happen.
enum What {
    Wake { node: usize, run: u64 },
    Datagram { from: usize, to: usize, datagram: Bytes },
    Request { from: usize, run: u64, exchange: ExchangeId, to: usize, request: Bytes },
    Answer { to: usize, run: u64, exchange: ExchangeId, answer: Option<Bytes> },
    Deed(Deed),
    StandStill(usize),
    Look,
}

/// A node: its directory, and its process while there is one.
struct Node {
    disk: DiskId,
    boot: u64,
    contacts: Vec<u8>,
    machine: Option<Gossip>,
    /// Counts processes: what was meant for an earlier one does not come to the next.
    run: u64,
    began: u64,
    /// The next wake that is on the heap.
    wakes: u64,
    paused_until: u64,
    shown: Option<Arc<Members>>,
}

/// A run under way.
pub(super) struct World {
    settings: Settings,
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<What>>,
    free: Vec<usize>,
    nodes: Vec<Node>,
    identities: u64,
    owners: BTreeMap<DiskId, usize>,
    /// Streams that wait for their answers: who asked.
    asked: BTreeMap<RequestId, (usize, u64, ExchangeId)>,
    requests: u64,
    network: Network,
    draw: Draw,
    measure: Measure,
    findings: Findings,
    effects: Vec<GossipEffect>,
    chain: Digest,
    steps: u64,
    sent: (u64, u64),
    sent_before: (u64, u64),
    node_time: u64,
    healed_at: Option<u64>,
    converged_after: Option<u64>,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + node as u32)), 7946)
}

fn node_at(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (ip.to_bits() - 0x0a00_0001) as usize,
        IpAddr::V6(ip) => panic!("no node is at {ip}"),
    }
}

impl World {
    pub(super) fn new(settings: Settings, findings: Findings) -> Self {
        let strict = settings.profile != Profile::Churn;
        let known_max = settings.known_max;
        let mut measure = Measure::new(settings.nodes, strict, known_max, findings.clone());
        measure.from = SETTLES.as_micros() as u64;
        let mut world = Self {
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
            identities: 0,
            owners: BTreeMap::new(),
            asked: BTreeMap::new(),
            requests: 0,
            network: Network::new(settings.seed, 10),
            draw: Draw::new(settings.seed, 3),
            measure,
            findings,
            effects: Vec::new(),
            chain: Digest::default(),
            steps: 0,
            sent: (0, 0),
            sent_before: (0, 0),
            node_time: 0,
            healed_at: None,
            converged_after: None,
            settings,
        };
        for node in 0..world.settings.nodes {
            let disk = world.identity(node);
            world.nodes.push(Node {
                disk,
                boot: 0,
                contacts: Vec::new(),
                machine: None,
                run: 0,
                began: 0,
                wakes: u64::MAX,
                paused_until: 0,
                shown: None,
            });
            let at = world.draw.range(0, 2_000_000);
            world.schedule(at, What::Deed(Deed::Start(node)));
        }
        world
    }

    fn identity(&mut self, node: usize) -> DiskId {
        self.identities += 1;
        let disk =
            DiskId(u128::from(self.draw.range(0, u64::MAX)) << 64 | u128::from(self.identities));
        self.owners.insert(disk, node);
        disk
    }

    fn schedule(&mut self, at: u64, what: What) {
        self.sequence += 1;
        self.place(at, self.sequence, what);
    }

    fn place(&mut self, at: u64, sequence: u64, what: What) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(what);
                place
            }
            None => {
                self.events.push(Some(what));
                self.events.len() - 1
            }
        };
        self.heap.push(Reverse((at, sequence, place)));
    }

    /// Lives to the end, and tells.
    pub(super) fn live(mut self) -> Outcome {
        for (at, deed) in expand(&self.settings) {
            self.schedule(at, What::Deed(deed));
        }
        if !self.settings.pause_max.is_zero() && self.settings.profile != Profile::Churn {
            for node in 0..self.settings.nodes {
                let at = self.measure.from + self.draw.range(0, 2 * PAUSE_EACH);
                self.schedule(at, What::StandStill(node));
            }
        }
        self.schedule(LOOK, What::Look);
        let mut end = self.measure.from + self.settings.lasts.as_micros() as u64;
        if self.settings.profile == Profile::Churn {
            end += CONVERGES_MAX;
        }
        while let Some(Reverse((at, sequence, place))) = self.heap.pop() {
            if at > end || self.converged_after.is_some() {
                break;
            }
            self.now = at;
            let what = self.events[place].take().expect("an event happens once");
            self.free.push(place);
            self.steps += 1;
            self.happen(sequence, what);
        }
        self.finish()
    }

    fn finish(mut self) -> Outcome {
        self.measure.end(self.now);
        if let Some(healed) = self.healed_at
            && self.converged_after.is_none()
        {
            let why = self.disagreement().unwrap_or_default();
            let detail = format!("{} s after healing: {why}", (self.now - healed) / 1_000_000);
            self.findings.violated("Converges", detail);
        }
        let seconds = self.node_time as f64 / 1e6;
        let span = |micros: u64| std::time::Duration::from_micros(micros);
        Outcome {
            tally: self.measure.tally,
            steps: self.steps,
            chain: self.chain.finish(),
            simulated: span(self.now),
            bytes_a_second: (self.sent.0 - self.sent_before.0) as f64 / seconds,
            datagrams_a_second: (self.sent.1 - self.sent_before.1) as f64 / seconds,
            converged_after: self.converged_after.map(span),
            violations: BTreeMap::new(),
        }
    }

    fn happen(&mut self, sequence: u64, what: What) {
        match what {
            What::Wake { node, run } => self.wake(node, run),
            What::Datagram { from, to, datagram } => {
                if let Some(until) = self.stands_still(to) {
                    return self.place(until, sequence, What::Datagram { from, to, datagram });
                }
                self.chain.write(&datagram);
                self.input(to, GossipInput::Received { from: address(from), datagram });
            }
            What::Request { from, run, exchange, to, request } => {
                if let Some(until) = self.stands_still(to) {
                    let what = What::Request { from, run, exchange, to, request };
                    return self.place(until, sequence, what);
                }
                self.request(from, run, exchange, to, request);
            }
            What::Answer { to, run, exchange, answer } => {
                if let Some(until) = self.stands_still(to) {
                    let what = What::Answer { to, run, exchange, answer };
                    return self.place(until, sequence, what);
                }
                if self.nodes[to].run == run {
                    self.input(to, GossipInput::Answered { exchange, answer });
                }
            }
            What::Deed(deed) => self.perform(deed),
            What::StandStill(node) => {
                let most = self.settings.pause_max.as_micros() as u64;
                let lasts = self.draw.range(1_000, most);
                self.pause(node, lasts);
                let next = self.now + lasts + self.draw.range(0, 2 * PAUSE_EACH);
                self.schedule(next, What::StandStill(node));
            }
            What::Look => self.look(),
        }
    }

    /// Until when a process stands still that has something to do now.
    fn stands_still(&self, node: usize) -> Option<u64> {
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    /// What came while a process stood still is handled before it looks at its clock: so its wake
    /// is a moment later.
    fn wake(&mut self, node: usize, run: u64) {
        // A wake that an earlier one has replaced says nothing.
        if self.nodes[node].run != run || self.nodes[node].wakes != self.now {
            return;
        }
        if let Some(until) = self.stands_still(node) {
            self.nodes[node].wakes = until + 1;
            return self.schedule(until + 1, What::Wake { node, run });
        }
        let own = &mut self.nodes[node];
        own.wakes = u64::MAX;
        let due = own.machine.as_ref().and_then(Gossip::wakeup);
        match due.map(|due| own.began + due.0) {
            Some(due) if due > self.now => self.wake_at(node, due),
            Some(_) => self.input(node, GossipInput::Woke),
            None => {}
        }
    }

    fn wake_at(&mut self, node: usize, at: u64) {
        let at = at.max(self.now);
        if at < self.nodes[node].wakes {
            self.nodes[node].wakes = at;
            let run = self.nodes[node].run;
            self.schedule(at, What::Wake { node, run });
        }
    }

    fn input(&mut self, node: usize, input: GossipInput) {
        let (began, wall) = (self.nodes[node].began, self.now / 1_000);
        let Some(machine) = &mut self.nodes[node].machine else { return };
        let now =
            Now { since_start: Time(self.now - began), wall: WallTime(1_700_000_000_000 + wall) };
        let mut effects = std::mem::take(&mut self.effects);
        machine.handle(now, input, &mut effects);
        if self.steps.is_multiple_of(self.settings.check_each) {
            BoundsHold::stepped(machine, &self.findings);
        }
        let due = machine.wakeup();
        (self.now, node).hash(&mut self.chain);
        for effect in effects.drain(..) {
            self.obey(node, effect);
        }
        self.effects = effects;
        if let Some(due) = due {
            self.wake_at(node, began + due.0);
        }
    }

    fn obey(&mut self, node: usize, effect: GossipEffect) {
        match effect {
            GossipEffect::Send { to, datagram } => {
                let to = node_at(to);
                self.sent = (self.sent.0 + datagram.len() as u64, self.sent.1 + 1);
                for after in self.network.deliveries(node, to).into_iter().flatten() {
                    let datagram = datagram.clone();
                    self.schedule(self.now + after, What::Datagram { from: node, to, datagram });
                }
            }
            GossipEffect::Exchange { exchange, to, request } => {
                let (to, run) = (node_at(to), self.nodes[node].run);
                self.sent.0 += request.len() as u64;
                if self.network.passes(node, to) && self.network.passes(to, node) {
                    // A connection is made before anything is said.
                    let after = 3 * self.network.latency(node, to);
                    let what = What::Request { from: node, run, exchange, to, request };
                    self.schedule(self.now + after, what);
                } else {
                    let what = What::Answer { to: node, run, exchange, answer: None };
                    self.schedule(self.now + STREAM_WAIT, what);
                }
            }
            GossipEffect::Answer { id, answer } => {
                let asker = self.asked.remove(&id);
                let (asker, run, exchange) = asker.expect("an answer is to a request");
                self.sent.0 += answer.len() as u64;
                self.answer(node, asker, run, exchange, Some(answer));
            }
            GossipEffect::Show(members) => self.nodes[node].shown = Some(members),
            GossipEffect::Event(event) => {
                let owner = self.owners.get(&event.member).copied().expect("a node's identity");
                let subject = &self.nodes[owner];
                let same = subject.disk == event.member && subject.machine.is_some();
                let truth = Truth { runs: same.then_some(subject.boot) };
                let own = self.nodes[node].disk == event.member;
                let (nodes, now) = (&self.nodes, self.now);
                let live = || {
                    let settled = |(_, node): &(usize, &Node)| {
                        node.machine.is_some() && node.began + SETTLED <= now
                    };
                    let all = nodes.iter().enumerate().filter(settled).map(|(at, _)| at);
                    all.filter(|at| own || *at != owner).collect()
                };
                let paused_until = self.nodes[node].paused_until;
                let observer = Observer { node, own, paused_until };
                self.measure.event(self.now, observer, &event, truth, live);
            }
            GossipEffect::Departed => self.end(node),
        }
    }

    fn request(&mut self, from: usize, run: u64, exchange: ExchangeId, to: usize, request: Bytes) {
        if self.nodes[to].machine.is_none() {
            return self.answer(to, from, run, exchange, None);
        }
        let id = RequestId(self.requests);
        self.requests += 1;
        self.asked.insert(id, (from, run, exchange));
        self.chain.write(&request);
        self.input(to, GossipInput::Asked { id, request });
        if self.asked.remove(&id).is_some() {
            self.answer(to, from, run, exchange, None);
        }
    }

    fn answer(
        &mut self,
        from: usize,
        to: usize,
        run: u64,
        exchange: ExchangeId,
        answer: Option<Bytes>,
    ) {
        let what = What::Answer { to, run, exchange, answer };
        let after = self.network.latency(from, to);
        self.schedule(self.now + after, what);
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Leave(node) => self.input(node, GossipInput::Leave),
            Deed::Join(node) => {
                if self.nodes[node].machine.is_none() {
                    self.nodes[node].disk = self.identity(node);
                    self.nodes[node].boot = 0;
                    self.nodes[node].contacts.clear();
                    self.start(node);
                }
            }
            Deed::Kill(node) => {
                if self.nodes[node].machine.is_some() {
                    let (disk, boot) = (self.nodes[node].disk, self.nodes[node].boot);
                    self.end(node);
                    let knows = |other: &Node| {
                        let member = other.machine.as_ref().and_then(|own| own.member(disk));
                        member.is_some_and(|member| member.state().is_live())
                    };
                    let all = self.nodes.iter().enumerate();
                    let knew: BTreeSet<usize> =
                        all.filter(|(_, other)| knows(other)).map(|(at, _)| at).collect();
                    self.measure.died(self.now, disk, boot, knew);
                }
            }
            Deed::Start(node) => {
                if self.nodes[node].machine.is_none() {
                    self.start(node);
                }
            }
            Deed::Pause(node, lasts) => self.pause(node, lasts),
            Deed::Weather(weather) => self.network.weather = weather,
            Deed::Heal => {
                self.network.weather = Weather { loss: 10, ..Weather::default() };
                self.healed_at = Some(self.now);
            }
        }
    }

    fn pause(&mut self, node: usize, lasts: u64) {
        let until = &mut self.nodes[node].paused_until;
        *until = (*until).max(self.now + lasts);
    }

    fn start(&mut self, node: usize) {
        let seeds = (0..self.settings.nodes.min(SEEDS)).filter(|seed| *seed != node).map(address);
        let dice = self.draw.range(0, u64::MAX);
        let own = &mut self.nodes[node];
        own.boot += 1;
        own.run += 1;
        own.began = self.now;
        own.wakes = u64::MAX;
        own.paused_until = 0;
        let mut contacts: Vec<SocketAddr> = seeds.collect();
        contacts.extend(read_contacts(&own.contacts).unwrap_or_default());
        let about = Description {
            name: format!("node-{node}"),
            address: address(node),
            http: SocketAddr::new(address(node).ip(), 9070),
            zone: format!("zone-{}", node % 3),
            capacity: 100,
            version: 1,
        };
        let seed = GossipSeed {
            disk: own.disk,
            boot: Boot(own.boot),
            about,
            cluster: Some(ClusterId(1)),
            key: None,
            thresholds: Thresholds::default(),
            contacts,
            dice,
        };
        own.machine = Some(Gossip::new(seed, Now::default()));
        self.measure.started(node);
        self.measure.returned(self.now, self.nodes[node].disk);
        self.wake_at(node, self.now);
    }

    /// A process ends. Its directory keeps where it last knew others.
    fn end(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        own.machine = None;
        own.run += 1;
        own.wakes = u64::MAX;
        if let Some(shown) = own.shown.take() {
            own.contacts = shown.contacts();
        }
        self.measure.gone(node);
    }

    /// Looks at the whole now and then: what nodes sent, and after healing whether they agree.
    fn look(&mut self) {
        if self.now < self.measure.from {
            self.sent_before = self.sent;
        } else {
            let live = self.nodes.iter().filter(|node| node.machine.is_some()).count();
            self.node_time += LOOK * live as u64;
        }
        if let Some(healed) = self.healed_at
            && self.disagreement().is_none()
        {
            self.converged_after = Some(self.now - healed);
        }
        self.schedule(self.now + LOOK, What::Look);
    }

    /// Converges: where a live node's view of who lives is not the truth.
    fn disagreement(&self) -> Option<String> {
        let live = || {
            self.nodes
                .iter()
                .enumerate()
                .filter_map(|(at, node)| node.machine.as_ref().map(|machine| (at, node, machine)))
        };
        let mut truth: Vec<(DiskId, Incarnation)> = live()
            .filter_map(|(_, node, machine)| {
                let own = machine.member(node.disk)?;
                own.state().is_live().then(|| (node.disk, own.incarnation()))
            })
            .collect();
        truth.sort_unstable();
        for (at, _, machine) in live() {
            let healthy = machine.members().filter(|member| member.state().is_live());
            let view: Vec<_> =
                healthy.map(|member| (member.disk, member.incarnation(), member.state())).collect();
            let expected = truth.iter().map(|(d, i)| (*d, *i, MemberState::Healthy));
            if !view.iter().copied().eq(expected) {
                return Some(format!("node {at} believes {view:?}, where {truth:?} live"));
            }
        }
        None
    }
}
