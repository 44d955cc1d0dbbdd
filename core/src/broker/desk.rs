//! What a shard lends to the partition that it works on: time, where effects go, the budgets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

use super::delivery::{Burial, Moment};
use super::partition::{Fetch, Pulling};
use super::replica::{
    APPEND_BYTES_MAX, Duty, IN_FLIGHT_BYTES_MAX, Images, Record, Submission, Thresholds,
};
use crate::cluster::ClusterClock;
use crate::cluster::metadata::View;
use crate::ids::{
    ChangeIndex, DiskId, EntryIndex, Offset, PartitionId, ReadId, RequestId, ShardId,
    SubscriptionId,
};
use crate::machine::{Counters, DiskSpace, Now, Refused, Response, ShardEffect, WallTime};
use crate::zoo::{Bug, planted};

/// How many reads of the disk a shard has under way at most.
pub(super) const READS_MAX: usize = 256;

/// How much a shard takes on, and how often it stores states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Bytes of entries kept in memory for readers.
    pub cache_bytes: usize,
    /// Bytes of entries that the disk may have before it; publishes beyond wait for their turn.
    pub in_flight_bytes: usize,
    /// Bytes of publishes that may wait for their turn; those beyond are refused.
    pub waiting_bytes: usize,
    /// After how many committed entries a partition's state is stored with the next ones.
    pub checkpoint_entries: u64,
    /// From how many retained bytes on a new copy of a partition is given the state and what
    /// follows it, and what is older behind that.
    pub newest_first_bytes: u64,
    /// How many bytes of what is older such a copy asks for at a time.
    pub older_bytes: u32,
    /// How many of these bytes all copies of the shard take a second; none for as many as come.
    pub older_rate: Option<NonZeroU64>,
}

impl ShardOptions {
    pub(super) fn thresholds(&self) -> Thresholds {
        let Self { checkpoint_entries, newest_first_bytes, older_bytes, older_rate, .. } = *self;
        Thresholds { checkpoint_entries, newest_first_bytes, older_bytes, older_rate }
    }
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            in_flight_bytes: 64 << 20,
            waiting_bytes: 128 << 20,
            checkpoint_entries: 4_096,
            newest_first_bytes: IN_FLIGHT_BYTES_MAX as u64,
            older_bytes: APPEND_BYTES_MAX as u32,
            older_rate: NonZeroU64::new(64 << 20),
        }
    }
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ReplyTo {
    /// To a client's request.
    Client(RequestId),
    /// To a pull of this shard, which asks this shard too.
    Own(RequestId),
    /// To a dead letter that this shard has stored, under its name for it.
    Grave(RequestId),
    /// Nowhere: the node told something.
    Nobody,
    /// To one message of a batch of this shard, under its name for the batch.
    Item(RequestId, u32),
    /// To another shard, under its name for the request.
    Shard(ShardId, RequestId),
    /// To another node's request.
    Peer(RequestId),
    /// To a request of this shard that was handed to other nodes before and is served here now.
    Errand(RequestId),
}

/// What a read of the disk is for.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// A reader without subscription.
    Fetch(Fetch),
    /// The search for where such a reader begins: where it says, if all messages are older.
    FetchFrom(Fetch),
    /// A subscription's messages.
    Pull(Pulling),
    /// The search for where a subscription of this birth begins: here, if all messages are older.
    Begin(SubscriptionId, ChangeIndex, Offset),
    /// A message that becomes a dead letter.
    Bury(Burial),
    /// Entries for a follower.
    Entries {
        /// Which one.
        to: DiskId,
        /// The first entry.
        from: EntryIndex,
    },
}

/// Where a dead letter comes from.
#[derive(Clone, Debug)]
pub(crate) struct Grave {
    pub(crate) partition: PartitionId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) offset: Offset,
}

/// The budgets of a shard, in bytes, and who may be evicted next.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) in_flight: usize,
    /// All bytes that were ever in flight.
    pub(crate) entered: u64,
    pub(crate) cached: usize,
    /// What waits for its commit; it is in memory, and cannot be evicted.
    pub(crate) uncommitted: usize,
    /// The partition of each entry in memory, in the order in which they came.
    pub(crate) evictions: VecDeque<PartitionId>,
}

