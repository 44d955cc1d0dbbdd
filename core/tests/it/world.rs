//! A whole node of pure machines on a disk of lists.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::{Body, Draft, Envelope, Record, Recovery, Submission, Terms};
use sprawl_core::broker::{Shard, ShardOptions, ShardSeed};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::consensus::RaftStatus;
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::metadata::{CAPACITY_NORMAL, Change, FEATURE_LEVEL, Registration, View};
use sprawl_core::cluster::pattern::TopicPattern;
use sprawl_core::cluster::subscription::{DeliveryAsked, StartFrom};
use sprawl_core::ids::*;
use sprawl_core::machine::*;
use sprawl_core::node::{entry_shard, shard_of};

pub(crate) const SHARDS: u16 = 2;

/// What survives: the logs, the states, the metadata log.
pub(crate) struct Disk {
    pub(crate) boot: u64,
    /// Cluster time, in milliseconds, when the node that runs was started or last looked at.
    pub(crate) wall: u64,
    pub(crate) logs: BTreeMap<PartitionId, Vec<Bytes>>,
    pub(crate) states: BTreeMap<PartitionId, Bytes>,
    pub(crate) changes: Vec<Change>,
}

impl Default for Disk {
    fn default() -> Self {
        let (logs, states, changes) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { boot: 0, wall: 1_000_000, logs, states, changes }
    }
}

impl Disk {
    /// The messages of a partition below an index.
    pub(crate) fn messages(
        &self,
        id: PartitionId,
        below: EntryIndex,
    ) -> impl Iterator<Item = Record> {
        let log = self.logs.get(&id).map_or(&[][..], |log| log);
        let readable = log.iter().take(below.0 as usize - 1);
        let open = move |bytes: &Bytes| Record::open(id, bytes.clone()).expect("it was written");
        readable.map(open).filter(|record| record.header().is_message)
    }
}

/// What a node says of a run, in these tests.
pub(crate) fn registration(disk: DiskId, boot: Boot) -> Registration {
    let address = SocketAddr::from(([127, 0, 0, 1], disk.0 as u16));
    Registration {
        disk,
        boot,
        run: boot.0,
        name: format!("node-{}", disk.0),
        address,
        http: address,
        zone: String::new(),
        capacity: CAPACITY_NORMAL,
        level: FEATURE_LEVEL,
        clean: true,
    }
}

/// Something handed to the writer and not yet synced.
pub(crate) enum Unsynced {
    Store(ShardId, Store),
    Change(Change),
}

/// A running node.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) now: Now,
    pub(crate) control: Control,
    pub(crate) shards: Vec<Shard>,
    /// The metadata as the log has led to them.
    pub(crate) view: View,
    pub(crate) unsynced: VecDeque<Unsynced>,
    pub(crate) next: RequestId,
    pub(crate) answers: BTreeMap<RequestId, Response>,
    pub(crate) subscribed: BTreeMap<RequestId, ControlResponse>,
}

impl Node {
    pub(crate) fn start(disk: Disk) -> Self {
        let options = ShardOptions { checkpoint_entries: 7, ..ShardOptions::default() };
        Self::start_with(disk, options)
    }

    pub(crate) fn start_with(disk: Disk, options: ShardOptions) -> Self {
        let mut node = Self::begin_with(disk, options);
        node.sync();
        node
    }

    /// A node whose registration is not on the disk yet.
    pub(crate) fn begin_with(mut disk: Disk, options: ShardOptions) -> Self {
        disk.boot += 1;
        let mut view = View::default();
        disk.changes.iter().for_each(|change| view.apply(view.version.next(), change));
        let mut replicas: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        for (&id, log) in &disk.logs {
            let state = disk.states.get(&id).map(|state| &state[..]);
            let mut recovery = Recovery::begin(id, state);
            let from = recovery.from();
            for (at, bytes) in (1..).zip(log).skip(from.0 as usize - 1) {
                if !recovery.feed(EntryIndex(at), bytes.clone()) {
                    break;
                }
            }
            replicas.entry(shard_of(id, SHARDS)).or_default().push((recovery.finish(), Epoch(0)));
        }
        let node = (DiskId(1), Boot(disk.boot));
        let now = Now { since_start: Time(1), wall: WallTime(disk.wall) };
        let shard = |me| {
            let replicas = replicas.remove(&ShardId(me)).unwrap_or_default();
            let (me, shards, origin) = (ShardId(me), SHARDS, now);
            let seed = u64::from(me.0);
            Shard::recover(ShardSeed { me, shards, node, options, origin, replicas, seed })
        };
        let shards = (0..SHARDS).map(shard).collect();
        let (said, founds) = (registration(node.0, node.1), Some(ClusterId(2)));
        let shown = Arc::new(view.clone());
        let control = Control::recover(ControlSeed {
            said,
            founds,
            view: shown,
            origin: now,
            newest: WallTime(0),
        });
        let (unsynced, answers) = (VecDeque::new(), BTreeMap::new());
        let (next, subscribed) = (RequestId(0), BTreeMap::new());
        let mut node =
            Self { disk, now, control, shards, view, unsynced, next, answers, subscribed };
        node.control(ControlInput::Woke);
        node.control(ControlInput::Raft(RaftStatus::alone(NodeId(0), node.view.version)));
        node
    }

