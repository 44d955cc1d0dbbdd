//! The replicas of one partition on disks that lose what is not synced and a network that loses,
//! doubles and turns round, under metadata that are agreed on somewhere else.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sprawl_core::broker::replica::message::ReplicaMessage;
use sprawl_core::broker::replica::{
    Draft, Duty, Envelope, Images, Note, Record, Recovery, Replica, Replication, Scene, Terms,
    Thresholds,
};
use sprawl_core::cluster::controller::{Failover, Remedy};
use sprawl_core::cluster::message::{Complaint, LogEnds};
use sprawl_core::cluster::metadata::*;
use sprawl_core::cluster::topic::{Durability, TopicConfig};
use sprawl_core::ids::*;
use sprawl_core::machine::{Store, Time, Unreadable, WallTime};

use super::laws::Laws;
use crate::world::registration;

pub(crate) const PARTITION: PartitionId = PartitionId(1);
/// After how many entries a state is stored: often, so that recovery begins with one.
const CHECKPOINT_ENTRIES: u64 = 3;

/// How far apart messages are, in milliseconds: so that a block of retention ends with each, and
/// the dedup window forgets soon.
const APART: u64 = 50_000;
/// How many ids come again and again, whenever they have been forgotten.
const IDS: u64 = 4;
/// How many stores a copy has at most, before it is dropped and placed again.
const STORES_EACH: u64 = 1 << 20;

/// What a disk has synced.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) log: BTreeMap<u64, Bytes>,
    /// Where the log begins, if not with the first entry.
    pub(crate) begins: u64,
    /// The last entry of the state that it was given, if it was.
    given: u64,
    accepted: Epoch,
    state: Option<Bytes>,
}

impl Disk {
    fn write(&mut self, store: Store) {
        self.accepted = store.accepted.unwrap_or(self.accepted);
        if let Some(last) = store.cut_after {
            self.log.split_off(&(last.0 + 1));
        }
        if let Some(cut) = store.cut {
            self.begins = self.begins.max(cut.0);
        }
        for record in store.records {
            let index = record.header().index.0;
            let before = index - 1;
            let follows = index == self.begins.max(1)
                || before == self.given
                || self.log.contains_key(&before);
            assert!(follows, "entry {index} is written behind nothing");
            self.log.insert(index, record.bytes().clone());
        }
        if let Some(state) = store.checkpoint {
            if store.cut_after == Some(EntryIndex(0)) {
                self.given = state.applied.0;
            }
            self.state = Some(state.bytes);
        }
        self.log = self.log.split_off(&self.begins);
    }

    pub(crate) fn recover(&self) -> Replica {
        let mut recovery = Recovery::begin(PARTITION, self.state.as_deref());
        for (index, bytes) in self.log.range(recovery.from().0..) {
            recovery.feed(EntryIndex(*index), bytes.clone());
        }
        recovery.finish()
    }
}

/// A run of a node.
pub(crate) struct Run {
    pub(crate) replica: Replica,
    pub(crate) replication: Replication,
    images: Images,
}

/// A node, running or not.
pub(crate) struct Node {
    pub(crate) disk: DiskId,
    pub(crate) boot: Boot,
    pub(crate) hard: Disk,
    pub(crate) unsynced: VecDeque<Store>,
    pub(crate) run: Option<Run>,
    /// Whether its last run ended in order.
    clean: bool,
    pub(crate) view: View,
    /// How many copies the run has had.
    copies: u64,
    now: Time,
}

/// A message on its way.
#[derive(Clone)]
pub(crate) struct Packet {
    from: (DiskId, Boot),
    pub(crate) to: DiskId,
    message: ReplicaMessage,
}

/// A read of a disk that was asked for.
pub(crate) struct Reading {
    of: (DiskId, Boot),
    to: DiskId,
    from: EntryIndex,
}

/// All of it.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) packets: Vec<Packet>,
    pub(crate) reads: Vec<Reading>,
    /// So many reads from now on the disk does not do.
    pub(crate) failing_reads: usize,
    /// What is older than a state is not read for who was given that.
    pub(crate) withholds_older: bool,
    /// Of what this one says, nothing arrives but what it asks for.
    pub(crate) muted: Option<DiskId>,
    /// Nor what leaders say without entries: how far these are committed.
    pub(crate) loses_commits: bool,
    newest_first_bytes: u64,
    pub(crate) proposals: Vec<Change>,
    /// The metadata, as they are agreed on.
    pub(crate) view: View,
    pub(crate) laws: Laws,
    /// Who was found not to hold what it acknowledged.
    pub(crate) damaged: Vec<DiskId>,
    failover: Failover,
    /// The controller's time.
    clock: Time,
    published: u64,
}