/// Where a shard keeps what it lends.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    pub(crate) options: ShardOptions,
    pub(crate) disk: DiskSpace,
    pub(crate) ledger: Ledger,
    pub(crate) counters: Counters,
    pub(crate) reads: BTreeMap<ReadId, (PartitionId, Reading)>,
    pub(crate) answers: VecDeque<(ReplyTo, Response)>,
    next_read: ReadId,
    /// Where subscriptions are to begin, when too much is being read to look for it: as soon as a
    /// read is done. Each of them becomes a cursor, and so there are no more than of those.
    pub(crate) put_off: BTreeSet<(PartitionId, SubscriptionId)>,
    /// What is to be read for followers, when too much is being read: at most once for each.
    put_off_scans: BTreeMap<(PartitionId, DiskId, bool), (EntryIndex, usize)>,
    /// What a replication wants done, while it is asked.
    pub(crate) duties: Vec<Duty>,
    /// The images that its partitions send and collect.
    pub(crate) images: Images,
    /// The newest view.
    pub(crate) view: Arc<View>,
    /// Dead letters to store, and those that are being stored.
    pub(crate) outbox: VecDeque<(Grave, Submission)>,
    pub(crate) graves: BTreeMap<RequestId, Grave>,
    pub(crate) clock: ClusterClock,
}

impl Bench {
    pub(crate) fn new(options: ShardOptions, origin: Now) -> Self {
        Self { options, clock: ClusterClock::new(origin), ..Self::default() }
    }

    /// The next partition in which a subscription's beginning is looked for, when a read is free.
    pub(crate) fn next_put_off(&mut self) -> Option<(PartitionId, SubscriptionId)> {
        if self.reads.len() < READS_MAX { self.put_off.pop_first() } else { None }
    }

    /// How many dead letters are being stored.
    pub(crate) fn burials_under_way(&self) -> usize {
        self.outbox.len() + self.graves.len()
    }

    pub(crate) fn desk<'a>(&'a mut self, now: Now, effects: &'a mut Vec<ShardEffect>) -> Desk<'a> {
        let cluster_time = self.clock.at(now);
        Desk { now, cluster_time, bench: self, effects }
    }
}

/// Lent for one input.
pub(crate) struct Desk<'a> {
    pub(crate) now: Now,
    /// A lone node's cluster time: its wall clock at the start, and its monotone clock since.
    pub(crate) cluster_time: WallTime,
    pub(crate) effects: &'a mut Vec<ShardEffect>,
    pub(crate) bench: &'a mut Bench,
}

impl Desk<'_> {
    pub(crate) fn answer(&mut self, reply: ReplyTo, response: Response) {
        self.bench.answers.push_back((reply, response));
    }

    pub(crate) fn refuse(&mut self, reply: ReplyTo, refused: Refused) {
        self.answer(reply, Response::Refused(refused));
    }

    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.bench.counters
    }

    /// The time of the input.
    pub(crate) fn moment(&self) -> Moment {
        Moment { time: self.now.since_start, cluster: self.cluster_time }
    }

    /// The time by which it is judged whether a message's time is over.
    pub(crate) fn ttl_time(&self) -> WallTime {
        if planted(Bug::TtlByTheWallClock) { self.now.wall } else { self.cluster_time }
    }

    /// Whether the disk takes what the node itself wants to note.
    pub(crate) fn may_write(&self) -> bool {
        self.bench.disk == DiskSpace::Free
    }

    /// Names a read and remembers what it is for, or hands it back: too many are under way.
    pub(crate) fn read(
        &mut self,
        partition: PartitionId,
        what: Reading,
    ) -> Result<ReadId, Reading> {
        if self.bench.reads.len() >= READS_MAX {
            return Err(what);
        }
        self.bench.next_read = self.bench.next_read.next();
        self.bench.reads.insert(self.bench.next_read, (partition, what));
        Ok(self.bench.next_read)
    }

    /// Has entries read for a follower, now or as soon as a read is done. Those that are older than
    /// its state come beside the others.
    pub(crate) fn scan(
        &mut self,
        place: (PartitionId, DiskId, bool),
        from: EntryIndex,
        bytes_max: usize,
    ) {
        let (partition, to, _) = place;
        match self.read(partition, Reading::Entries { to, from }) {
            Ok(read) => {
                self.effects.push(ShardEffect::Scan { read, partition, from, bytes_max });
            }
            Err(_) => {
                self.bench.put_off_scans.insert(place, (from, bytes_max));
            }
        }
    }

    /// A read is done: followers are read for whose turn it is.
    pub(crate) fn scan_put_off(&mut self) {
        while self.bench.reads.len() < READS_MAX
            && let Some((place, (from, bytes_max))) = self.bench.put_off_scans.pop_first()
        {
            self.scan(place, from, bytes_max);
        }
    }

    /// Whether as much waits for replicas on other nodes, in all partitions together, as there is
    /// memory for entries.
    pub(crate) fn is_held_up(&self) -> bool {
        let Ledger { in_flight, uncommitted, .. } = self.bench.ledger;
        uncommitted - in_flight > self.bench.options.cache_bytes
    }

    /// Enters a new entry into the budgets.
    pub(crate) fn account(&mut self, partition: PartitionId, record: &Record) {
        let ledger = &mut self.bench.ledger;
        ledger.in_flight += record.len();
        ledger.entered += record.len() as u64;
        ledger.cached += record.footprint();
        ledger.uncommitted += record.len();
        ledger.evictions.push_back(partition);
    }
}
