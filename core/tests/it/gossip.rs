//! Gossip machines that talk to one another by hand: what a word about a member does, and that no
//! bytes from outside do harm.

use std::collections::VecDeque;

use core::net::SocketAddr;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::cluster::Gossip;
use sprawl_core::cluster::gossip::{
    Description, Drop, GossipSeed, Load, MEMBERS_MAX, MemberEventKind, MemberState, Thresholds,
    read_contacts,
};
use sprawl_core::ids::{Boot, ClusterId, DiskId, RequestId};
use sprawl_core::machine::{GossipEffect, GossipInput, Machine, Now, Time, WallTime};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/gossip.txt");

fn address(node: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7_946 + node))
}

fn seed(node: u16, boot: u64) -> GossipSeed {
    let about = Description {
        name: format!("node-{node}"),
        address: address(node),
        http: address(1_000 + node),
        zone: "here".to_owned(),
        capacity: 100,
        version: 1,
    };
    GossipSeed {
        disk: DiskId(u128::from(node) + 1),
        boot: Boot(boot),
        about,
        cluster: None,
        key: None,
        thresholds: Thresholds::default(),
        contacts: vec![address(0)],
        dice: u64::from(node) + 7,
    }
}

/// Some nodes, and everything between them that is under way; nothing takes time but by `pass`.
struct Town {
    nodes: Vec<Option<Gossip>>,
    now: u64,
    events: Vec<(usize, DiskId, MemberEventKind)>,
    departed: Vec<usize>,
}

enum Parcel {
    Datagram(usize, SocketAddr, Bytes),
    Asked(usize, usize, sprawl_core::ids::ExchangeId, Bytes),
    Answered(usize, sprawl_core::ids::ExchangeId, Option<Bytes>),
}

impl Town {
    fn of(seeds: Vec<GossipSeed>) -> Self {
        let nodes = seeds.into_iter().map(|seed| Some(Gossip::new(seed, Now::default()))).collect();
        let mut town = Self { nodes, now: 0, events: Vec::new(), departed: Vec::new() };
        town.pass(3_000);
        town
    }

    fn wild(count: u16) -> Self {
        Self::of((0..count).map(|node| seed(node, 1)).collect())
    }

    /// So many milliseconds pass, one after the other.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1_000;
            for node in 0..self.nodes.len() {
                let due = self.nodes[node].as_ref().and_then(Machine::wakeup);
                if due.is_some_and(|due| due.0 <= self.now) {
                    self.input(node, GossipInput::Woke);
                }
            }
        }
    }

    fn input(&mut self, node: usize, input: GossipInput) {
        let mut parcels = VecDeque::from(self.hand(node, input, None));
        while let Some(parcel) = parcels.pop_front() {
            parcels.extend(match parcel {
                Parcel::Datagram(from, to, datagram) => {
                    let to = usize::from(to.port() - 7_946);
                    let from = address(from as u16);
                    self.hand(to, GossipInput::Received { from, datagram }, None)
                }
                Parcel::Asked(from, to, exchange, request) => {
                    let input = GossipInput::Asked { id: RequestId(exchange.0), request };
                    let mut sent = self.hand(to, input, Some((from, exchange)));
                    if self.nodes[to].is_none() {
                        sent.push(Parcel::Answered(from, exchange, None));
                    }
                    sent
                }
                Parcel::Answered(to, exchange, answer) => {
                    self.hand(to, GossipInput::Answered { exchange, answer }, None)
                }
            });
        }
    }

    fn hand(
        &mut self,
        node: usize,
        input: GossipInput,
        asker: Option<(usize, sprawl_core::ids::ExchangeId)>,
    ) -> Vec<Parcel> {
        let now = Now { since_start: Time(self.now), wall: WallTime(self.now / 1_000) };
        let Some(machine) = &mut self.nodes[node] else { return Vec::new() };
        let mut effects = Vec::new();
        machine.handle(now, input, &mut effects);
        assert_eq!(machine.check(), Ok(()));
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                GossipEffect::Send { to, datagram } => {
                    sent.push(Parcel::Datagram(node, to, datagram));
                }
                GossipEffect::Exchange { exchange, to, request } => {
                    let to = usize::from(to.port() - 7_946);
                    sent.push(Parcel::Asked(node, to, exchange, request));
                }
                GossipEffect::Answer { answer, .. } => {
                    let (asker, exchange) = asker.expect("somebody asked");
                    sent.push(Parcel::Answered(asker, exchange, Some(answer)));
                }
                GossipEffect::Show(members) => assert!(members.find(members.own).is_some()),
                GossipEffect::Event(event) => self.events.push((node, event.member, event.kind)),
                GossipEffect::Departed => self.departed.push(node),
            }
        }
        sent
    }

    fn state(&self, observer: usize, node: u16) -> Option<MemberState> {
        let machine = self.nodes[observer].as_ref().expect("it runs");
        machine.member(DiskId(u128::from(node) + 1)).map(|member| member.state())
    }

    fn machine(&self, node: usize) -> &Gossip {
        self.nodes[node].as_ref().expect("it runs")
    }
}