impl Cluster {
    /// A partition of `replication` copies on the first of `count` nodes, all of which run.
    pub(crate) fn new(count: u128, replication: u32) -> Self {
        Self::kept(count, replication, Durability::Fsync)
    }

    /// The same, which acknowledges at this level.
    pub(crate) fn kept(count: u128, replication: u32, durability: Durability) -> Self {
        Self::with(count, replication, durability, u64::MAX)
    }

    /// The same, where new copies are given the newest first from so many bytes on.
    pub(crate) fn with(
        count: u128,
        replication: u32,
        durability: Durability,
        newest_first_bytes: u64,
    ) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            packets: Vec::new(),
            reads: Vec::new(),
            failing_reads: 0,
            withholds_older: false,
            muted: None,
            loses_commits: false,
            newest_first_bytes,
            proposals: Vec::new(),
            view: View::default(),
            laws: Laws::default(),
            damaged: Vec::new(),
            failover: Failover::default(),
            clock: Time(0),
            published: 0,
        };
        cluster.agree(&Change::Found { cluster: ClusterId(7) });
        for disk in (1..=count).map(DiskId) {
            let node = Node {
                disk,
                boot: Boot(0),
                hard: Disk::default(),
                unsynced: VecDeque::new(),
                run: None,
                clean: false,
                view: View::default(),
                copies: 0,
                now: Time(0),
            };
            cluster.nodes.push(node);
            cluster.restart(disk.0 as usize - 1);
        }
        cluster.agree(&Change::Raise { level: REPLICATION_LEVEL });
        let config = TopicConfig { replication, durability, ..TopicConfig::default() };
        let name = "t".parse().expect("a name");
        cluster.agree(&Change::CreateTopic { name, config });
        cluster
    }

    fn is_lost(&self, from: DiskId, message: &ReplicaMessage) -> bool {
        let says_commit = if let ReplicaMessage::Append { records, .. } = message {
            records.is_empty()
        } else {
            false
        };
        let asks = matches!(message, ReplicaMessage::Lacks { .. });
        self.muted == Some(from) && !asks || self.loses_commits && says_commit
    }

    pub(crate) fn partition(&self) -> Partition {
        Partition::clone(&self.view.partitions[&PARTITION])
    }

    /// A change is agreed on; nodes see it when they are shown it.
    pub(crate) fn agree(&mut self, change: &Change) {
        self.view.apply(self.view.version.next(), change);
        assert_eq!(self.view.check(), Ok(()), "after {change:?}");
    }

    pub(crate) fn position(&self, disk: DiskId) -> usize {
        disk.0 as usize - 1
    }

    /// Lets a node's replica do something, and does what it wants done.
    pub(crate) fn act(&mut self, at: usize, how: impl FnOnce(&mut Replication, &mut Scene<'_>)) {
        let node = &mut self.nodes[at];
        let Some(run) = &mut node.run else { return };
        let mut duties = Vec::new();
        let (now, view) = (node.now, &node.view);
        let (replica, images) = (&mut run.replica, &mut run.images);
        let mut scene = Scene { now, view, replica, duties: &mut duties, images };
        how(&mut run.replication, &mut scene);
        if run.replication.leads() {
            run.replica.apply_to(run.replication.commit());
        }
        assert_eq!(run.replication.check(&run.replica), Ok(()), "on node {}", node.disk);
        let from = (node.disk, node.boot);
        for duty in duties {
            match duty {
                Duty::Send { ref message, .. } if self.is_lost(from.0, message) => {}
                Duty::Send { to, message, .. } => self.packets.push(Packet { from, to, message }),
                Duty::Store(store) => {
                    self.laws.written(&store);
                    self.nodes[at].unsynced.push_back(store);
                }
                Duty::Read { is_older: true, .. } if self.withholds_older => {}
                Duty::Read { to, from: first, .. } => {
                    self.reads.push(Reading { of: from, to, from: first });
                }
                Duty::Propose(adjustment) => {
                    self.proposals.push(Change::Adjust { by: from, adjustments: vec![adjustment] });
                }
                Duty::Complain(Complaint::Slow { partition, epoch }) => {
                    self.failover.complain(from.0, partition, epoch);
                }
                Duty::Complain(Complaint::Damaged { member, .. }) => self.damaged.push(member),
            }
        }
    }

    /// A read that was asked for ends, if the run that asked goes on.
    pub(crate) fn read(&mut self, at: usize) {
        let Reading { of, to, from } = self.reads.swap_remove(at);
        let node = self.position(of.0);
        if self.nodes[node].boot != of.1 {
            return;
        }
        let log = &self.nodes[node].hard.log;
        let records = log.range(from.0..).take(2).map(|(_, bytes)| {
            Record::open(PARTITION, bytes.clone()).expect("the disk keeps what it has")
        });
        let (partition, index, reason) = (PARTITION, EntryIndex(0), "busy".to_owned());
        let records = match self.failing_reads.checked_sub(1) {
            Some(left) => {
                self.failing_reads = left;
                Err(Unreadable { partition, index, reason })
            }
            None => Ok(records.collect()),
        };
        self.act(node, |replication, scene| replication.read_done((to, from), records, scene));
    }

    /// A packet arrives, once or again.
    pub(crate) fn deliver(&mut self, at: usize, stays: bool) {
        let packet = match stays {
            true => self.packets[at].clone(),
            false => self.packets.remove(at),
        };
        let Packet { from, to, message } = packet;
        let to = self.position(to);
        if !self.has_copy(to) {
            return;
        }
        self.act(to, |replication, scene| replication.received(from, message, scene));
    }

    /// What is on its way from one node to another.
    pub(crate) fn said_to(&self, to: DiskId, from: DiskId) -> Vec<Packet> {
        let packets = self.packets.iter().filter(|packet| packet.to == to);
        packets.filter(|packet| packet.from.0 == from).cloned().collect()
    }

    /// The first `count` stores of a node are synced; it hears of it, if it runs.
    pub(crate) fn sync(&mut self, at: usize, count: usize) {
        let node = &mut self.nodes[at];
        let count = count.min(node.unsynced.len());
        let mut number = None;
        for store in node.unsynced.drain(..count) {
            number = Some(store.number);
            node.hard.write(store);
        }
        if let Some(number) = number {
            self.act(at, |replication, scene| replication.stored(number, scene));
        }
    }

    /// A node dies; `synced` stores of it were synced, and nobody was told.
    pub(crate) fn crash(&mut self, at: usize, synced: usize) {
        (self.nodes[at].run, self.nodes[at].clean) = (None, false);
        self.sync(at, synced);
        self.nodes[at].unsynced.clear();
    }

    /// A node ends in order: all that it was given is synced.
    pub(crate) fn stop(&mut self, at: usize) {
        if self.nodes[at].run.is_some() {
            self.crash(at, usize::MAX);
            self.nodes[at].clean = true;
        }
    }

    /// A node starts, and registers before it does anything.
    pub(crate) fn restart(&mut self, at: usize) {
        if self.nodes[at].run.is_some() {
            self.crash(at, 0);
        }
        let node = &mut self.nodes[at];
        node.boot = node.boot.next();
        let (level, clean) = (REPLICATION_LEVEL, std::mem::take(&mut node.clean));
        let said = Registration { level, clean, ..registration(node.disk, node.boot) };
        self.agree(&Change::Register(said));
        let node = &mut self.nodes[at];
        let replica = node.hard.recover();
        assert_eq!(replica.damaged(), None, "on node {}", node.disk);
        node.copies = 0;
        self.live_here(at, replica);
        self.show(at);
    }

    /// A copy comes to live on a node.
    fn live_here(&mut self, at: usize, replica: Replica) {
        let node = &mut self.nodes[at];
        let (me, accepted) = ((node.disk, node.boot), node.hard.accepted);
        let first = 1 + node.copies * STORES_EACH;
        node.copies += 1;
        let (checkpoint_entries, newest_first_bytes) =
            (CHECKPOINT_ENTRIES, self.newest_first_bytes);
        let (older_bytes, older_rate) = (1, None);
        let thresholds =
            Thresholds { checkpoint_entries, newest_first_bytes, older_bytes, older_rate };
        let replication = Replication::new(me, &replica, accepted, thresholds, first);
        node.run = Some(Run { replica, replication, images: Images::default() });
    }

    /// Whether a node is to have a copy, as far as it knows.
    fn has_copy(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let partition = node.view.partitions.get(&PARTITION);
        partition.is_none_or(|partition| partition.replicas.contains(&node.disk))
    }

    /// A copy that is not wanted any more is erased.
    fn erase(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.hard, node.unsynced) = (Disk::default(), VecDeque::new());
        self.reads.retain(|read| read.of.0 != node.disk);
        let (disk, boot) = (node.disk, node.boot);
        self.laws.erased((disk, boot));
        self.live_here(at, Recovery::begin(PARTITION, None).finish());
    }

    /// A node sees what is agreed on by now.
    pub(crate) fn show(&mut self, at: usize) {
        self.nodes[at].view = self.view.clone();
        if self.nodes[at].run.is_some() && !self.has_copy(at) {
            return self.erase(at);
        }
        self.act(at, |replication, scene| replication.adopt(WallTime(1), scene));
    }

    /// Time passes on a node.
    pub(crate) fn pass(&mut self, at: usize, span: Duration) {
        let node = &mut self.nodes[at];
        node.now = node.now + span;
        let now = node.now;
        let wakes = |run: &Run| run.replication.wakeup(now, &run.replica);
        if node.run.as_ref().and_then(wakes).is_some_and(|at| at <= now) {
            self.act(at, Replication::woke);
        }
    }

    /// The controller looks at what there is to do, and is told that these are silent. Of those
    /// whom it asks, those answer that `hears` lets; what it decides is on its way then.
    pub(crate) fn govern(
        &mut self,
        silent: &[usize],
        span: Duration,
        hears: impl Fn(usize) -> bool,
    ) {
        self.clock = self.clock + span;
        let runs = silent.iter().map(|at| (self.nodes[*at].disk, self.nodes[*at].boot));
        self.failover.fail(runs.collect::<Vec<_>>());
        let mut remedies = Vec::new();
        let time = WallTime(self.clock.0 / 1_000);
        self.failover.decide(&self.view, self.clock, time, &mut remedies);
        assert_eq!(self.failover.check(), Ok(()));
        for remedy in remedies {
            match remedy {
                Remedy::Ask { to, ask } => {
                    let at = self.position(to);
                    let run = self.nodes[at].run.as_ref().filter(|_| hears(at));
                    let Some(run) = run else { continue };
                    let end = run.replication.log_end(&run.replica);
                    let ends = vec![(PARTITION, end)];
                    self.failover.heard(to, LogEnds { number: ask.number, ends });
                }
                Remedy::Decide(change) => {
                    if let Change::Fail { rulings, .. } | Change::Rule { rulings } = &change {
                        let lost = rulings.iter().find(|ruling| !ruling.lost.is_empty());
                        assert_eq!(lost, None, "nothing was lost");
                    }
                    self.proposals.push(change);
                }
            }
        }
    }

    /// Whoever leads on a node removes what is older than the newest `stay` messages, when the
    /// window has just forgotten the last one.
    pub(crate) fn trim(&mut self, at: usize, stay: u64) {
        let below = Offset(self.published.saturating_sub(stay));
        self.published += IDS - 1;
        let time = WallTime(APART * self.published);
        self.act(at, |replication, scene| {
            if replication.leads() {
                let record = scene.replica.append_note(Note::Trim { below }, time);
                replication.appended(vec![record], scene);
            }
        });
    }

    /// A client publishes on a node; nothing happens unless that leads, as far as it knows.
    pub(crate) fn publish(&mut self, at: usize) -> Option<EntryIndex> {
        let parse = |text: String| text.parse::<MessageId>().expect("an id");
        let (again, new) =
            (parse(format!("m{}", self.published % IDS)), parse(format!("n{}", self.published)));
        self.published += 1;
        let time = WallTime(APART * self.published);
        let mut index = None;
        self.act(at, |replication, scene| {
            if !replication.leads() {
                return;
            }
            // What is remembered would not be stored again.
            let id = if scene.replica.remembers(again.hash()) { new } else { again };
            let (hash, key, sequence) = (id.hash(), None, None);
            let (content_type, headers) = (None, Vec::new());
            let envelope = Envelope { id, key, sequence, content_type, headers };
            let draft = Draft { envelope, payload: Bytes::from_static(b"payload") };
            let (terms, mut room) = (Terms::default(), BytesMut::new());
            let record = scene.replica.append_message(draft, hash, &terms, None, time, &mut room);
            index = Some(record.header().index);
            replication.appended(vec![record], scene);
        });
        index
    }
}
