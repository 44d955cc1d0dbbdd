//! A machine of the cluster: its disk, its clock, and the process that runs on it, if one does.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madsim::runtime::Handle;
use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::Replica;
use sprawl_core::ids::{Boot, DiskId, EntryIndex, PartitionId};
use sprawl_io::data_dir::Name;
use sprawl_io::handle::{Ended, NodeHandle};
use sprawl_io::start::{Cluster, Options, start};

use super::plan::ClusterPlan;
use super::trap::Trap;
use super::watch::{NodeTrace, Watch};
use crate::clock::{SimClock, WallError};
use crate::disk::{Moment, Platters, SimDisk};
use crate::net::Net;
use crate::plan::Draw;

/// The port between nodes.
const PORT: u16 = 7_946;
/// A wall clock that is wrong by more than this makes a dedup window forget.
const FAR_OFF_MS: u64 = 60_000;
/// The port for clients, at which nobody listens in this world.
const HTTP_PORT: u16 = 9_070;

/// Whether a fault may meet a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not started.
    New,
    /// It runs, as far as the world knows.
    Up,
    /// A fault has it.
    Struck,
    /// It has left the cluster.
    Gone,
}

/// Why nothing may run from a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// What is broken where something runs.
    pub(super) invariant: &'static str,
    /// What the process must say of it instead.
    pub(super) says: &'static str,
    /// Whether a node may come up from it until others have told it.
    pub(super) comes_up: bool,
}

/// The metadata on it are damaged.
const DAMAGED: Verdict =
    Verdict { invariant: "DamageStopsTheStart", says: "the metadata are damaged", comes_up: false };
/// It is not what the cluster knows to have run from it.
const OUTDATED: Verdict =
    Verdict { invariant: "CopiesAreRefused", says: "rolled back", comes_up: true };

/// Where a machine of this number is reached.
pub(super) fn ip(number: usize) -> IpAddr {
    [10, 1, (number / 200) as u8, (number % 200) as u8 + 1].into()
}

/// A machine. A clone is the same one.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) number: usize,
    /// Which one its node takes itself for.
    name: usize,
    plan: Arc<ClusterPlan>,
    pub(super) net: Net,
    pub(super) watch: Watch,
    began: tokio::time::Instant,
    /// What cuts its power.
    pub(super) trap: Trap,
    wall_error: WallError,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    standing: Standing,
    id: Option<madsim::task::NodeId>,
    disk: SimDisk,
    /// What its disk held when its newest process started.
    before: Platters,
    /// Whether it was all of those who vote then: what it agreed on alone with that disk would be
    /// the cluster's history again, as if most disks of a larger one had been put back.
    was_alone: bool,
    dice: Draw,
    handle: Option<NodeHandle>,
    exit: Option<String>,
    /// That its disk cannot be started from any more.
    condemned: Option<Verdict>,
    /// Whether it was told to leave the cluster for good.
    leaves: bool,
    /// How often something was done to it from outside.
    touched: u64,
}

