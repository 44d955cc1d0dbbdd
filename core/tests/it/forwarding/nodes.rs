//! The shards of several nodes on a network that does what a test says, and metadata of which the
//! test says who has seen how much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::broker::replica::{Record, Submission, Terms};
use sprawl_core::broker::routing::{Answer, CallFailed, wire};
use sprawl_core::broker::{Shard, ShardOptions, ShardSeed};
use sprawl_core::cluster::metadata::{Change, Partition, View};
use sprawl_core::cluster::topic::TopicConfig;
use sprawl_core::ids::*;
use sprawl_core::machine::*;
use sprawl_core::node::{entry_shard, shard_of};

use crate::world::{draft, registration};

const SHARDS: u16 = 2;

/// What becomes of what is sent to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// It arrives, and the answer comes.
    #[default]
    Good,
    /// It does not arrive, and the sender knows.
    Down,
    /// It does not arrive, and the sender does not know.
    Lossy,
    /// It arrives, and the answer is lost.
    Deaf,
}

struct Member {
    shards: Vec<Shard>,
    view: View,
    /// How many changes it has seen.
    seen: usize,
    logs: BTreeMap<PartitionId, Vec<Bytes>>,
    unsynced: VecDeque<(ShardId, Store)>,
    link: Link,
    /// Whose calls it works on, by its own names for them.
    callers: BTreeMap<RequestId, (DiskId, ShardId, RequestId)>,
}

pub(super) struct Nodes {
    pub(super) now: Now,
    members: BTreeMap<DiskId, Member>,
    log: Vec<Change>,
    next: RequestId,
    pub(super) answers: BTreeMap<RequestId, Response>,
    /// What replicas have said and others have not heard: from whom, to whom.
    told: VecDeque<(DiskId, DiskId, (PartitionId, ReplicaMessage))>,
    /// Replicas do not hear one another.
    pub(super) apart: bool,
    /// Every call: from whom, to whom, after how many hops.
    pub(super) calls: Vec<(DiskId, DiskId, u8)>,
}

pub(super) fn name(text: &str) -> TopicName {
    text.parse().expect("a name")
}

pub(super) fn message(topic: &str, id: &str) -> Submission {
    let source = Source(u64::MAX);
    Submission { source, topic: name(topic), draft: draft(id), terms: Terms::default() }
}

impl Nodes {
    /// So many nodes, 1 and up, of one cluster.
    pub(super) fn new(count: u128) -> Self {
        let now = Now { since_start: Time(1), wall: WallTime(1_000_000) };
        let options = ShardOptions::default();
        let member = |disk| {
            let node = (DiskId(disk), Boot(1));
            let shard = |me| {
                let (seed, me, shards) = (disk as u64 * 10 + u64::from(me), ShardId(me), SHARDS);
                let (origin, replicas) = (now, Vec::new());
                Shard::recover(ShardSeed { me, shards, node, options, origin, replicas, seed })
            };
            let member = Member {
                shards: (0..SHARDS).map(shard).collect(),
                view: View::default(),
                seen: 0,
                logs: BTreeMap::new(),
                unsynced: VecDeque::new(),
                link: Link::Good,
                callers: BTreeMap::new(),
            };
            (DiskId(disk), member)
        };
        let members = (1..=count).map(member).collect();
        let mut nodes = Self {
            now,
            members,
            log: Vec::new(),
            next: RequestId(0),
            answers: BTreeMap::new(),
            told: VecDeque::new(),
            apart: false,
            calls: Vec::new(),
        };
        nodes.agree(Change::Found { cluster: ClusterId(7) });
        for disk in 1..=count {
            nodes.agree(Change::Register(registration(DiskId(disk), Boot(1))));
        }
        nodes
    }

    /// A change is agreed on; nobody sees it yet.
    pub(super) fn decide(&mut self, change: Change) {
        self.log.push(change);
    }

    /// A change is agreed on, and everybody sees it.
    pub(super) fn agree(&mut self, change: Change) {
        self.decide(change);
        for disk in self.disks() {
            self.catch_up(disk);
        }
        self.run();
    }

    /// A node sees all changes.
    pub(super) fn catch_up(&mut self, disk: DiskId) {
        self.see(disk, self.log.len());
    }

    /// A node sees the first changes, so many.
    pub(super) fn see(&mut self, disk: DiskId, count: usize) {
        let member = self.members.get_mut(&disk).expect("a node");
        for (at, change) in self.log.iter().enumerate().take(count).skip(member.seen) {
            member.view.apply(ChangeIndex(at as u64 + 1), change);
        }
        member.seen = count;
        let view = Arc::new(member.view.clone());
        for shard in 0..SHARDS {
            self.shard(disk, ShardId(shard), ShardInput::Viewed(view.clone()));
        }
    }

