//! The real binary as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::connection::{Connection, get};

/// How often a node that starts is asked whether it is ready.
const READY_INTERVAL: Duration = Duration::from_millis(1);
/// How long nodes may take to become one cluster, and how often they are asked.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

/// A node of its own, killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    /// Where it answers, `host:port`.
    pub(crate) address: String,
}

impl Node {
    /// Starts one on this folder, on free ports.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_at(folder, "0")
    }

    /// Starts one on this folder and this port for HTTP.
    pub(crate) fn start_at(folder: &Path, port: &str) -> anyhow::Result<Self> {
        let flags = ["--bind-port", "0", "--http-port", port, "--log-level", "warn"];
        Self::start_with(folder, &flags)
    }

    /// Starts one on this folder, with these flags.
    pub(crate) fn start_with(folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let release = here.parent().and_then(Path::parent).context("target/release/examples")?;
        let mut child = Command::new(release.join("sprawl"))
            .args(flags)
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .context("target/release/sprawl: cargo build --release makes it")?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output was piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let after = line.split_once("http://").map(|(_, after)| after);
        let address = after.and_then(|after| after.split([' ', ',', '\n', '/']).next());
        let address = address.context("its first line names the address")?.to_owned();
        Ok(Self { child, address })
    }

    /// Starts so many, and returns when they are one cluster.
    pub(crate) async fn cluster(folder: &Path, count: usize) -> anyhow::Result<Vec<Self>> {
        let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
        let addresses: Vec<_> = (0..count).map(|_| free()).collect::<Result<_, _>>()?;
        let seeds: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let seeds = seeds.join(",");
        let mut nodes = Vec::new();
        for address in &addresses {
            let port = address.port().to_string();
            let data = folder.join(&port);
            std::fs::create_dir_all(&data)?;
            let alone = ["--bind-port", &port, "--http-port", "0", "--log-level", "error"];
            let among = [&alone[..], &["--seeds", &seeds]].concat();
            nodes.push(Self::start_with(&data, if count == 1 { &alone } else { &among })?);
        }
        let began = Instant::now();
        for node in &nodes {
            while node.members().await? < count {
                anyhow::ensure!(began.elapsed() < SETTLE_MAX, "{count} nodes are no cluster");
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
        }
        Ok(nodes)
    }

    /// How many nodes it finds healthy, itself included.
    async fn members(&self) -> anyhow::Result<usize> {
        let mut connection = Connection::open(&self.address).await?;
        let answer = connection.converse(&get("/cluster/status")).await?;
        let shown: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        let nodes = shown["nodes"].as_array().cloned().unwrap_or_default();
        Ok(nodes.iter().filter(|node| node["state"] == "healthy").count())
    }

    /// Returns when it is ready to serve.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.address).await?;
        while connection.converse(&get("/health/ready")).await?.status != 200 {
            tokio::time::sleep(READY_INTERVAL).await;
        }
        Ok(())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = resident.context("the system says what is resident")?.trim().parse()?;
        Ok(kib * 1024)
    }
}

/// Ticks of processor time in a second, as Linux shows them to programs on every machine.
const TICKS: f64 = 100.0;

impl Node {
    /// The processor time that it has taken so far, in seconds. Programs beside it change this
    /// less than they change a rate.
    pub(crate) fn processor(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, after_name) = stat.rsplit_once(')').context("the system says its name")?;
        let ticks: Result<Vec<f64>, _> =
            after_name.split_whitespace().skip(11).take(2).map(str::parse).collect();
        Ok(ticks?.into_iter().sum::<f64>() / TICKS)
    }

    /// How often its threads have gone to sleep so far, to be woken by something.
    pub(crate) fn wakeups(&self) -> anyhow::Result<f64> {
        let mut wakeups = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may just have ended.
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            wakeups += line.context("the system counts them")?.trim().parse::<f64>()?;
        }
        Ok(wakeups)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is gone already, or goes now, without a chance to put anything in order; its folder
        // goes with the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