impl Machine {
    pub(super) fn new(
        number: usize,
        plan: &Arc<ClusterPlan>,
        (net, watch): (&Net, &Watch),
        began: tokio::time::Instant,
    ) -> Self {
        let mut dice = Draw::new(plan.seed, 20_000 + number as u64);
        let trap = Trap::default();
        let disk = empty(plan, &mut dice, (watch.of(number), trap.clone()));
        let inner = Inner {
            standing: Standing::New,
            id: None,
            disk,
            before: Platters::default(),
            was_alone: false,
            dice,
            handle: None,
            exit: None,
            condemned: None,
            leaves: false,
            touched: 0,
        };
        Self {
            number,
            name: number,
            plan: plan.clone(),
            net: net.clone(),
            watch: watch.clone(),
            began,
            trap,
            wall_error: Arc::new(AtomicI64::new(0)),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Another machine, onto whose disk that of this one was copied while it ran.
    pub(super) fn copied(&self, number: usize) -> Self {
        let mut copy = Self::new(number, &self.plan, (&self.net, &self.watch), self.began);
        copy.name = self.name;
        let image = self.lock().disk.image();
        copy.lock().disk.restore(image);
        self.watch.haunts(number);
        copy
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        self.lock().standing
    }

    pub(super) fn stands(&self, standing: Standing) {
        self.lock().standing = standing;
    }

    /// The node that runs on it, if one does.
    pub(super) fn handle(&self) -> Option<NodeHandle> {
        self.lock().handle.clone()
    }

    /// The last entry of a partition that is synced on its disk, if it has any.
    pub(super) fn log_end(&self, partition: PartitionId) -> Option<EntryIndex> {
        self.lock().disk.log_end(partition)
    }

    /// What a start would find of a partition whose log has lost its beginning.
    pub(super) fn cut_partition(&self, partition: PartitionId) -> Option<Replica> {
        self.lock().disk.cut_partition(partition)
    }

    /// Its disk, as somebody finds it who stands before it.
    pub(super) fn disk(&self) -> SimDisk {
        self.lock().disk.clone()
    }

    /// What its node is called.
    pub(super) fn name(&self) -> String {
        format!("n{}", self.name)
    }

    /// How often a replica on its disk was given the state.
    pub(super) fn installed(&self) -> u64 {
        self.lock().disk.installed()
    }

    pub(super) fn touched(&self) -> u64 {
        self.lock().touched
    }

    pub(super) fn id(&self) -> Option<madsim::task::NodeId> {
        self.lock().id
    }

    /// Why the process ended by itself, if it did; said once.
    pub(super) fn take_exit(&self) -> Option<String> {
        self.lock().exit.take()
    }

    /// Starts a process, the first one or another.
    pub(super) fn start(&self) {
        self.watch.process(self.number, "starts");
        let id = {
            let mut inner = self.lock();
            inner.standing = Standing::Up;
            inner.touched += 1;
            inner.before = inner.disk.image();
            inner.was_alone = self.watch.is_alone(self.number);
            inner.id
        };
        if let Some(id) = id {
            return Handle::current().restart(id);
        }
        let process = self.clone();
        let node = Handle::current()
            .create_node()
            .name(format!("node-{}", self.number))
            .ip(ip(self.number))
            .init(move || process.clone().live())
            .build();
        self.lock().id = Some(node.id());
    }

    /// Kills the process, by itself or with the power.
    pub(super) fn kill(&self, power: bool) {
        if power {
            self.net.lose_power(ip(self.number));
        }
        self.watch.process(self.number, if power { "loses power" } else { "is killed" });
        let (id, disk) = {
            let mut inner = self.lock();
            (inner.handle, inner.exit) = (None, None);
            inner.touched += 1;
            (inner.id, inner.disk.clone())
        };
        if let Some(id) = id {
            Handle::current().kill(id);
        }
        disk.abandon(power);
    }

    /// Kills it, and starts it again after a while.
    pub(super) fn restart(&self, power: bool, down: Duration) {
        self.stands(Standing::Struck);
        self.kill(power);
        self.start_after(down);
    }

    /// Tells the process to end, and starts another one a while after it has.
    pub(super) fn stop(&self, down: Duration) {
        self.stands(Standing::Struck);
        let machine = self.clone();
        tokio::spawn(async move {
            machine.end().await;
            // Healing may have seen to it that another one is started.
            if machine.standing() == Standing::Struck {
                machine.kill(false);
                machine.start_after(down);
            }
        });
    }

    /// Tells the process to end, and returns when it has.
    pub(super) async fn end(&self) {
        self.watch.process(self.number, "is told to end");
        if let Some(node) = self.handle() {
            node.shutdown().await;
        }
    }

    pub(super) fn start_after(&self, down: Duration) {
        let machine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(down).await;
            // Healing may have started it.
            if machine.standing() == Standing::Struck {
                machine.start();
            }
        });
    }

    /// Puts an empty disk in the place of its own. The process must be dead.
    pub(super) fn wipe(&self) {
        let mut inner = self.lock();
        let mut dice = inner.dice.clone();
        let witnesses = (self.watch.of(self.number), self.trap.clone());
        inner.disk = empty(&self.plan, &mut dice, witnesses);
        (inner.dice, inner.condemned) = (dice, None);
        drop(inner);
        self.watch.wiped(self.number);
    }

    /// Turns a bit of the metadata on its disk over; gives of what. The process must be dead, and
    /// the next one must see it.
    pub(super) fn spoil(&self, draw: u64) -> Option<String> {
        let mut inner = self.lock();
        let what = inner.disk.spoil(draw)?;
        inner.condemned = Some(DAMAGED);
        Some(what)
    }

    /// The run that is here, if the cluster knows of it, and there was one before it, when others
    /// voted too: then it refuses what its disk held between the two.
    pub(super) fn can_be_rolled_back(&self) -> Option<(DiskId, Boot)> {
        let inner = self.lock();
        let node = inner.handle.as_ref()?;
        let identity = node.identity();
        let registered = node.view().has_registered(identity.disk, identity.boot);
        let can = registered && !inner.before.are_new() && !inner.was_alone;
        can.then_some((identity.disk, identity.boot))
    }

