//! How a node comes up: identity and boot number, the database, recovery, the loops.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use sprawl_core::broker::replica::{Recovery, Replica};
use sprawl_core::broker::{Shard, ShardOptions, ShardSeed};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::control::ControlSeed;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{ClusterId, PartitionId, ShardId};
use sprawl_core::machine::Now;
use sprawl_core::node::{SHARDS_MAX, shard_of};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::data_dir::{Identity, IdentityError, Name};
use crate::driver::{ControlLoop, ShardLoop, control, shard};
use crate::handle::{Ended, INBOX_REQUESTS_MAX, NodeHandle};
use crate::raft::{BadMetadata, Group, Member, Stored};
use crate::signal::{Follower, Signal};
use crate::spawn::spawn;
use crate::storage::{Disk, OpenError, ReadError, Storage};
use crate::trace::Trace;
use crate::transport::Neighbours;
use crate::writer::{Job, Writer, WriterHandle};

/// About how many bytes of a partition's log recovery reads at once.
const RECOVERY_READ_BYTES: usize = 4 << 20;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, for people; kept from the first start on.
    pub name: Name,
    /// How many shards it has, from 1 to core's `SHARDS_MAX`.
    pub shards: u16,
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
pub async fn start<D, C, T>(
    disk: D,
    clock: C,
    trace: T,
    options: Options,
) -> Result<NodeHandle, StartError>
where
    D: Disk,
    C: Clock,
    T: Trace<Control> + Trace<Shard>,
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
    let stopped = stop.follow();
    let (writer, syncer, to_writer) = Writer::new(storage.clone(), stop.clone());
    let (finished, closed) = oneshot::channel();
    spawn("sprawl-syncer".to_owned(), syncer.run())?;
    spawn("sprawl-writer".to_owned(), writer.run(finished))?;
    let (member, group) = Member::new(stored, applied, cluster, to_writer.clone(), stop.clone())?;
    spawn("sprawl-raft".to_owned(), member.run())?;
    let ends = Ends { origin, storage, clock, trace, to_writer: to_writer.clone(), stopped };
    let (asked, stopping) = mpsc::channel(1);
    let ended = Signal::new(None);
    let watched = ended.follow();
    let handle =
        ends.run(identity, (view, cluster, group), replicas, &options, (asked, watched))?;
    let keeper = Keeper { disk, writer: to_writer, stopping, stop, closed, ended };
    spawn("sprawl-keeper".to_owned(), keeper.run())?;
    Ok(handle)
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
) -> Result<BTreeMap<ShardId, Vec<Replica>>, StartError> {
    let mut replicas: BTreeMap<ShardId, Vec<Replica>> = BTreeMap::new();
    for partition in storage.partitions().await? {
        // One that was deleted and not yet erased is its shard's to erase.
        if !view.has_known(partition) {
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
        replicas.entry(shard_of(partition, shards)).or_default().push(replica);
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
    stopped: Follower<Option<Ended>>,
}

impl<S, C, T> Ends<S, C, T>
where
    S: Storage,
    C: Clock,
    T: Trace<Control> + Trace<Shard>,
{
    fn run(
        self,
        identity: Identity,
        (view, cluster, group): (View, ClusterId, Group),
        mut replicas: BTreeMap<ShardId, Vec<Replica>>,
        options: &Options,
        (stop, ended): (mpsc::Sender<()>, Follower<Option<Ended>>),
    ) -> std::io::Result<NodeHandle> {
        let node = (identity.disk, identity.boot);
        // The channels without a bound of their own are bounded by their senders: reports,
        // messages and completions by what the shards have under way (core's `*_MAX`), views by
        // the changes that the disk takes while a shard is busy.
        let (reports, reported) = mpsc::unbounded_channel();
        let face = Arc::new(RwLock::new(Arc::new(view.clone())));
        let (mut views, mut doors, mut neighbours, mut inboxes) = (vec![], vec![], vec![], vec![]);
        for _ in 0..options.shards {
            let (show, shown) = mpsc::unbounded_channel();
            let (send, sent) = mpsc::unbounded_channel();
            let (ask, asked) = mpsc::channel(INBOX_REQUESTS_MAX);
            views.push(show);
            neighbours.push(send);
            doors.push(ask);
            inboxes.push((shown, sent, asked));
        }
        let transport = Neighbours::new(neighbours);
        let share = share(options.budget, options.shards);
        for (number, (views, neighbours, requests)) in (0..).zip(inboxes) {
            let me = ShardId(number);
            let replicas = replicas.remove(&me).unwrap_or_default();
            let shards = options.shards;
            let origin = self.origin;
            let seed = ShardSeed { me, shards, node, options: share, origin, replicas };
            let (complete, completions) = mpsc::unbounded_channel();
            let stopped = self.stopped.clone();
            let inbox = shard::Inbox { views, completions, neighbours, requests, stopped };
            let hands =
                (self.storage.clone(), self.clock.clone(), self.trace.clone(), transport.clone());
            let (writer, reports) = (self.to_writer.clone(), reports.clone());
            let shard = Shard::recover(seed);
            let driver = ShardLoop::new(shard, me, inbox, hands, writer, reports, complete);
            spawn(format!("sprawl-shard-{number}"), driver.run())?;
        }
        let (ask, requests) = mpsc::channel(INBOX_REQUESTS_MAX);
        let (disk, boot) = node;
        let seed = ControlSeed {
            disk,
            boot,
            name: identity.name.clone(),
            cluster,
            view,
            origin: self.origin,
        };
        let inbox = control::Inbox { reports: reported, requests, stopped: self.stopped.clone() };
        let shown = control::Shown { shards: views, face: face.clone() };
        let status = group.status.clone();
        let hands = (self.clock.clone(), self.trace.clone(), group);
        let control = Control::recover(seed);
        let driver = ControlLoop::new(control, inbox, hands, self.to_writer.clone(), shown);
        spawn("sprawl-control".to_owned(), driver.run())?;

        Ok(NodeHandle {
            identity: Arc::new(identity),
            view: face,
            control: ask,
            shards: doors.into(),
            group: status,
            stop,
            ended,
        })
    }
}

/// What may wait in one shard at least, in bytes; in a node that lets less wait, all of that.
const WAITING_BYTES_MIN: usize = 32 << 20;

/// Each shard's part of the node's budget.
fn share(budget: ShardOptions, shards: u16) -> ShardOptions {
    let shards = usize::from(shards);
    ShardOptions {
        cache_bytes: budget.cache_bytes / shards,
        in_flight_bytes: budget.in_flight_bytes / shards,
        // Room for a large message beside others. What waits is held by the face already, within a
        // bound of its own.
        waiting_bytes: (budget.waiting_bytes / shards)
            .max(WAITING_BYTES_MIN.min(budget.waiting_bytes)),
        checkpoint_entries: budget.checkpoint_entries,
    }
}

/// Keeps the directory locked until the node has ended, and ends it when asked.
struct Keeper<D> {
    disk: D,
    writer: WriterHandle,
    stopping: mpsc::Receiver<()>,
    stop: Signal<Option<Ended>>,
    closed: oneshot::Receiver<()>,
    ended: Signal<Option<Ended>>,
}

impl<D: Disk> Keeper<D> {
    async fn run(mut self) {
        let mut stopped = self.stop.follow();
        tokio::select! {
            biased;
            _ = stopped.until(Option::is_some) => {}
            _ = self.stopping.recv() => {
                // What was handed to the writer before is synced and answered first.
                flush(&self.writer).await;
                self.stop.set_where(Option::is_none, Some(Ended::Shutdown));
            }
        }
        drop(self.writer);
        // An error is the signal: the writer has closed the database and dropped its end.
        let _ = self.closed.await;
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
    let job = Job { appends: Vec::new(), erased: Vec::new(), metadata: Vec::new(), done };
    if writer.jobs.send(job).await.is_ok() {
        // An error means that the disk has failed; `ended` says so.
        let _ = told.await;
    }
}
