//! How a node comes up: identity and boot number, the database, recovery, the loops.

mod membership;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, RwLock};

use sprawl_core::broker::replica::{Recovery, Replica};
use sprawl_core::broker::{Shard, ShardOptions, ShardSeed};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::gossip::{Gossip, MEMBER_NAME_BYTES_MAX, ZONE_BYTES_MAX};
use sprawl_core::cluster::metadata::{CAPACITY_NORMAL, FEATURE_LEVEL, Registration, View};
use sprawl_core::ids::{ClusterId, Epoch, PartitionId, ShardId};
use sprawl_core::machine::Now;
use sprawl_core::node::{SHARDS_MAX, shard_of};
use sprawl_core::zoo::{Bug, planted};
use tokio::sync::{mpsc, oneshot};

use self::membership::Gossiping;
use self::ways::Ways;
use crate::clock::Clock;
use crate::contacts;
use crate::data_dir::{Identity, IdentityError, Name};
use crate::driver::data::Arriving;
use crate::driver::{ControlLoop, DataLoop, ShardLoop, control, shard};
use crate::handle::{Ended, INBOX_REQUESTS_MAX, NodeHandle};
use crate::load::{Gauge, Gauges};
use crate::membership::Membership;
use crate::peer::{self, ClusterKey, Counters, Incoming, Lane, Network, Peers, Refusal, Sockets};
use crate::raft::{
    BadMetadata, Group, Member, Observed, Reached, SNAPSHOT_ENTRIES, Search, Stored,
};
use crate::signal::{Follower, Signal};
use crate::spawn::spawn;
use crate::storage::{Disk, OpenError, ReadError, Storage};
use crate::trace::{Trace, TraceRaft};
use crate::transport::Neighbours;
use crate::writer::{Job, Writer, WriterHandle};

/// About how many bytes of a partition's log recovery reads at once.
const RECOVERY_READ_BYTES: usize = 4 << 20;

/// Where a node is reached, and how it finds its cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub http: SocketAddr,
    /// Where it looks for other nodes when it belongs to no cluster yet.
    pub seeds: BTreeSet<SocketAddr>,
    /// Whether it founds a cluster though seeds are silent.
    pub founds: bool,
    /// What it shares a fate with; empty where nobody said.
    pub zone: String,
    /// How much it is to hold beside others.
    pub capacity: u32,
    /// The cluster's secret.
    pub key: Option<ClusterKey>,
    /// After how many entries of its log the metadata are stored as a snapshot.
    pub snapshot_entries: u64,
}

impl Cluster {
    /// A node that founds a cluster of its own.
    #[must_use]
    pub fn alone(address: SocketAddr, http: SocketAddr) -> Self {
        let (seeds, founds, zone, key) = (BTreeSet::new(), false, String::new(), None);
        let (capacity, snapshot_entries) = (CAPACITY_NORMAL, SNAPSHOT_ENTRIES);
        Self { address, http, seeds, founds, zone, capacity, key, snapshot_entries }
    }
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, for people; kept from the first start on.
    pub name: Name,
    /// How many shards it has, from 1 to core's `SHARDS_MAX`.
    pub shards: u16,
    /// Where it is reached, and how it finds its cluster.
    pub cluster: Cluster,
    /// How much all its shards together take on.
    pub budget: ShardOptions,
    /// Random bytes, for the identities that a first start makes.
    pub entropy: [u8; 32],
}