    /// Puts what its disk held before the newest start in its place. The process must be dead, and
    /// the next one must be refused.
    pub(super) fn roll_back(&self) {
        let mut inner = self.lock();
        inner.disk.restore(inner.before.clone());
        inner.condemned = Some(OUTDATED);
        drop(inner);
        self.watch.haunts(self.number);
    }

    /// Whether it has an older disk, and was not told yet.
    pub(super) fn is_outdated(&self) -> bool {
        self.condemned().is_some_and(|verdict| verdict.says == OUTDATED.says)
    }

    /// It is told to leave for good.
    pub(super) fn is_told_to_leave(&self) {
        self.lock().leaves = true;
    }

    /// Whether it was told to leave for good.
    pub(super) fn leaves(&self) -> bool {
        self.lock().leaves
    }

    /// That nothing may run from its disk.
    pub(super) fn condemned(&self) -> Option<Verdict> {
        self.lock().condemned
    }

    pub(super) fn pause(&self, on: bool) {
        self.lock().touched += 1;
        self.watch.process(self.number, if on { "stands still" } else { "goes on" });
        match self.id() {
            Some(id) if on => Handle::current().pause(id),
            Some(id) => Handle::current().resume(id),
            None => {}
        }
    }

    pub(super) fn jump(&self, by_ms: i64) {
        self.wall_error.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Whether its wall clock, moved by so much, is so wrong that a window forgets by it.
    pub(super) fn is_far_off(&self, by_ms: i64) -> bool {
        (self.wall_error.load(Ordering::Relaxed) + by_ms).unsigned_abs() > FAR_OFF_MS
    }

    async fn live(self) {
        let reason = self.serve().await;
        self.watch.process(self.number, &reason);
        {
            let mut inner = self.lock();
            (inner.handle, inner.exit) = (None, Some(reason));
            inner.touched += 1;
        }
        // The world kills what is left of the process.
        std::future::pending::<()>().await;
    }

    async fn serve(&self) -> String {
        let clock = SimClock::start(self.began, self.wall_error.clone());
        let address: SocketAddr = (ip(self.number), PORT).into();
        let seeds: BTreeSet<SocketAddr> =
            (0..self.plan.starts_ms.len()).map(|seed| (ip(seed), PORT).into()).collect();
        let alone = Cluster::alone(address, (ip(self.number), HTTP_PORT).into());
        let cluster = Cluster {
            seeds,
            zone: format!("z{}", self.number % self.plan.zones.max(1) as usize),
            snapshot_entries: self.plan.snapshot_entries,
            ..alone
        };
        let name = Name::Given(self.name());
        let (disk, entropy) = {
            let mut inner = self.lock();
            let entropy = inner.dice.bytes(32).try_into().expect("32 bytes were drawn");
            (inner.disk.clone(), entropy)
        };
        let plan = &self.plan;
        let budget = ShardOptions {
            cache_bytes: plan.cache_bytes,
            checkpoint_entries: plan.checkpoint_entries,
            newest_first_bytes: plan.newest_first_bytes,
            older_bytes: plan.older_bytes,
            older_rate: NonZeroU64::new(plan.older_rate),
            ..ShardOptions::default()
        };
        let options = Options { name, shards: 1, cluster, budget, entropy };
        let sockets = self.net.bind(address).expect("the process before is dead");
        let trace = self.watch.of(self.number);
        let node = match start(disk, clock, trace, sockets, options).await {
            Ok(node) => node,
            Err(error) => return format!("it does not start: {error}"),
        };
        self.lock().handle = Some(node.clone());
        match node.ended().await {
            Ended::Shutdown => "it was shut down".to_owned(),
            Ended::DiskFailed(reason) => format!("the disk failed: {reason}"),
            Ended::Halted(reason) => format!("it halted: {reason}"),
        }
    }
}

fn empty(plan: &ClusterPlan, dice: &mut Draw, (watch, trap): (NodeTrace, Trap)) -> SimDisk {
    let own = Draw::new(plan.seed, dice.range(1 << 20, 1 << 40));
    let disk = SimDisk::new(plan.disk.clone(), own, watch.findings()).one_of_many();
    disk.witnessed(move |moment, step| match moment {
        Moment::Written => {
            watch.written(step);
            trap.written(step);
        }
        Moment::Synced => watch.synced(step),
    })
}