#[test]
fn nodes_that_name_one_seed_find_each_other() {
    let town = Town::wild(5);
    for observer in 0..5 {
        let states: Vec<_> = (0..5).map(|node| town.state(observer, node)).collect();
        assert_eq!(states, [Some(MemberState::Healthy); 5], "as node {observer} sees it");
    }
    let responses = town.machine(1).members().filter(|member| member.response.is_some());
    assert!(responses.count() >= 3, "the others were measured");
}

#[test]
fn a_dead_node_is_suspected_then_failed_and_a_restart_brings_it_back() {
    let mut town = Town::wild(4);
    town.nodes[3] = None;
    town.events.clear();
    town.pass(3_000);
    assert_eq!([0, 1, 2].map(|o| town.state(o, 3)), [Some(MemberState::Failed); 3]);
    let kinds: Vec<_> = town.events.iter().filter(|event| event.0 == 0).map(|e| e.2).collect();
    assert_eq!(kinds, [MemberEventKind::Suspected, MemberEventKind::Failed]);
    let now = Now { since_start: Time(town.now), ..Now::default() };
    town.nodes[3] = Some(Gossip::new(seed(3, 2), now));
    town.pass(2_000);
    assert_eq!([0, 1, 2].map(|o| town.state(o, 3)), [Some(MemberState::Healthy); 3]);
    assert!(town.events.contains(&(0, DiskId(4), MemberEventKind::Restarted)));
    let member = town.machine(0).member(DiskId(4)).expect("it is known");
    assert_eq!(member.incarnation().boot, Boot(2));
    assert_eq!(member.history.len(), 3, "healthy, suspect, failed: {:?}", member.history);
}

#[test]
fn who_leaves_is_not_suspected() {
    let mut town = Town::wild(4);
    town.events.clear();
    town.input(2, GossipInput::Leave);
    town.pass(300);
    assert_eq!(town.departed, [2]);
    town.nodes[2] = None;
    town.pass(3_000);
    assert_eq!([0, 1, 3].map(|o| town.state(o, 2)), [Some(MemberState::Left); 3]);
    assert!(town.events.iter().all(|event| event.2 == MemberEventKind::Left));
}

#[test]
fn a_retired_identity_is_not_heard() {
    let mut town = Town::wild(3);
    town.input(0, GossipInput::Retired(vec![DiskId(3)]));
    town.pass(2_000);
    assert_eq!(town.state(0, 2), None);
    assert!(town.machine(0).counters().dropped(Drop::Retired) > 0);
}

#[test]
fn load_rides_along_with_probes() {
    let mut town = Town::wild(3);
    let load = Load { busy_permille: 640, waiting_bytes: 12 };
    town.input(2, GossipInput::Loaded(load));
    town.pass(2_000);
    for at in [0, 2] {
        assert_eq!(town.machine(at).member(DiskId(3)).map(|member| member.load), Some(load));
    }
}