    pub(crate) fn control(&mut self, input: ControlInput) {
        let mut effects = Vec::new();
        self.control.handle(self.now, input, &mut effects);
        assert_eq!(self.control.check(), Ok(()));
        for effect in effects {
            match effect {
                ControlEffect::Propose(change) | ControlEffect::Decide(change) => {
                    self.unsynced.push_back(Unsynced::Change(change));
                }
                ControlEffect::Meet(view) => assert_eq!(view.check(), Ok(())),
                ControlEffect::Show(view) => {
                    assert_eq!(view.check(), Ok(()));
                    for shard in 0..SHARDS {
                        self.shard(ShardId(shard), ShardInput::Viewed(view.clone()));
                    }
                }
                ControlEffect::Reply { id, response } => {
                    self.subscribed.insert(id, response);
                }
                ControlEffect::Joined(_) | ControlEffect::Tell(_) => {}
                ControlEffect::Send { .. }
                | ControlEffect::AskShards { .. }
                | ControlEffect::Reconfigure(_)
                | ControlEffect::Halt(_) => panic!("a lone node does not {effect:?}"),
            }
        }
    }

    pub(crate) fn shard(&mut self, at: ShardId, input: ShardInput) {
        let mut effects = Vec::new();
        let shard = &mut self.shards[usize::from(at.0)];
        shard.handle(self.now, input, &mut effects);
        assert_eq!(shard.check(), Ok(()));
        for effect in effects {
            match effect {
                ShardEffect::Store(store) => {
                    self.unsynced.push_back(Unsynced::Store(at, store));
                }
                ShardEffect::Read { read, partition, from, below, count_max, .. } => {
                    let messages = self.disk.messages(partition, below);
                    let wanted = messages.filter(|record| record.header().offset >= from);
                    let result = Ok(wanted.take(count_max).collect());
                    self.shard(at, ShardInput::ReadDone { read, result });
                }
                ShardEffect::Seek { read, partition, at: time, below, .. } => {
                    let messages: Vec<_> = self.disk.messages(partition, below).collect();
                    let found = messages.iter().find(|record| record.header().time >= time);
                    let result = Ok(found.map(|record| record.header().offset));
                    self.shard(at, ShardInput::Sought { read, result });
                }
                ShardEffect::Erase { partition } => {
                    let of_it = |one: &Unsynced| match one {
                        Unsynced::Store(_, store) => store.partition == partition,
                        Unsynced::Change(_) => false,
                    };
                    self.unsynced.retain(|one| !of_it(one));
                    self.disk.logs.remove(&partition);
                    self.disk.states.remove(&partition);
                }
                ShardEffect::Send { to, message } => {
                    self.shard(to, ShardInput::Received { from: at, message });
                }
                ShardEffect::Reply { id, response } => {
                    assert!(self.answers.insert(id, response).is_none(), "two answers to {id}");
                }
                ShardEffect::Answer { .. }
                | ShardEffect::Call { .. }
                | ShardEffect::Tell { .. }
                | ShardEffect::Scan { .. } => {
                    panic!("a lone node has nobody to talk to: {effect:?}")
                }
                ShardEffect::Report(report) => {
                    self.control(ControlInput::Reported { from: at, report });
                }
            }
        }
    }

    /// Syncs one thing that was handed to the writer.
    pub(crate) fn sync_one(&mut self) {
        match self.unsynced.pop_front() {
            None => {}
            Some(Unsynced::Change(change)) => {
                self.disk.changes.push(change.clone());
                let index = ChangeIndex(self.disk.changes.len() as u64);
                self.view.apply(index, &change);
                let view = Arc::new(self.view.clone());
                self.control(ControlInput::Decided { index, change, view });
            }
            Some(Unsynced::Store(at, store)) => {
                let partition = store.partition;
                let log = self.disk.logs.entry(partition).or_default();
                for record in &store.records {
                    assert_eq!(record.header().index, EntryIndex(log.len() as u64 + 1));
                    log.push(record.bytes().clone());
                }
                if let Some(state) = store.checkpoint {
                    self.disk.states.insert(partition, state.bytes);
                }
                self.shard(at, ShardInput::Stored(vec![(partition, store.number)]));
            }
        }
    }