    /// How many changes there are.
    pub(super) fn agreed(&self) -> usize {
        self.log.len()
    }

    /// Decides that a topic is made anew, and led by this node; nobody sees it yet.
    pub(super) fn place(&mut self, topic: &str, leader: DiskId) {
        let others = self.disks().into_iter().filter(|disk| *disk != leader);
        let nodes: Vec<_> = others.map(|disk| (disk, Boot(1))).collect();
        self.decide(Change::DeleteTopic { name: name(topic) });
        self.decide(Change::Fail { nodes: nodes.clone(), at: WallTime(1), rulings: Vec::new() });
        self.decide(Change::CreateTopic { name: name(topic), config: TopicConfig::default() });
        self.decide(Change::Revive { nodes });
    }

    /// The same, and everybody sees it.
    pub(super) fn lead(&mut self, topic: &str, leader: DiskId) {
        self.place(topic, leader);
        for disk in self.disks() {
            self.catch_up(disk);
        }
        self.run();
        let view = &self.members[&leader].view;
        let led = view.partition_number(&name(topic), 0).map(|partition| partition.leader);
        assert_eq!(led, Some(leader));
    }

    pub(super) fn disks(&self) -> Vec<DiskId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn link(&mut self, disk: u128, link: Link) {
        self.members.get_mut(&DiskId(disk)).expect("a node").link = link;
    }

    pub(super) fn disk_space(&mut self, disk: u128, space: DiskSpace) {
        for shard in 0..SHARDS {
            self.shard(DiskId(disk), ShardId(shard), ShardInput::DiskSpace(space));
        }
    }

    /// A client asks a node for something.
    pub(super) fn ask(&mut self, disk: u128, request: Request) -> RequestId {
        self.next = self.next.next();
        let (id, disk) = (self.next, DiskId(disk));
        let door = entry_shard(&self.members[&disk].view, SHARDS, &request);
        self.shard(disk, door, ShardInput::Requested { id, request });
        self.run();
        id
    }

    pub(super) fn publish(&mut self, disk: u128, topic: &str, id: &str) -> RequestId {
        self.ask(disk, Request::Publish(message(topic, id)))
    }

    /// Syncs every disk, and has replicas hear one another, until nothing is left.
    pub(super) fn run(&mut self) {
        self.sync();
        while !self.apart
            && let Some((from, to, message)) = self.told.pop_front()
        {
            let (at, from) = (shard_of(message.0, SHARDS), (from, Boot(1)));
            self.shard(to, at, ShardInput::Replicated { from, messages: vec![message] });
            self.sync();
        }
    }

