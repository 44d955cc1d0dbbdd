//! A whole node of pure machines on a disk of lists: what was acknowledged survives any crash.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sprawl_core::broker::replica::{Body, Draft, Envelope, Recovery};
use sprawl_core::broker::{Shard, ShardOptions, ShardSeed};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::metadata::{Change, StartFrom, View};
use sprawl_core::ids::*;
use sprawl_core::machine::*;
use sprawl_core::node::{entry_shard, shard_of};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/lone_node.txt");
const SHARDS: u16 = 2;

/// What survives: the logs, the states, the metadata log.
#[derive(Default)]
struct Disk {
    boot: u64,
    logs: BTreeMap<PartitionId, Vec<Bytes>>,
    states: BTreeMap<PartitionId, Bytes>,
    changes: Vec<Change>,
}

/// Something handed to the writer and not yet synced.
enum Unsynced {
    Append(ShardId, Append),
    Change(Change),
}

/// A running node.
struct Node {
    disk: Disk,
    now: Now,
    control: Control,
    shards: Vec<Shard>,
    unsynced: VecDeque<Unsynced>,
    next: RequestId,
    answers: BTreeMap<RequestId, Response>,
    subscribed: BTreeMap<RequestId, ControlResponse>,
}

impl Node {
    fn start(mut disk: Disk) -> Self {
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
            replicas.entry(shard_of(id, SHARDS)).or_default().push(recovery.finish());
        }
        let node = (DiskId(1), Boot(disk.boot));
        let now = Now { since_start: Time(1), wall: WallTime(1_000_000) };
        let shard = |me| {
            let replicas = replicas.remove(&ShardId(me)).unwrap_or_default();
            let options = ShardOptions { checkpoint_entries: 7, ..ShardOptions::default() };
            let (me, shards, origin) = (ShardId(me), SHARDS, now);
            Shard::recover(ShardSeed { me, shards, node, options, origin, replicas })
        };
        let shards = (0..SHARDS).map(shard).collect();
        let (boot, name, cluster) = (node.1, "node".to_owned(), ClusterId(2));
        let control = Control::recover(ControlSeed { disk: node.0, boot, name, cluster, view });
        let (unsynced, answers) = (VecDeque::new(), BTreeMap::new());
        let (next, subscribed) = (RequestId(0), BTreeMap::new());
        let mut node = Self { disk, now, control, shards, unsynced, next, answers, subscribed };
        node.control(ControlInput::Woke);
        node.sync();
        node
    }

    fn control(&mut self, input: ControlInput) {
        let mut effects = Vec::new();
        self.control.handle(self.now, input, &mut effects);
        assert_eq!(self.control.check(), Ok(()));
        for effect in effects {
            match effect {
                ControlEffect::Propose(change) => {
                    self.unsynced.push_back(Unsynced::Change(change));
                }
                ControlEffect::Show(view) => {
                    for shard in 0..SHARDS {
                        self.shard(ShardId(shard), ShardInput::Viewed(view.clone()));
                    }
                }
                ControlEffect::Reply { id, response } => {
                    self.subscribed.insert(id, response);
                }
            }
        }
    }

    fn shard(&mut self, at: ShardId, input: ShardInput) {
        let mut effects = Vec::new();
        let shard = &mut self.shards[usize::from(at.0)];
        shard.handle(self.now, input, &mut effects);
        assert_eq!(shard.check(), Ok(()));
        for effect in effects {
            match effect {
                ShardEffect::Append(append) => {
                    self.unsynced.push_back(Unsynced::Append(at, append));
                }
                ShardEffect::Read { read, partition, from, below, count_max, .. } => {
                    let log = self.disk.logs.get(&partition).map_or(&[][..], |log| log);
                    let open = |bytes: &Bytes| {
                        sprawl_core::broker::replica::Record::open(partition, bytes.clone())
                    };
                    let readable = log.iter().take(below.0 as usize - 1);
                    let records = readable.map(|bytes| open(bytes).expect("it was written"));
                    let wanted = records.filter(|record| {
                        record.header().is_message && record.header().offset >= from
                    });
                    let result = Ok(wanted.take(count_max).collect());
                    self.shard(at, ShardInput::ReadDone { read, result });
                }
                ShardEffect::Send { to, message } => {
                    self.shard(to, ShardInput::Received { from: at, message });
                }
                ShardEffect::Reply { id, response } => {
                    assert!(self.answers.insert(id, response).is_none(), "two answers to {id}");
                }
                ShardEffect::Report(report) => {
                    self.control(ControlInput::Reported { from: at, report });
                }
            }
        }
    }

    /// Syncs one thing that was handed to the writer.
    fn sync_one(&mut self) {
        match self.unsynced.pop_front() {
            None => {}
            Some(Unsynced::Change(change)) => {
                self.disk.changes.push(change.clone());
                let index = ChangeIndex(self.disk.changes.len() as u64);
                self.control(ControlInput::Decided { index, change });
            }
            Some(Unsynced::Append(at, append)) => {
                let partition = append.partition;
                let log = self.disk.logs.entry(partition).or_default();
                for record in &append.records {
                    assert_eq!(record.header().index, EntryIndex(log.len() as u64 + 1));
                    log.push(record.bytes().clone());
                }
                if let Some(state) = append.checkpoint {
                    self.disk.states.insert(partition, state.bytes);
                }
                let index = EntryIndex(log.len() as u64);
                self.shard(at, ShardInput::Persisted { partition, index });
            }
        }
    }

    fn sync(&mut self) {
        while !self.unsynced.is_empty() {
            self.sync_one();
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now.since_start = self.now.since_start + span;
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

    fn request(&mut self, request: Request) -> RequestId {
        self.next = self.next.next();
        let mut view = View::default();
        self.disk.changes.iter().for_each(|change| view.apply(view.version.next(), change));
        let id = self.next;
        let door = entry_shard(&view, SHARDS, &request);
        self.shard(door, ShardInput::Requested { id, request });
        id
    }

    fn publish(&mut self, id: &str) -> RequestId {
        let envelope = Envelope {
            id: id.parse().expect("an id"),
            key: None,
            content_type: None,
            headers: Vec::new(),
        };
        let draft = Draft { envelope, payload: Bytes::from(id.to_owned()) };
        self.request(Request::Publish { topic: topic(), draft })
    }

    /// Takes the power away: what was not synced is gone.
    fn crash(self) -> Node {
        Node::start(self.disk)
    }

    fn subscribe(&mut self) -> RequestId {
        self.next = self.next.next();
        let request = ControlRequest::Subscribe {
            id: subscription(),
            topics: vec![topic()],
            from: StartFrom::Earliest,
            ack_wait: Duration::from_secs(5),
        };
        self.control(ControlInput::Requested { id: self.next, request });
        self.next
    }

    fn pull(&mut self) -> Vec<(u64, u32, sprawl_core::broker::delivery::AckToken)> {
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
    fn fetch(&mut self, from: Offset) -> Option<Response> {
        let (topic, partition, count_max, wait) = (topic(), 0, 10_000, Duration::ZERO);
        let id = self.request(Request::Fetch { topic, partition, from, count_max, wait });
        self.answers.remove(&id)
    }

    fn read_all(&mut self) -> Vec<String> {
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

fn topic() -> TopicName {
    "orders".parse().expect("a name")
}

fn subscription() -> SubscriptionId {
    "billing".parse().expect("a name")
}

fn published(response: Option<&Response>) -> Option<(u64, bool)> {
    match response {
        Some(Response::Published { offset, duplicate, .. }) => Some((offset.0, *duplicate)),
        _ => None,
    }
}

#[test]
fn nothing_is_acknowledged_before_the_disk_has_it() {
    let mut node = Node::start(Disk::default());
    let first = node.publish("a");
    while !node.unsynced.is_empty() {
        assert!(!node.answers.contains_key(&first), "{:?}", node.answers);
        node.sync_one();
    }
    assert_eq!(published(node.answers.get(&first)), Some((0, false)));
}

#[test]
fn a_repeat_of_an_id_under_way_waits_and_answers_with_the_first_ones_offset() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    let (first, repeat) = (node.publish("b"), node.publish("b"));
    assert!(!node.answers.contains_key(&first) && !node.answers.contains_key(&repeat));
    node.sync();
    assert_eq!(published(node.answers.get(&first)), Some((1, false)));
    assert_eq!(published(node.answers.get(&repeat)), Some((1, true)));
    let again = node.publish("b");
    assert_eq!(published(node.answers.get(&again)), Some((1, true)));
}

#[test]
fn a_full_disk_refuses_what_is_new_and_answers_what_is_known() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    (0..SHARDS).for_each(|at| node.shard(ShardId(at), ShardInput::DiskSpace(DiskSpace::Full)));
    let (known, new) = (node.publish("a"), node.publish("b"));
    assert_eq!(published(node.answers.get(&known)), Some((0, true)));
    let refused = node.answers.get(&new);
    assert!(matches!(refused, Some(Response::Refused(Refused::DiskFull))), "{refused:?}");
    assert_eq!(node.read_all(), ["a"]);
}

#[test]
fn after_a_failed_sync_nothing_is_answered() {
    let mut node = Node::start(Disk::default());
    node.publish("a");
    node.sync();
    (0..SHARDS).for_each(|at| node.shard(ShardId(at), ShardInput::DiskFailed));
    let id = node.publish("a");
    assert!(!node.answers.contains_key(&id));
}

#[test]
fn a_reader_of_a_damaged_log_is_not_told_that_it_saw_the_end() {
    let mut node = Node::start(Disk::default());
    (0..10).for_each(|number| {
        node.publish(&format!("m-{number}"));
        node.sync();
    });
    let log = node.disk.logs.values_mut().next().expect("a partition");
    let last = log.pop().expect("an entry");
    let mut flipped = last.to_vec();
    *flipped.last_mut().expect("a byte") ^= 1;
    log.push(Bytes::from(flipped));
    let damaged = EntryIndex(log.len() as u64);
    let mut node = node.crash();
    let Some(Response::Fetched { records, next, end, .. }) = node.fetch(Offset(0)) else {
        panic!("what the stored state covers is served");
    };
    assert_eq!((records.len() as u64, end), (next.0, next.next()));
    assert!(next > Offset(0));
    match node.fetch(next) {
        Some(Response::Refused(Refused::Damaged(damage))) => {
            assert_eq!(damage.index, damaged);
        }
        other => panic!("the damaged entry is named: {other:?}"),
    }
}

#[test]
fn an_unacknowledged_message_comes_again_and_an_acknowledged_one_does_not() {
    let mut node = Node::start(Disk::default());
    ["a", "b", "c"].iter().for_each(|id| {
        node.publish(id);
    });
    let asked = node.subscribe();
    assert!(!node.subscribed.contains_key(&asked), "the cursor is fixed before the answer");
    node.sync();
    let topics = vec![topic()];
    assert_eq!(node.subscribed.get(&asked), Some(&ControlResponse::Subscribed { topics }));

    let first = node.pull();
    assert_eq!(first.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(node.pull(), []);
    let (tokens, subscription) = (vec![first[0].2, first[2].2], subscription());
    let id = node.request(Request::Acknowledge { subscription, tokens });
    let answer = node.answers.get(&id);
    assert!(matches!(answer, Some(Response::Acknowledged { acked: 2, .. })), "{answer:?}");

    node.pass(Duration::from_secs(6));
    assert_eq!(node.pull(), [], "the attempt is committed before it is delivered");
    node.sync();
    let again = node.pull();
    assert_eq!(again.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(1, 2)]);

    let mut node = node.crash();
    let after = node.pull();
    assert_eq!(after.iter().map(|&(o, n, _)| (o, n)).collect::<Vec<_>>(), [(1, 2)]);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    SyncOne,
    Sync,
    Pass(u16),
    PullAndAcknowledge,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..40).prop_map(Step::Publish),
        6 => Just(Step::SyncOne),
        2 => Just(Step::Sync),
        2 => (0u16..9_000).prop_map(Step::Pass),
        2 => Just(Step::PullAndAcknowledge),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..Config::default()
    })]

    /// Whatever happens: an acknowledged id stands once, at the offset that was told.
    #[test]
    fn an_acknowledged_message_stands_once_at_its_offset(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut node = Node::start(Disk::default());
        let mut asked: BTreeMap<RequestId, String> = BTreeMap::new();
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        node.subscribe();
        for step in steps {
            match step {
                Step::Publish(id) => {
                    let id = format!("m{id}");
                    asked.insert(node.publish(&id), id);
                }
                Step::SyncOne => node.sync_one(),
                Step::Sync => node.sync(),
                Step::Pass(millis) => node.pass(Duration::from_millis(millis.into())),
                Step::PullAndAcknowledge => {
                    let id = subscription();
                    let known = node.disk.changes.iter().any(
                        |change| matches!(change, Change::Subscribe { .. }));
                    if known {
                        let tokens = node.pull().into_iter().map(|(.., token)| token).collect();
                        node.request(Request::Acknowledge { subscription: id, tokens });
                    }
                }
                Step::Crash => {
                    node = node.crash();
                    asked.clear();
                }
            }
            for (id, response) in std::mem::take(&mut node.answers) {
                let offset = published(Some(&response)).map(|(offset, _)| offset);
                if let (Some(id), Some(offset)) = (asked.remove(&id), offset) {
                    let before = *told.entry(id.clone()).or_insert(offset);
                    prop_assert_eq!(before, offset, "{} moved", id);
                }
            }
        }
        node.sync();
        let all = node.read_all();
        for (id, offset) in &told {
            prop_assert_eq!(all.get(*offset as usize), Some(id));
        }
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len(), "an id stands twice: {:?}", all);
    }
}