    pub(crate) fn sync(&mut self) {
        while !self.unsynced.is_empty() {
            self.sync_one();
        }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now.since_start = self.now.since_start + span;
        self.disk.wall += span.as_millis() as u64;
        for at in 0..SHARDS {
            let wakeup = self.shards[usize::from(at)].wakeup();
            if wakeup.is_some_and(|wakeup| wakeup <= self.now.since_start) {
                self.shard(ShardId(at), ShardInput::Woke);
            }
        }
        if self.control.wakeup().is_some_and(|wakeup| wakeup <= self.now.since_start) {
            self.control(ControlInput::Woke);
        }
    }

    pub(crate) fn request(&mut self, request: Request) -> RequestId {
        self.next = self.next.next();
        let id = self.next;
        let door = entry_shard(&self.view, SHARDS, &request);
        self.shard(door, ShardInput::Requested { id, request });
        id
    }

    pub(crate) fn publish(&mut self, id: &str) -> RequestId {
        self.publish_on(id, Terms::default())
    }

    pub(crate) fn publish_on(&mut self, id: &str, terms: Terms) -> RequestId {
        let draft = draft(id);
        self.request(Request::Publish(Submission {
            source: Source(1),
            topic: topic(),
            draft,
            terms,
        }))
    }

    /// Takes the power away: what was not synced is gone.
    pub(crate) fn crash(self) -> Node {
        Node::start(self.disk)
    }

    pub(crate) fn subscribe(&mut self) -> RequestId {
        self.subscribe_to(topic().into(), StartFrom::Earliest, DeliveryAsked::default())
    }

    /// Subscribes with an acknowledgement deadline of 5 s, where `delivery` says none.
    pub(crate) fn subscribe_to(
        &mut self,
        topics: TopicPattern,
        from: StartFrom,
        mut delivery: DeliveryAsked,
    ) -> RequestId {
        delivery.ack_wait.get_or_insert(Duration::from_secs(5));
        let (id, topics) = (subscription(), vec![topics]);
        self.ask_control(ControlRequest::Subscribe { id, topics, from, delivery })
    }

    pub(crate) fn ask_control(&mut self, request: ControlRequest) -> RequestId {
        self.next = self.next.next();
        self.control(ControlInput::Requested { id: self.next, request });
        self.next
    }

    pub(crate) fn pull(&mut self) -> Vec<(u64, u32, sprawl_core::broker::delivery::AckToken)> {
        let (subscription, wait) = (subscription(), Duration::ZERO);
        let id = self.request(Request::Pull { subscription, count_max: 10, wait });
        match self.answers.remove(&id) {
            Some(Response::Pulled(messages)) => messages
                .into_iter()
                .map(|message| {
                    let offset = message.record.header().offset.0;
                    (offset, message.token.attempt, message.token)
                })
                .collect(),
            other => panic!("a pull without wait is answered at once: {other:?}"),
        }
    }

    /// Reads what is there, without waiting.
    pub(crate) fn fetch(&mut self, from: Offset) -> Option<Response> {
        let (topic, partition, count_max, wait) = (topic(), 0, 10_000, Duration::ZERO);
        let from = FetchFrom::Offset(from);
        let id = self.request(Request::Fetch { topic, partition, from, count_max, wait });
        self.answers.remove(&id)
    }

    pub(crate) fn read_all(&mut self) -> Vec<String> {
        match self.fetch(Offset(0)) {
            Some(Response::Fetched { records, .. }) => records
                .iter()
                .map(|record| match record.body() {
                    Ok(Body::Message(draft)) => draft.envelope.id.to_string(),
                    other => panic!("a fetch gives messages: {other:?}"),
                })
                .collect(),
            Some(Response::Refused(Refused::NoTopic(_))) => Vec::new(),
            other => panic!("a fetch without wait is answered at once: {other:?}"),
        }
    }
}

/// A message of this id, with it as its payload.
pub(crate) fn draft(id: &str) -> Draft {
    let (key, content_type, headers) = (None, None, Vec::new());
    let envelope =
        Envelope { id: id.parse().expect("an id"), key, sequence: None, content_type, headers };
    Draft { envelope, payload: Bytes::from(id.to_owned()) }
}

pub(crate) fn topic() -> TopicName {
    "orders".parse().expect("a name")
}

pub(crate) fn subscription() -> SubscriptionId {
    "billing".parse().expect("a name")
}

pub(crate) fn published(response: Option<&Response>) -> Option<(u64, bool)> {
    match response {
        Some(Response::Published { offset, duplicate, .. }) => Some((offset.0, *duplicate)),
        _ => None,
    }
}