/// Why a node does not start. One line; the disk is as it was, but for the boot number.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's identity cannot be established.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The metadata do not read.
    #[error(transparent)]
    Metadata(#[from] BadMetadata),
    /// A partition's log could not be read.
    #[error("recovery stopped: {0}")]
    Recovery(#[from] ReadError),
    /// The disk holds a partition that the metadata log does not know: the log is not whole.
    #[error("the metadata log is damaged: it does not know partition {0}, which the disk holds")]
    UnknownPartition(PartitionId),
    /// The name or the zone is longer than what other nodes are told.
    #[error("a name has up to {MEMBER_NAME_BYTES_MAX} bytes, a zone up to {ZONE_BYTES_MAX}")]
    Texts,
    /// The number of shards is out of range.
    #[error("a node has 1 to {SHARDS_MAX} shards, not {0}")]
    Shards(u16),
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts a node from its disk; returns when it is recovered and its loops run.
///
/// # Errors
///
/// [`StartError`] in one line. Nothing is served then.
pub async fn start<D, C, T, S>(
    disk: D,
    clock: C,
    trace: T,
    sockets: S,
    options: Options,
) -> Result<NodeHandle, StartError>
where
    D: Disk,
    C: Clock,
    S: Sockets,
    T: Trace<Control> + Trace<Shard> + Trace<Gossip> + TraceRaft,
{
    if !(1..=SHARDS_MAX).contains(&options.shards) {
        return Err(StartError::Shards(options.shards));
    }
    let origin = clock.now();
    let (fresh, cluster) = identities(&options.entropy);
    let identity = crate::data_dir::enter(disk.files(), &options.name, fresh).await?;
    let storage = disk.open().await?;
    let stored = Stored::load(&storage).await?;
    let applied = stored.applied()?;
    let view = applied.view.clone();
    let replicas = recover(&storage, &stored.all()?.view, options.shards).await?;

    let stop = Signal::new(None);
    let (writer, syncer, to_writer) = Writer::new(storage.clone(), stop.clone());
    let (finished, closed) = oneshot::channel();
    spawn("sprawl-syncer".to_owned(), syncer.run())?;
    spawn("sprawl-writer".to_owned(), writer.run(finished))?;
    let said = registration(&identity, &options);
    let known = stored.cluster();
    let (network, mut inbound) = Peers::start(sockets, peers(&said, known, &options));
    let search = Search {
        said: said.clone(),
        seeds: options.cluster.seeds.clone(),
        founds: options.cluster.founds,
        fresh: cluster,
        snapshot_entries: options.cluster.snapshot_entries,
    };
    let reached = Reached::new(network.clone(), &mut inbound);
    let hands = (clock.clone(), to_writer.clone(), Observed::new(trace.raft()));
    let (member, group) = Member::new(stored, applied, search, reached, hands, stop.clone())?;
    spawn("sprawl-raft".to_owned(), member.run())?;
    let others = contacts::read(disk.files()).await;
    let hands = (clock.clone(), trace.clone(), network.clone());
    let seed = membership::seed(&said, known, others, &view, &options)?;
    let is_known = view.nodes.contains_key(&said.disk);
    let gauges: Vec<Arc<Gauge>> = (0..options.shards).map(|_| Arc::default()).collect();
    let load = Gauges::new(gauges.clone(), origin.since_start);
    let (gossiping, farewell) =
        membership::begin(seed, hands, &mut inbound, load, stop.follow(), is_known)?;
    let registered = gossiping.registered.follow();
    let (founds, view) = (Some(known.unwrap_or(cluster)), Arc::new(view));
    let newest = replicas.values().flatten().map(|(replica, _)| replica.time()).max();
    let newest = newest.unwrap_or_default();
    let seed = ControlSeed { said, founds, view, origin, newest };
    let (traffic, peers) = (network.counters().clone(), inbound.lane(Lane::Control));
    let fence = Signal::new(None);
    let (network_of, fence_of) = (network.clone(), fence.clone());
    let (asks, said) = (inbound.lane(Lane::Data), inbound.lane(Lane::Replica));
    let (data, writers) = (Arriving { asks, replicas: said }, to_writer.clone());
    let lanes =
        Lanes { network: network_of, peers, data, group, traffic, gossiping, fence: fence_of };
    let stop_of = stop.clone();
    let ends = Ends { origin, storage, clock, trace, to_writer: writers, gauges, stop: stop_of };
    let (asked, stopping) = mpsc::channel(1);
    let ended = Signal::new(None);
    let watched = ended.follow();
    let handle = ends.run(identity.clone(), seed, lanes, replicas, &options, (asked, watched))?;
    let (membership, writer) = (handle.membership.clone(), to_writer);
    let fenced = network.fenced();
    let closing = move || network.close();
    let watch = Watch { membership, stopping, closed, farewell, fenced, registered };
    let keeper = Keeper { disk, identity, watch, writer, stop, ended, fence, closing };
    spawn("sprawl-keeper".to_owned(), keeper.run())?;
    Ok(handle)
}

/// What this run says of itself.
fn registration(identity: &Identity, options: &Options) -> Registration {
    let Cluster { address, http, zone, capacity, .. } = options.cluster.clone();
    Registration {
        disk: identity.disk,
        boot: identity.boot,
        run: u64::from_be_bytes(*options.entropy.last_chunk().expect("32 bytes")),
        name: identity.name.clone(),
        address,
        http,
        zone,
        capacity,
        level: FEATURE_LEVEL,
        clean: identity.clean,
    }
}

/// What the node's network is started with.
fn peers(said: &Registration, cluster: Option<ClusterId>, options: &Options) -> peer::Options {
    let mut entropy = options.entropy;
    entropy.reverse();
    peer::Options {
        name: said.name.clone(),
        cluster,
        key: options.cluster.key.clone(),
        run: said.run,
        ..peer::Options::new((said.disk, said.boot), said.address, entropy)
    }
}

/// The disk id and the cluster id that a first start uses.
fn identities(entropy: &[u8; 32]) -> (u128, ClusterId) {
    let (disk, cluster) = entropy.split_at(16);
    let number = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("16 of 32 bytes"));
    (number(disk), ClusterId(number(cluster)))
}

/// Brings the partitions of each shard back from the disk.
async fn recover<S: Storage>(
    storage: &S,
    view: &View,
    shards: u16,
) -> Result<BTreeMap<ShardId, Vec<(Replica, Epoch)>>, StartError> {
    let mut replicas: BTreeMap<ShardId, Vec<(Replica, Epoch)>> = BTreeMap::new();
    for partition in storage.partitions().await? {
        // One that was deleted and not yet erased is its shard's to erase.
        if !view.has_known(partition) && !planted(Bug::SnapshotHeadFirst) {
            return Err(StartError::UnknownPartition(partition));
        }
        let checkpoint = storage.checkpoint(partition).await?;
        let mut recovery = Recovery::begin(partition, checkpoint.as_deref());
        'log: loop {
            let part = storage.scan(partition, recovery.from(), RECOVERY_READ_BYTES).await;
            let part = match part {
                Ok(part) => part,
                // It costs the partition, not the node.
                Err(ReadError::Unreadable(unreadable)) => {
                    recovery.damage(unreadable);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            if part.is_empty() {
                break;
            }
            for (index, bytes) in part {
                if !recovery.feed(index, bytes) {
                    break 'log;
                }
            }
        }
        let replica = recovery.finish();
        if let Some(unreadable) = replica.damaged() {
            tracing::error!(%unreadable, "stored data is damaged; its partition is not served");
        }
        let accepted = storage.accepted(partition).await?.unwrap_or_default();
        replicas.entry(shard_of(partition, shards)).or_default().push((replica, accepted));
    }
    Ok(replicas)
}

/// What every loop of a node is given.
struct Ends<S, C, T> {
    /// Both clocks at the start, one reading for all.
    origin: Now,
    storage: S,
    clock: C,
    trace: T,
    to_writer: WriterHandle,
    /// One for each shard.
    gauges: Vec<Arc<Gauge>>,
    stop: Signal<Option<Ended>>,
}

/// What control has of other nodes.
struct Lanes<N> {
    network: N,
    peers: mpsc::Receiver<Incoming>,
    /// What other nodes' shards send.
    data: Arriving,
    group: Group,
    traffic: Arc<Counters>,
    gossiping: Gossiping,
    /// Why no later start from this directory may go on either.
    fence: Signal<Option<String>>,
}

impl<S, C, T> Ends<S, C, T>
where
    S: Storage,
    C: Clock,
    T: Trace<Control> + Trace<Shard>,
{
    fn run<N: Network>(
        self,
        identity: Identity,
        seed: ControlSeed,
        lanes: Lanes<N>,
        mut replicas: BTreeMap<ShardId, Vec<(Replica, Epoch)>>,
        options: &Options,
        (stop, ended): (mpsc::Sender<()>, Follower<Option<Ended>>),
    ) -> std::io::Result<NodeHandle> {
        let node = (identity.disk, identity.boot);
        // Bounded by what the shards have under way (core's `*_MAX`).
        let (reports, reported) = mpsc::unbounded_channel();
        let face = Arc::new(RwLock::new(seed.view.clone()));
        let Lanes { network, peers, data, group, traffic, gossiping, fence } = lanes;
        let Ways { views, doors, neighbours, ears, inboxes } =
            Ways::open(options.shards, &self.stop);
        let transport = Neighbours::new(neighbours);
        let (network_of, counted) = (network.clone(), traffic.clone());
        let reach = shard::Reach { transport, network: network_of, traffic: counted };
        let share = share(options.budget, options.shards);
        for (number, (inbox, complete)) in (0..).zip(inboxes) {
            let me = ShardId(number);
            let replicas = replicas.remove(&me).unwrap_or_default();
            let shards = options.shards;
            let origin = self.origin;
            let seed = draws(&options.entropy, number);
            let seed = ShardSeed { me, shards, node, options: share, origin, replicas, seed };
            let hands =
                (self.storage.clone(), self.clock.clone(), self.trace.clone(), reach.clone());
            let (reports, gauge) = (reports.clone(), self.gauges[usize::from(number)].clone());
            let outbox = shard::Outbox { reports, completions: complete, gauge };
            let (shard, writer) = (Shard::recover(seed), self.to_writer.clone());
            let driver = ShardLoop::new(shard, me, inbox, hands, writer, outbox);
            spawn(format!("sprawl-shard-{number}"), driver.run())?;
        }
        let (ask, requests) = mpsc::channel(INBOX_REQUESTS_MAX);
        let Gossiping { membership, verdicts, retired, leaves, registered } = gossiping;
        let stopped = self.stop.follow();
        let inbox = control::Inbox { reports: reported, requests, peers, verdicts, stopped };
        let face_of = face.clone();
        let shown =
            control::Shown { shards: views, face: face_of, retired, leaves, registered, fence };
        let (status, waits) = (group.status.clone(), group.waits.clone());
        let hands = (self.clock.clone(), self.trace.clone(), group, network);
        let (control, writer) = (Control::recover(seed), self.to_writer.clone());
        let driver = ControlLoop::new(control, inbox, hands, self.stop.clone(), writer, shown);
        spawn("sprawl-control".to_owned(), driver.run())?;
        let stopped = self.stop.follow();
        let data = DataLoop::new(data, ears, face.clone(), traffic.clone(), stopped);
        spawn("sprawl-data".to_owned(), data.run())?;

        Ok(NodeHandle {
            identity: Arc::new(identity),
            view: face,
            control: ask,
            shards: doors.into(),
            group: status,
            waits,
            membership,
            traffic,
            stop,
            ended,
        })
    }
}

/// What the draws of a shard of this number come from.
fn draws(entropy: &[u8; 32], number: u16) -> u64 {
    let first = u64::from_le_bytes(*entropy.first_chunk().expect("32 bytes"));
    first.wrapping_add(u64::from(number))
}

/// What may wait in one shard at least, in bytes; in a node that lets less wait, all of that.
const WAITING_BYTES_MIN: usize = 32 << 20;

/// Each shard's part of the node's budget.
fn share(budget: ShardOptions, shards: u16) -> ShardOptions {
    let parts = NonZeroU64::new(shards.into()).unwrap_or(NonZeroU64::MIN);
    let shards = usize::from(shards);
    ShardOptions {
        cache_bytes: budget.cache_bytes / shards,
        in_flight_bytes: budget.in_flight_bytes / shards,
        // Room for a large message beside others. What waits is held by the face already, within a
        // bound of its own.
        waiting_bytes: (budget.waiting_bytes / shards)
            .max(WAITING_BYTES_MIN.min(budget.waiting_bytes)),
        older_rate: budget.older_rate.map(|rate| rate.div_ceil(parts)),
        ..budget
    }
}

/// What the keeper waits for.
struct Watch {
    /// Whose addresses are kept for the next start.
    membership: Follower<Arc<Membership>>,
    stopping: mpsc::Receiver<()>,
    /// Comes to an end when the database is closed.
    closed: oneshot::Receiver<()>,
    /// Comes to an end when gossip has said its last word.
    farewell: oneshot::Receiver<()>,
    /// Another node says that this directory is not the node, or not any more.
    fenced: Follower<Option<Refusal>>,
    /// Whether this run has been registered.
    registered: Follower<bool>,
}

/// Keeps the directory locked until the node has ended, and ends it when asked.
struct Keeper<D, F> {
    disk: D,
    identity: Identity,
    watch: Watch,
    writer: WriterHandle,
    stop: Signal<Option<Ended>>,
    ended: Signal<Option<Ended>>,
    /// Why no later start from this directory may go on either.
    fence: Signal<Option<String>>,
    /// Ends the network.
    closing: F,
}

impl<D: Disk, F: FnOnce()> Keeper<D, F> {
    async fn run(self) {
        let Watch { membership, mut stopping, closed, farewell, mut fenced, registered } =
            self.watch;
        let mut stopped = self.stop.follow();
        tokio::select! {
            biased;
            _ = stopped.until(Option::is_some) => {}
            _ = stopping.recv() => {
                // What was handed to the writer before is synced and answered first.
                flush(&self.writer).await;
                self.stop.set_where(Option::is_none, Some(Ended::Shutdown));
            }
            refusal = fenced.until(Option::is_some) => {
                let why = refusal.map_or_else(String::new, |refusal| refusal.to_string());
                self.fence.set(Some(why.clone()));
                self.stop.set_where(Option::is_none, Some(Ended::Halted(why)));
            }
            never = contacts::keep(self.disk.files(), membership) => match never {},
        }
        // An error is the signal: the loop of gossip has ended.
        let _ = farewell.await;
        (self.closing)();
        drop(self.writer);
        // An error is the signal: the writer has closed the database and dropped its end.
        let _ = closed.await;
        if let Some(why) = self.fence.follow().get() {
            crate::data_dir::fence(self.disk.files(), &why).await;
        }
        // What a run before has lost is told to the cluster by the one that registers.
        let is_told = self.identity.clean || registered.get();
        if stopped.get() == Some(Ended::Shutdown) && is_told {
            crate::data_dir::leave(self.disk.files(), &self.identity).await;
        }
        drop(self.disk);
        // A disk that failed on the way down is the reason, whoever asked for the end.
        self.ended.set(stopped.get());
    }
}

/// Returns when everything handed to the writer before is durable, or never will be.
async fn flush(writer: &WriterHandle) {
    let (tell, told) = oneshot::channel();
    let done = Box::new(move || {
        // Whoever asked is still there: it waits below.
        let _ = tell.send(());
    });
    let job = Job { stores: Vec::new(), erased: Vec::new(), metadata: Vec::new(), done };
    if writer.jobs.send(job).await.is_ok() {
        // An error means that the disk has failed; `ended` says so.
        let _ = told.await;
    }
}