    /// Replicas hear what has been said up to now, and nobody hears what they answer.
    pub(super) fn hear_once(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.told) {
            let (at, from) = (shard_of(message.0, SHARDS), (from, Boot(1)));
            self.shard(to, at, ShardInput::Replicated { from, messages: vec![message] });
        }
        self.sync();
        self.told.clear();
    }

    /// How the first partition of a topic stands, as the first node sees it.
    pub(super) fn partition(&self, topic: &str) -> Partition {
        let view = &self.members[&DiskId(1)].view;
        Partition::clone(view.partition_number(&name(topic), 0).expect("it was made"))
    }

    /// Syncs every disk until nothing is left to sync.
    fn sync(&mut self) {
        while let Some((disk, (at, store))) = self.members.iter_mut().find_map(|(disk, member)| {
            member.unsynced.pop_front().map(|unsynced| (*disk, unsynced))
        }) {
            let partition = store.partition;
            let member = self.members.get_mut(&disk).expect("a node");
            let log = member.logs.entry(partition).or_default();
            log.extend(store.records.iter().map(|record| record.bytes().clone()));
            self.shard(disk, at, ShardInput::Stored(vec![(partition, store.number)]));
        }
    }

    /// Time passes, in steps of a millisecond.
    pub(super) fn pass(&mut self, span: Duration) {
        for _ in 0..span.as_millis() {
            self.now.since_start = self.now.since_start + Duration::from_millis(1);
            for disk in self.disks() {
                for at in 0..SHARDS {
                    let wakeup = self.members[&disk].shards[usize::from(at)].wakeup();
                    if wakeup.is_some_and(|wakeup| wakeup <= self.now.since_start) {
                        self.shard(disk, ShardId(at), ShardInput::Woke);
                    }
                }
            }
            self.run();
        }
    }

    fn shard(&mut self, disk: DiskId, at: ShardId, input: ShardInput) {
        let mut effects = Vec::new();
        let shard = &mut self.members.get_mut(&disk).expect("a node").shards[usize::from(at.0)];
        shard.handle(self.now, input, &mut effects);
        assert_eq!(shard.check(), Ok(()));
        for effect in effects {
            self.perform(disk, at, effect);
        }
    }

    fn perform(&mut self, disk: DiskId, at: ShardId, effect: ShardEffect) {
        let member = self.members.get_mut(&disk).expect("a node");
        match effect {
            ShardEffect::Store(store) => member.unsynced.push_back((at, store)),
            ShardEffect::Read { read, partition, from, below, count_max, .. } => {
                let log = member.logs.get(&partition).into_iter().flatten();
                let open = |bytes: &Bytes| Record::open(partition, bytes.clone()).expect("whole");
                let wanted = |record: &Record| {
                    let header = record.header();
                    header.is_message && header.offset >= from && header.index < below
                };
                let result = Ok(log.map(open).filter(wanted).take(count_max).collect());
                self.shard(disk, at, ShardInput::ReadDone { read, result });
            }
            ShardEffect::Erase { partition } => {
                member.logs.remove(&partition);
                member.unsynced.retain(|(_, store)| store.partition != partition);
            }
            ShardEffect::Send { to, message } => {
                self.shard(disk, to, ShardInput::Received { from: at, message });
            }
            ShardEffect::Reply { id, response } => {
                assert!(self.answers.insert(id, response).is_none(), "two answers to {id}");
            }
            ShardEffect::Answer { id, answer } => {
                let (to, shard, call) = member.callers.remove(&id).expect("it asked");
                let is_lost = member.link == Link::Deaf;
                let result = if is_lost { Err(CallFailed::Unknown) } else { Ok(through(&answer)) };
                self.shard(to, shard, ShardInput::Called { call, result });
            }
            ShardEffect::Call { call, to, ask, .. } => {
                self.calls.push((disk, to, ask.hops.taken));
                self.next = self.next.next();
                let id = self.next;
                let called = self.members.get_mut(&to).expect("a node");
                let failed = match called.link {
                    Link::Good | Link::Deaf => None,
                    Link::Down => Some(CallFailed::NotDelivered),
                    Link::Lossy => Some(CallFailed::Unknown),
                };
                if let Some(failed) = failed {
                    let result = Err(failed);
                    return self.shard(disk, at, ShardInput::Called { call, result });
                }
                called.callers.insert(id, (disk, at, call));
                let ask = wire::decode_ask(wire::encode_ask(&ask)).expect("what was encoded");
                let door = entry_shard(&called.view, SHARDS, &ask.request);
                self.shard(to, door, ShardInput::Asked { id, from: disk, ask });
            }
            ShardEffect::Tell { to, partition, message, .. } => {
                self.told.push_back((disk, to, (partition, message)));
            }
            ShardEffect::Report(_) => {}
            ShardEffect::Seek { .. } | ShardEffect::Scan { .. } => panic!("nobody seeks here"),
        }
    }

    /// What the shards of a node have counted.
    pub(super) fn counters(&self, disk: u128) -> Counters {
        let mut all = Counters::default();
        for shard in &self.members[&DiskId(disk)].shards {
            let Counters { calls, call_retries, asked, breakers_opened, .. } =
                shard.status().counters;
            all.calls += calls;
            all.call_retries += call_retries;
            all.asked += asked;
            all.breakers_opened += breakers_opened;
        }
        all
    }

    /// How many answers named a later owner.
    pub(super) fn redirects(&self, disk: u128) -> u64 {
        self.members[&DiskId(disk)].shards.iter().map(|one| one.status().lookups.redirects).sum()
    }

    /// What stands in a topic, as a node reads it.
    pub(super) fn read(&mut self, disk: u128, topic: &str) -> Vec<String> {
        let (from, count_max, wait) = (FetchFrom::Offset(Offset(0)), 1_000, Duration::ZERO);
        let topic = name(topic);
        let id = self.ask(disk, Request::Fetch { topic, partition: 0, from, count_max, wait });
        match self.answers.remove(&id) {
            Some(Response::Fetched { records, .. }) => records.iter().map(id_of).collect(),
            other => panic!("a fetch is answered: {other:?}"),
        }
    }

    /// The nodes that were called since the last look.
    pub(super) fn called(&mut self) -> Vec<u128> {
        std::mem::take(&mut self.calls).into_iter().map(|(_, to, _)| to.0).collect()
    }
}

pub(super) fn id_of(record: &Record) -> String {
    match record.body() {
        Ok(sprawl_core::broker::replica::Body::Message(draft)) => draft.envelope.id.to_string(),
        other => panic!("a message: {other:?}"),
    }
}

/// The identities of nodes.
pub(super) fn disks(numbers: &[u128]) -> BTreeSet<DiskId> {
    numbers.iter().copied().map(DiskId).collect()
}

/// An answer as it arrives.
fn through(answer: &Answer) -> Answer {
    wire::decode_answer(wire::encode_answer(answer)).expect("what was encoded")
}
