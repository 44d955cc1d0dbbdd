//! One shard of a node: the partitions that live in it, and the requests that come to its door.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::admission::Admission;
use super::desk::{Bench, Desk, Reading, ShardOptions};
use super::partition::Partition;
use super::pulls::Watchers;
use super::replica::message::ReplicaMessage;
use super::replica::{Evicted, Replica, Replication};
use super::routing::errands::Errands;
use super::routing::{Place, Routes};
use crate::cluster::message::{AskLogEnds, LogEnds};
use crate::cluster::metadata::{self, View};
use crate::cluster::subscription::Subscription;
use crate::ids::{Boot, DiskId, Epoch, Offset, PartitionId, ReadId, ShardId, SubscriptionId};
use crate::machine::{
    Broken, Digest, DiskSpace, Machine, Message, Now, Refused, Report, Response, ShardEffect,
    ShardInput, ShardStatus, Time, Unreadable,
};
use crate::node::shard_of;
use crate::zoo::{Bug, planted};

/// What a shard is made from.
#[derive(Debug)]
pub struct ShardSeed {
    /// Which one of the node's shards it is.
    pub me: ShardId,
    /// How many shards the node has.
    pub shards: u16,
    /// The node, and this run of it.
    pub node: (DiskId, Boot),
    /// How much it takes on.
    pub options: ShardOptions,
    /// Both clocks at the node's start: cluster time goes on from there by the monotone one.
    pub origin: Now,
    /// The partitions of this shard that the disk holds, each with the highest epoch that it has
    /// accepted.
    pub replicas: Vec<(Replica, Epoch)>,
    /// What its draws come from: how long it pauses before it asks another node again.
    pub seed: u64,
}

/// How many entries that are under way are passed over at most in looking for some to evict.
const PASSED_MAX: usize = 64;
/// How many stores a partition has at most while it lives here.
const STORES_EACH: u64 = 1 << 40;
/// How many partitions that no view has shown yet are remembered that leaders asked about.
const EARLY_MAX: usize = 4_096;

/// A shard: a machine that shares nothing with its siblings but the view.
#[derive(Debug)]
pub struct Shard {
    pub(super) me: ShardId,
    pub(super) shards: u16,
    pub(super) node: (DiskId, Boot),
    pub(super) view: Arc<View>,
    /// Each in memory of its own: a node of the tree that is half full is not large then.
    pub(super) partitions: BTreeMap<PartitionId, Box<Partition>>,
    /// What the disk holds of partitions that no view has shown yet.
    recovered: BTreeMap<PartitionId, (Replica, Epoch)>,
    /// How many partitions have come to live here in this run.
    births: u64,
    /// What leaders asked of partitions that no view has shown yet.
    early: BTreeMap<PartitionId, ((DiskId, Boot), ReplicaMessage)>,
    pub(super) routes: Routes,
    pub(super) errands: Errands,
    pub(super) watchers: Watchers,
    pub(super) bench: Bench,
    pub(super) admission: Admission,
    timers: Timers,
    /// A sync failed: nothing is done any more.
    failed: bool,
}

/// When to wake which partition.
///
/// What a partition waits for is put off and called off with each message, so a timer is moved only
/// to an earlier time: one that goes off too early finds nothing due, and is set anew.
#[derive(Debug, Default)]
struct Timers(BTreeSet<(Time, PartitionId)>);

impl Timers {
    /// Makes sure that a partition is woken at this time, or before.
    fn arm(&mut self, partition: PartitionId, set: &mut Option<Time>, at: Option<Time>) {
        let Some(at) = at.filter(|&at| set.is_none_or(|set| at < set)) else { return };
        self.disarm(partition, set.replace(at));
        self.0.insert((at, partition));
    }

    fn disarm(&mut self, partition: PartitionId, set: Option<Time>) {
        set.map(|set| self.0.remove(&(set, partition)));
    }

    /// The partitions that are to be woken by now; their timers are not set any more.
    fn due(&mut self, now: Time) -> Vec<PartitionId> {
        let later = self.0.split_off(&(Time(now.0 + 1), PartitionId(0)));
        std::mem::replace(&mut self.0, later).into_iter().map(|(_, id)| id).collect()
    }
}

