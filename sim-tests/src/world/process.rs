//! One process of a node: what `sprawl` does from its start to its end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprawl_core::broker::ShardOptions;
use sprawl_io::data_dir::Name;
use sprawl_io::handle::Ended;
use sprawl_io::start::{Cluster, Options, start};
use sprawl_server::serve::{Limits, Settings, serve};
use tokio::net::TcpListener;

use crate::clock::{SimClock, WallError};
use crate::disk::SimDisk;
use crate::net::Net;
use crate::plan::{Draw, Knobs};
use crate::trace::SimTrace;

/// Where other nodes would reach the node.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7946);

/// What the processes of one node have in common.
#[derive(Clone)]
pub(super) struct Process {
    disk: SimDisk,
    trace: SimTrace,
    net: Net,
    knobs: Knobs,
    dice: Arc<Mutex<Draw>>,
    world: tokio::time::Instant,
    wall_error: WallError,
    starts: Arc<AtomicU64>,
    /// Whether it has started: then it has read its wall clock, which may go wrong from now on.
    started: Arc<AtomicBool>,
    /// Why it ended by itself, until the world has seen it.
    exit: Arc<Mutex<Option<String>>>,
}

impl Process {
    pub(super) fn new(
        (disk, net): (SimDisk, Net),
        trace: SimTrace,
        knobs: Knobs,
        dice: Draw,
        world: tokio::time::Instant,
    ) -> Self {
        Self {
            disk,
            trace,
            net,
            knobs,
            dice: Arc::new(Mutex::new(dice)),
            world,
            wall_error: Arc::new(AtomicI64::new(0)),
            starts: Arc::default(),
            started: Arc::default(),
            exit: Arc::default(),
        }
    }

    /// Starts, serves, and ends when the disk fails.
    pub(super) async fn live(self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.trace.started();
        let reason = self.serve().await;
        *self.exit() = Some(reason);
        // The world kills what is left of the process, its machines above all.
        std::future::pending::<()>().await;
    }

    async fn serve(&self) -> String {
        let clock = SimClock::start(self.world, self.wall_error.clone());
        let name = Name::Default("node".to_owned());
        let Knobs { shards, cache_bytes, in_flight_bytes, waiting_bytes, checkpoint_entries } =
            self.knobs;
        let budget = ShardOptions {
            cache_bytes,
            in_flight_bytes,
            waiting_bytes,
            checkpoint_entries,
            ..ShardOptions::default()
        };
        let cluster = Cluster::alone(ADDRESS, (ADDRESS.ip(), 9070).into());
        let options = Options { name, shards, cluster, budget, entropy: self.entropy() };
        let sockets = self.net.bind(ADDRESS).expect("the process before is dead");
        let (disk, trace) = (self.disk.clone(), self.trace.clone());
        let started = start(disk, clock, trace, sockets, options).await;
        let node = match started {
            Ok(node) => node,
            Err(error) => return format!("it does not start: {error}"),
        };
        self.started.store(true, Ordering::Relaxed);
        let listener = match TcpListener::bind("0.0.0.0:9070").await {
            Ok(listener) => listener,
            Err(error) => return format!("it does not listen: {error}"),
        };
        let settings = Settings {
            address: ADDRESS.to_string(),
            entropy: self.entropy(),
            host: None,
            limits: Limits::default(),
        };
        let face = serve(listener, node.clone(), settings, std::future::pending());
        tokio::select! {
            biased;
            ended = node.ended() => match ended {
                Ended::Shutdown => "it was shut down".to_owned(),
                Ended::DiskFailed(reason) => format!("the disk failed: {reason}"),
                Ended::Halted(reason) => panic!("the node halted: {reason}"),
            },
            () = face => "its face ended".to_owned(),
        }
    }

    fn entropy(&self) -> [u8; 32] {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.bytes(32).try_into().expect("32 bytes were drawn")
    }

    fn exit(&self) -> MutexGuard<'_, Option<String>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it ended by itself, if it did; said once.
    pub(super) fn take_exit(&self) -> Option<String> {
        self.exit().take()
    }

    /// It was killed; its wall clock is right again before it starts.
    pub(super) fn killed(&self) {
        self.exit().take();
        self.started.store(false, Ordering::Relaxed);
        self.wall_error.store(0, Ordering::Relaxed);
    }

    /// The wall clock jumps, if the process runs: a lone node's clock must be right when it starts.
    pub(super) fn jump(&self, by_ms: i64) -> bool {
        let runs = self.started.load(Ordering::Relaxed);
        if runs {
            self.wall_error.fetch_add(by_ms, Ordering::Relaxed);
        }
        runs
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> Arc<AtomicU64> {
        self.starts.clone()
    }
}
