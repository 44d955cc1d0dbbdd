//! A node from its start to its end.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::process::{Resource, Rlimit};
use sprawl_core::broker::ShardOptions;
use sprawl_io::clock::SystemClock;
use sprawl_io::data_dir::{DataDir, Name};
use sprawl_io::handle::{Ended, NodeHandle};
use sprawl_io::peer::tcp::TcpSockets;
use sprawl_io::peer::{ClusterKey, Sockets as _};
use sprawl_io::start::{self, Cluster, Options};
use sprawl_io::storage::rocks::RocksOptions;
use sprawl_io::trace::Untraced;
use sprawl_server::VERSION;
use sprawl_server::config::{self, Asked, Config, LogFormat};
use sprawl_server::host::Machine;
use sprawl_server::serve::{Limits, Settings, serve};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How many connections the kernel keeps until they are accepted; it may keep fewer.
const ACCEPT_QUEUE_MAX: u32 = 1_024;
/// For how long a starting node has clients wait for what it is about to serve. A node that waits
/// for others says so, instead.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// What a process answers that was told to stop twice.
const STOPPED_TWICE: i32 = 130;

/// Starts a node as the command line says, and ends when it has ended.
pub(super) fn run() -> ExitCode {
    let ended = match config::from_process() {
        Ok(Asked::Print(text)) => print(&text),
        Ok(Asked::Start(config)) => serve_until_told(*config),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sprawl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard output, now.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush().context("standard output")
}

fn serve_until_told(config: Config) -> anyhow::Result<()> {
    start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(live(config))
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    // What consensus says of itself is for those who ask for it by name.
    let asked = config.log_level.contains("openraft");
    let quiet = if asked { "" } else { ",openraft=error" };
    let filter = EnvFilter::try_new(format!("{}{quiet}", config.log_level));
    let filter = filter.context("the log level")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

async fn live(mut config: Config) -> anyhow::Result<()> {
    let listener = listen(config.http).map_err(|error| {
        let port = config.http.port();
        anyhow!("cannot listen on {}: {error}; --http-port takes another than {port}", config.http)
    })?;
    let sockets = bind(&mut config).await?;
    let mut told = Told::listen()?;
    let data = data_dir(&config);
    let http = listener.local_addr().context("the listener has no address")?;
    let cluster = cluster(&config, http).await?;
    let node = start_node(&config, &data, sockets, cluster).await?;
    // Whoever connects meanwhile waits in the listener's queue instead of being refused.
    node.settled(SETTLE_MAX).await;
    announce(&config, &node, http, &data)?;
    let settings = Settings {
        address: advertised(&config),
        entropy: entropy()?,
        host: Some(Arc::new(Machine::new(&data, config.disk_max_bytes))),
        limits: limits(&config),
    };
    let ended = node.clone();
    serve(listener, node.clone(), settings, async move {
        tokio::select! {
            biased;
            () = told.stop() => tracing::info!("told to stop: finishing what is in flight"),
            _ = ended.ended() => {}
        }
        tokio::spawn(async move {
            told.stop().await;
            eprintln!("sprawl: told to stop twice: stopping at once");
            std::process::exit(STOPPED_TWICE);
        });
    })
    .await;
    match node.shutdown().await {
        Ended::Shutdown => Ok(()),
        Ended::DiskFailed(why) => Err(anyhow!(
            "the disk failed: {why}; nothing was acknowledged after it. Look at the disk, then \
             start the node again"
        )),
        Ended::Halted(why) => Err(anyhow!("{why}")),
    }
}

/// Listens, also where a former run's connections still linger.
fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(ACCEPT_QUEUE_MAX)
}

/// What the configuration and the operating system allow. Half of the descriptors are left to the
/// database: without them it would fail.
fn limits(config: &Config) -> Limits {
    let default = Limits::default();
    let had = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: had.maximum, maximum: had.maximum };
    let raised = rustix::process::setrlimit(Resource::Nofile, wanted).is_ok();
    let descriptors = if raised { had.maximum } else { had.current };
    let half = descriptors.map_or(usize::MAX, |descriptors| descriptors as usize / 2);
    let connections_max = default.connections_max.min(half).max(1);
    Limits { body_bytes_max: config.body_max_bytes, connections_max, ..default }
}

/// Takes the port for other nodes; a free one where 0 is configured.
async fn bind(config: &mut Config) -> anyhow::Result<TcpSockets> {
    let sockets = TcpSockets::bind(config.bind).await.map_err(|error| {
        let port = config.bind.port();
        anyhow!("cannot listen on {}: {error}; --bind-port takes another than {port}", config.bind)
    })?;
    config.bind = sockets.local();
    if config.advertise.1 == 0 {
        config.advertise.1 = config.bind.port();
    }
    Ok(sockets)
}

/// How the node is reached, and finds its cluster.
async fn cluster(config: &Config, http: SocketAddr) -> anyhow::Result<Cluster> {
    let (host, port) = &config.advertise;
    let address = resolve(host, *port).await?;
    let mut seeds = BTreeSet::new();
    for (host, port) in &config.seeds {
        seeds.insert(resolve(host, *port).await?);
    }
    anyhow::ensure!(
        seeds.is_empty() || !address.ip().is_unspecified(),
        "{address} is no address that other nodes can reach; --advertise-addr names one"
    );
    let reached_at = if http.ip().is_unspecified() { address.ip() } else { http.ip() };
    Ok(Cluster {
        seeds,
        founds: config.founds,
        zone: config.zone.clone(),
        capacity: config.capacity,
        key: config.cluster_key.as_ref().and_then(|key| ClusterKey::new(key.0.as_bytes())),
        ..Cluster::alone(address, SocketAddr::new(reached_at, http.port()))
    })
}

/// The address behind a name; of several, the first.
async fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.with_context(|| format!("cannot find the address of '{host}'"))?.next();
    found.with_context(|| format!("'{host}' has no address"))
}

fn advertised(config: &Config) -> String {
    let (host, port) = &config.advertise;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn data_dir(config: &Config) -> PathBuf {
    let default = || Path::new("data").join(format!("node-{}", config.bind.port()));
    config.data_dir.clone().unwrap_or_else(default)
}

async fn start_node(
    config: &Config,
    data: &Path,
    sockets: TcpSockets,
    cluster: Cluster,
) -> anyhow::Result<NodeHandle> {
    let options = RocksOptions { disk_max_bytes: config.disk_max_bytes };
    let disk = DataDir::open(data, options)?;
    let name = match &config.name {
        Some(name) => Name::Given(name.clone()),
        None => Name::Default(advertised(config)),
    };
    let options = Options {
        name,
        cluster,
        shards: config.shards,
        budget: ShardOptions {
            cache_bytes: config.memory_max_bytes,
            older_rate: config.copy_rate,
            ..Default::default()
        },
        entropy: entropy()?,
    };
    let started = start::start(disk, SystemClock::start(), Untraced, sockets, options).await;
    started.with_context(|| format!("the data directory {}", data.display()))
}

fn entropy() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// The first line names every address.
fn announce(
    config: &Config,
    node: &NodeHandle,
    http: SocketAddr,
    data: &Path,
) -> anyhow::Result<()> {
    let (name, at) = (&node.identity().name, advertised(config));
    let data = data.display();
    print(&format!(
        "sprawl {VERSION}: node {name} at {at}, HTTP on http://{http}, data in {data}\n"
    ))
}

/// The signals that tell a node to stop.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: listen(terminate)?, interrupt: listen(interrupt)? })
    }

    /// Returns when one of them comes.
    async fn stop(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