impl Shard {
    /// A shard as the disk left it; it leads nothing before a view says so.
    #[must_use]
    pub fn recover(seed: ShardSeed) -> Self {
        let ShardSeed { me, shards, node, options, origin, replicas, seed } = seed;
        let recovered = replicas.into_iter().map(|held| (held.0.id(), held)).collect();
        let admission = Admission::new(&options, format!("{}-{}-{}", node.0, node.1, me.0));
        Self {
            me,
            shards,
            node,
            admission,
            view: Arc::default(),
            partitions: BTreeMap::new(),
            recovered,
            births: 0,
            early: BTreeMap::new(),
            routes: Routes::default(),
            errands: Errands::new(seed),
            watchers: Watchers::default(),
            bench: Bench::new(options, origin),
            timers: Timers::default(),
            failed: false,
        }
    }

    /// Works on one partition; `None` when it does not live here.
    pub(super) fn on<R>(
        &mut self,
        id: PartitionId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
        work: impl FnOnce(&mut Partition, &mut Desk<'_>) -> R,
    ) -> Option<R> {
        let partition = self.partitions.get_mut(&id)?;
        let mut desk = self.bench.desk(now, effects);
        let result = work(partition, &mut desk);
        let (disk, clock) = (self.bench.disk, self.bench.clock);
        let wakeup = partition.wakeup(now.since_start, disk, &clock);
        self.timers.arm(id, &mut partition.timer, wakeup);
        for (subscription, has_some) in partition.refresh() {
            self.watchers.note(subscription, id, has_some);
        }
        Some(result)
    }

    fn adopt_view(&mut self, view: Arc<View>, now: Now, effects: &mut Vec<ShardEffect>) {
        let old = std::mem::replace(&mut self.view, view);
        let view = self.view.clone();
        self.bench.view = view.clone();
        let registered =
            |view: &View| view.nodes.get(&self.node.0).is_some_and(|node| node.boot == self.node.1);
        if !registered(&view) {
            return;
        }
        // The first view under this boot is compared with nothing, so that all of it is new.
        let old = if registered(&old) { old } else { Arc::default() };
        let (mut moved, somebody_waits) = (BTreeSet::new(), !self.routes.pulls.is_empty());
        for item in old.partitions.diff(&view.partitions) {
            match &item {
                DiffItem::Update { old: (_, old), new: (_, new) } if old.leader == new.leader => {}
                DiffItem::Add(_, partition) | DiffItem::Update { new: (_, partition), .. }
                    if somebody_waits =>
                {
                    moved.insert(partition.topic.clone());
                }
                DiffItem::Add(..) | DiffItem::Update { .. } | DiffItem::Remove(..) => {}
            }
            match item {
                DiffItem::Add(_, partition) | DiffItem::Update { new: (_, partition), .. } => {
                    self.adopt_partition(partition, now, effects);
                }
                DiffItem::Remove(_, partition) => self.dissolve(partition.id, now, effects),
            }
        }
        for id in self.neighbours_changed(&old) {
            let partition = view.partitions[&id].clone();
            self.adopt_partition(&partition, now, effects);
        }
        self.erase_orphans(effects);
        self.early.retain(|id, _| !view.has_known(*id) || view.partitions.contains_key(id));
        for item in old.subscriptions.diff(&view.subscriptions) {
            match item {
                DiffItem::Add(id, _) => self.fix_cursors(id, now, effects),
                DiffItem::Update { old: (_, old), new: (id, new) } => {
                    // Topics that came are fixed with their partitions; nothing else changes in a
                    // subscription of the same birth.
                    if old.created != new.created {
                        self.drop_cursors(id, old, now, effects);
                        self.fix_cursors(id, now, effects);
                    }
                }
                DiffItem::Remove(id, old) => self.drop_cursors(id, old, now, effects),
            }
        }
        // Who has started anew, or was heard of again, is asked at once.
        let breakers = &mut self.errands.breakers;
        breakers.retain(|disk| match (old.nodes.get(disk), view.nodes.get(disk)) {
            (Some(old), Some(new)) => {
                (old.run, old.boot, old.down) == (new.run, new.boot, new.down)
            }
            (None, _) | (Some(_), None) => false,
        });
        self.look_again(&moved, now, effects);
        self.retry_wanting(now, effects);
    }

    fn adopt_partition(
        &mut self,
        partition: &Arc<metadata::Partition>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let (id, node) = (partition.id, self.node);
        if shard_of(id, self.shards) != self.me {
            return;
        }
        if !partition.replicas.contains(&node.0) {
            // Its copy is not wanted any more.
            return self.dissolve(id, now, effects);
        }
        self.partitions.entry(id).or_insert_with(|| {
            let empty = || (Replica::empty(id), Epoch(0));
            let (replica, accepted) = self.recovered.remove(&id).unwrap_or_else(empty);
            let thresholds = self.bench.options.thresholds();
            self.births += 1;
            let first = self.births * STORES_EACH;
            let replication = Replication::new(node, &replica, accepted, thresholds, first);
            Box::new(Partition::new(partition.clone(), replica, replication))
        });
        let view = self.view.clone();
        let early = self.early.remove(&id);
        self.on(id, now, effects, |held, desk| {
            held.adopt(partition.clone(), node, desk);
            let ids = view.subscribers.get(&partition.topic);
            let subscriptions = ids.into_iter().flat_map(|ids| ids.iter());
            for subscription in subscriptions.filter_map(|id| view.subscriptions.get(id)) {
                held.fix_cursor(subscription, desk);
            }
            if let Some((from, message)) = early {
                held.received(from, message, desk);
            }
        });
    }

    /// The partitions here of which a node holds a copy that has come, gone, or begun a new run.
    fn neighbours_changed(&self, old: &View) -> BTreeSet<PartitionId> {
        let nodes = old.nodes.diff(&self.view.nodes).map(|item| match item {
            DiffItem::Add(disk, _) | DiffItem::Remove(disk, _) => *disk,
            DiffItem::Update { new: (disk, _), .. } => *disk,
        });
        let held = nodes.flat_map(|disk| self.view.held_by(disk));
        held.map(|held| held.id).filter(|id| self.partitions.contains_key(id)).collect()
    }

    /// The replicas of another node say something to those of this shard.
    fn replicated(
        &mut self,
        from: (DiskId, Boot),
        messages: Vec<(PartitionId, ReplicaMessage)>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        for (partition, message) in messages {
            if self.partitions.contains_key(&partition) {
                self.on(partition, now, effects, |held, desk| held.received(from, message, desk));
            } else if matches!(message, ReplicaMessage::Match { .. })
                && self.early.len() < EARLY_MAX
            {
                // The leader has seen a newer view.
                self.early.insert(partition, (from, message));
            }
        }
    }

    /// Tells the controller what logs end with.
    fn tell_log_ends(&self, asker: DiskId, ask: &AskLogEnds, effects: &mut Vec<ShardEffect>) {
        let held = ask.partitions.iter().filter_map(|id| Some((*id, self.partitions.get(id)?)));
        let ends: Vec<_> = held.map(|(id, held)| (id, held.log_end())).collect();
        if !ends.is_empty() {
            let ends = LogEnds { number: ask.number, ends };
            effects.push(ShardEffect::Report(Report::LogEnds { asker, ends }));
        }
    }

    fn fix_cursors(&mut self, id: &SubscriptionId, now: Now, effects: &mut Vec<ShardEffect>) {
        let view = self.view.clone();
        let Some(subscription) = view.subscriptions.get(id) else {
            return;
        };
        for partition in view.partitions_of(subscription) {
            self.on(partition.id, now, effects, |held, desk| {
                held.fix_cursor(subscription, desk);
            });
        }
    }

    /// A read is done: subscriptions begin for which too much was being read.
    fn fix_put_off(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        while let Some((partition, id)) = self.bench.next_put_off() {
            self.on(partition, now, effects, |held, desk| {
                if let Some(subscription) = desk.bench.view.subscriptions.get(&id).cloned() {
                    held.fix_cursor(&subscription, desk);
                }
            });
        }
    }

    /// Fixes what a planted bug leaves open until the first pull.
    pub(super) fn begin_late(
        &mut self,
        id: &SubscriptionId,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let view = self.view.clone();
        let Some(subscription) = view.subscriptions.get(id) else {
            return;
        };
        for partition in view.partitions_of(subscription) {
            self.on(partition.id, now, effects, |held, desk| {
                held.begin_late(subscription, desk);
            });
        }
    }

    fn drop_cursors(
        &mut self,
        id: &SubscriptionId,
        old: &Subscription,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let view = self.view.clone();
        for partition in view.partitions_of(old) {
            self.on(partition.id, now, effects, |held, desk| held.drop_cursor(id, desk));
        }
        self.bench.put_off.retain(|(_, other)| other != id);
        self.watchers.forget(id);
        self.end_pulls_of(id, now, effects);
    }

    /// A partition's topic is gone.
    fn dissolve(&mut self, id: PartitionId, now: Now, effects: &mut Vec<ShardEffect>) {
        self.watchers.forget_partition(id);
        let Some(partition) = self.partitions.remove(&id) else {
            return;
        };
        self.timers.disarm(id, partition.timer);
        let mut desk = self.bench.desk(now, effects);
        partition.dissolve(&mut desk);
    }

    /// What the disk holds of topics that were deleted, when the erasure did not reach it. A
    /// partition that the view has never known is kept: then it is the view that lacks something.
    fn erase_orphans(&mut self, effects: &mut Vec<ShardEffect>) {
        let view = self.view.clone();
        let holds =
            |partition: &Arc<metadata::Partition>| partition.replicas.contains(&self.node.0);
        let gone =
            |id: &PartitionId| view.has_known(*id) && !view.partitions.get(id).is_some_and(holds);
        let orphans = self.recovered.extract_if(.., |id, _| gone(id));
        for (partition, _) in orphans {
            effects.push(ShardEffect::Erase { partition });
        }
    }

    fn disk_space(&mut self, space: DiskSpace, now: Now, effects: &mut Vec<ShardEffect>) {
        self.bench.disk = space;
        // What was put off while the disk was full is done now.
        let ids: Vec<SubscriptionId> = self.view.subscriptions.keys().cloned().collect();
        ids.iter().for_each(|id| self.fix_cursors(id, now, effects));
        let partitions: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in partitions {
            self.on(id, now, effects, |_, _| ());
        }
    }

    fn read_done(
        &mut self,
        read: ReadId,
        result: Result<Vec<super::replica::Record>, Unreadable>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let (partition, what) = self.bench.reads.remove(&read).expect("a read is answered once");
        if self.partitions.contains_key(&partition) {
            self.on(partition, now, effects, |held, desk| held.read_done(what, result, desk));
        } else {
            self.read_of_nothing(&what, now, effects);
        }
        self.fix_put_off(now, effects);
        self.bench.desk(now, effects).scan_put_off();
    }

    fn sought(
        &mut self,
        read: ReadId,
        result: Result<Option<Offset>, Unreadable>,
        now: Now,
        effects: &mut Vec<ShardEffect>,
    ) {
        let (partition, what) = self.bench.reads.remove(&read).expect("a search ends once");
        if self.partitions.contains_key(&partition) {
            self.on(partition, now, effects, |held, desk| held.sought(what, result, desk));
        } else {
            self.read_of_nothing(&what, now, effects);
        }
        self.fix_put_off(now, effects);
        self.bench.desk(now, effects).scan_put_off();
    }

    /// The partition that was read is gone meanwhile.
    fn read_of_nothing(&mut self, what: &Reading, now: Now, effects: &mut Vec<ShardEffect>) {
        let mut desk = self.bench.desk(now, effects);
        match what {
            Reading::Fetch(fetch) | Reading::FetchFrom(fetch) => {
                desk.refuse(fetch.reply, Refused::NotReady);
            }
            Reading::Pull(pulling) => desk.answer(pulling.reply, Response::Pulled(Vec::new())),
            Reading::Begin(..) | Reading::Bury(_) | Reading::Entries { .. } => {}
        }
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<ShardEffect>) {
        for id in self.timers.due(now.since_start) {
            self.on(id, now, effects, |held, desk| {
                held.timer = None;
                held.wake(desk);
            });
        }
        self.go_on(now, effects);
        self.give_up(now, effects);
        self.send_away(now, effects);
    }

    fn evict(&mut self) {
        let ledger = &mut self.bench.ledger;
        // What waits for its turn takes the place of what is only kept for readers.
        let room = self.bench.options.cache_bytes.saturating_sub(self.admission.waiting_bytes());
        // The oldest entry of all may wait for a replica that does not answer: then others go.
        let mut passed = 0;
        while ledger.cached > room && passed < PASSED_MAX {
            let Some(id) = ledger.evictions.pop_front() else { break };
            match self.partitions.get_mut(&id).map_or(Evicted::Nothing, |held| held.evict()) {
                Evicted::Entry(bytes) => ledger.cached -= bytes,
                Evicted::Nothing => {}
                Evicted::UnderWay => {
                    ledger.evictions.push_back(id);
                    passed += 1;
                }
            }
        }
    }

    /// Which one of the node's shards it is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.me
    }

