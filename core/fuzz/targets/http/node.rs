//! A simulated world with one node in it, and a client that sends bytes.

use std::time::Duration;

use madsim::runtime::{Handle, NodeHandle, Runtime};
use sprawl_core::broker::ShardOptions;
use sprawl_core::machine::{Now, Time, WallTime};
use sprawl_io::clock::Clock;
use sprawl_io::data_dir::Name;
use sprawl_io::peer::Sockets as _;
use sprawl_io::start::{Cluster, Options, start};
use sprawl_io::trace::Untraced;
use sprawl_server::serve::{Limits, Settings, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::memory::{Memory, Nobody};

/// Where the node listens.
const NODE: &str = "10.0.0.1:9070";
/// True time at the start: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// How long an answer may take, in simulated time: more than the longest wait and every deadline.
const PATIENCE: Duration = Duration::from_secs(90);

/// The world; its time stands still between two requests.
pub(crate) struct World {
    runtime: Runtime,
    node: NodeHandle,
    client: NodeHandle,
    asked: u32,
}

impl World {
    /// A world whose node has started.
    pub(crate) fn begin() -> Self {
        let runtime = Runtime::with_seed_and_config(1, madsim::Config::default());
        let (node, client) = runtime.block_on(async {
            let ip = "10.0.0.1".parse().expect("an address");
            let node = Handle::current().create_node().name("node").ip(ip).init(live).build();
            let ip = "10.0.1.1".parse().expect("an address");
            let client = Handle::current().create_node().name("client").ip(ip).build();
            let ready = client.spawn(async {
                while TcpStream::connect(NODE).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            ready.await.expect("the client does not panic");
            (node, client)
        });
        Self { runtime, node, client, asked: 0 }
    }

    /// How many requests it has had.
    pub(crate) fn asked(&self) -> u32 {
        self.asked
    }

    /// Sends bytes on a connection of their own; gives all that is answered.
    pub(crate) fn ask(&mut self, request: Vec<u8>) -> Vec<u8> {
        self.asked += 1;
        let asked = async move {
            let mut stream = TcpStream::connect(NODE).await.expect("the node listens");
            let mut said = Vec::new();
            // A node that closes early may do so; what it said until then is looked at.
            let exchange = async {
                stream.write_all(&request).await?;
                stream.flush().await?;
                loop {
                    if stream.read_buf(&mut said).await? == 0 {
                        return std::io::Result::Ok(());
                    }
                }
            };
            let _ = tokio::time::timeout(PATIENCE, exchange).await;
            said
        };
        self.runtime.block_on(async { self.client.spawn(asked).await.expect("no panic") })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (node, client) = (self.node.id(), self.client.id());
        // Tasks that wait hold what they have until their machine is gone.
        self.runtime.block_on(async {
            Handle::current().kill(node);
            Handle::current().kill(client);
        });
    }
}

/// The life of the node.
async fn live() {
    let name = Name::Default("node".to_owned());
    let budget = ShardOptions::default();
    let cluster = Cluster::alone(Nobody.local(), NODE.parse().expect("an address"));
    let options = Options { name, shards: 2, cluster, budget, entropy: [1; 32] };
    let clock = WorldClock(Instant::now());
    let started = start(Memory::default(), clock, Untraced, Nobody, options).await;
    let node = started.expect("an empty disk starts");
    let listener = TcpListener::bind("0.0.0.0:9070").await.expect("the port is free");
    let limits = Limits { body_bytes_max: 64 << 10, ..Limits::default() };
    let address = "10.0.0.1:7946".to_owned();
    let settings = Settings { address, entropy: [2; 32], host: None, limits };
    serve(listener, node, settings, std::future::pending()).await;
}

/// The world's time.
#[derive(Clone, Debug)]
struct WorldClock(Instant);

impl Clock for WorldClock {
    fn now(&self) -> Now {
        let passed = u64::try_from(self.0.elapsed().as_millis()).expect("a short time");
        let (since_start, wall) = (Time(0) + self.0.elapsed(), WallTime(EPOCH_MS + passed));
        Now { since_start, wall }
    }

    fn moment(&self, time: Time) -> Instant {
        self.0 + Duration::from_micros(time.0)
    }
}