#[test]
fn another_cluster_and_another_key_are_not_heard() {
    let with = |node, cluster, key: Option<&'static [u8]>| GossipSeed {
        cluster,
        key: key.map(Bytes::from_static),
        ..seed(node, 1)
    };
    let (ours, theirs) = (Some(ClusterId(1)), Some(ClusterId(2)));
    let town = Town::of(vec![with(0, ours, None), with(1, theirs, None), with(2, None, None)]);
    assert_eq!([1, 2].map(|node| town.state(0, node)), [None, Some(MemberState::Healthy)]);
    assert!(town.machine(0).counters().dropped(Drop::Foreign) > 0);
    let key = Some(&b"a secret"[..]);
    let town = Town::of(vec![with(0, ours, key), with(1, ours, None), with(2, ours, key)]);
    assert_eq!([1, 2].map(|node| town.state(0, node)), [None, Some(MemberState::Healthy)]);
    assert!(town.machine(0).counters().dropped(Drop::Unsealed) > 0);
}

#[test]
fn known_members_are_kept_for_the_next_start() {
    let town = Town::wild(4);
    let mut machine = Gossip::new(seed(9, 1), Now::default());
    let mut effects = Vec::new();
    machine.handle(Now::default(), GossipInput::Woke, &mut effects);
    let shown = effects.iter().find_map(|effect| match effect {
        GossipEffect::Show(members) => Some(members.clone()),
        _ => None,
    });
    let mut members = (*shown.expect("it shows itself")).clone();
    assert_eq!(read_contacts(&members.contacts()), Ok(vec![]));
    members.all = town.machine(2).members().cloned().collect();
    members.own = DiskId(3);
    assert_eq!(read_contacts(&members.contacts()), Ok([0, 1, 3].map(address).to_vec()));
    assert!(read_contacts(b"\x07").is_err());
}

/// Real messages of every kind, for bytes to be changed in.
fn samples() -> Vec<Bytes> {
    let mut machine = Gossip::new(seed(1, 1), Now::default());
    let mut effects = Vec::new();
    let mut all: Vec<Bytes> = Vec::new();
    let mut other = Gossip::new(seed(0, 1), Now::default());
    for step in 0..400_u64 {
        let now = Now { since_start: Time(step * 10_000), ..Now::default() };
        machine.handle(now, GossipInput::Woke, &mut effects);
        for effect in std::mem::take(&mut effects) {
            if let GossipEffect::Exchange { exchange, request, .. } = effect {
                all.push(request.clone());
                let id = RequestId(exchange.0);
                let mut answers = Vec::new();
                other.handle(now, GossipInput::Asked { id, request }, &mut answers);
                for answer in answers {
                    if let GossipEffect::Answer { answer, .. } = answer {
                        all.push(answer.clone());
                        let answer = Some(answer);
                        let input = GossipInput::Answered { exchange, answer };
                        machine.handle(now, input, &mut effects);
                    }
                }
            } else if let GossipEffect::Send { datagram, .. } = effect {
                all.push(datagram);
            }
        }
    }
    all.truncate(64);
    all
}

proptest! {
    #![proptest_config(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        cases: 512,
        ..Config::default()
    })]

    #[test]
    fn no_bytes_do_harm(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let samples = samples();
        prop_assert!(samples.len() > 10, "{} samples", samples.len());
        let mut changed = which.get(&samples).to_vec();
        for (at, value) in flips {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        let mut machine = Gossip::new(seed(0, 1), Now::default());
        let mut effects = Vec::new();
        for (step, bytes) in [noise, changed].into_iter().enumerate() {
            let now = Now { since_start: Time(step as u64 * 1_000), ..Now::default() };
            let bytes = Bytes::from(bytes);
            machine.handle(now, GossipInput::Woke, &mut effects);
            let id = RequestId(1);
            let datagram = bytes.clone();
            machine.handle(now, GossipInput::Received { from: address(9), datagram }, &mut effects);
            machine.handle(now, GossipInput::Asked { id, request: bytes.clone() }, &mut effects);
            let exchange = sprawl_core::ids::ExchangeId(0);
            let answer = Some(bytes);
            machine.handle(now, GossipInput::Answered { exchange, answer }, &mut effects);
            prop_assert_eq!(machine.check(), Ok(()));
        }
        prop_assert!(machine.members().count() <= MEMBERS_MAX);
    }
}