    /// How many bytes of publishes wait for their turn or for the disk.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.admission.waiting_bytes() + self.bench.ledger.in_flight
    }

    /// What it holds and has counted.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        ShardStatus {
            view: self.view.version,
            disk: self.bench.disk,
            partitions: self.partitions.values().map(|partition| partition.status()).collect(),
            counters: self.bench.counters.clone(),
            lookups: self.errands.dht.lookups(),
            admission: self.admission.status(),
            in_flight_bytes: self.bench.ledger.in_flight as u64,
            cached_bytes: self.bench.ledger.cached as u64,
        }
    }
}

impl Machine for Shard {
    type Input = ShardInput;
    type Effect = ShardEffect;

    fn handle(&mut self, now: Now, input: ShardInput, effects: &mut Vec<ShardEffect>) {
        if self.failed {
            return;
        }
        match input {
            ShardInput::Viewed(view) => self.adopt_view(view, now, effects),
            ShardInput::Requested { id, request } => self.requested(id, request, now, effects),
            ShardInput::Asked { id, from: _, ask } => self.asked(id, ask, now, effects),
            ShardInput::Called { call, result } => self.called(call, result, now, effects),
            ShardInput::Received { from, message } => match message {
                Message::Forward { id, request } => {
                    self.forwarded(from, id, request, now, effects);
                }
                Message::Answer { id, response } => self.answered(id, response, now, effects),
                Message::Watch { id, subscription, lasts } => {
                    self.watch(from, id, subscription, lasts, now, effects);
                }
                Message::Ready { id } => self.ready(Place::Shard(from), id, now, effects),
            },
            ShardInput::Replicated { from, messages } => {
                self.replicated(from, messages, now, effects);
            }
            ShardInput::LogEndsAsked { by, ask } => self.tell_log_ends(by, &ask, effects),
            ShardInput::Stored(parts) => {
                for (partition, number) in parts {
                    self.on(partition, now, effects, |held, desk| held.stored(number, desk));
                }
            }
            ShardInput::ReadDone { read, result } => self.read_done(read, result, now, effects),
            ShardInput::Sought { read, result } => self.sought(read, result, now, effects),
            ShardInput::Timed(clock) => self.bench.clock = clock,
            ShardInput::DiskSpace(space) => self.disk_space(space, now, effects),
            ShardInput::DiskFailed => self.failed = true,
            ShardInput::Woke => self.wake(now, effects),
        }
        self.take_turns(now, effects);
        self.tell_load(now, effects);
        loop {
            self.give_answers(now, effects);
            // Planted: dead letters wait for more of them, and their originals are done.
            if !planted(Bug::BuriedAfterDone) || self.bench.outbox.len() >= 4 {
                self.send_graves(now, effects);
            }
            let called = self.call_watchers(now, effects);
            if !called && self.bench.answers.is_empty() {
                break;
            }
        }
        self.evict();
    }

    fn wakeup(&self) -> Option<Time> {
        if self.failed {
            return None;
        }
        let partition = self.timers.0.first().map(|&(at, _)| at);
        let waits = [self.routes.wakeup(), self.errands.wakeup(), self.admission.wakeup()];
        waits.into_iter().chain([partition]).flatten().min()
    }

    fn digest(&self, hash: &mut Digest) {
        (self.me, self.view.version, self.failed).hash(hash);
        self.partitions.values().for_each(|partition| partition.digest(hash));
    }

    fn check(&self) -> Result<(), Broken> {
        let broken = |detail| Broken { invariant: "BoundsHold", detail };
        self.partitions.values().try_for_each(|partition| partition.check()).map_err(broken)?;
        self.routes.check().map_err(broken)?;
        self.errands.check().map_err(broken)?;
        if let Some(hops) = self.errands.uncounted {
            return Err(Broken { invariant: "HopBound", detail: format!("{hops:?}") });
        }
        self.admission.check().map_err(broken)?;
        self.watchers.check().map_err(broken)
    }
}
