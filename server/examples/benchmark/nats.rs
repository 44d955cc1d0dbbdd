//! NATS JetStream of one replica beside a node: the same messages over as many connections, with
//! as many under way, on the same disk in the same run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::batches::{self, BATCH_CONNECTIONS, READ_CONNECTIONS};
use super::jetstream::JetStream;
use super::load::PAYLOAD_BYTES;
use super::{SPAN, append, runtime};

/// Where Debian's package puts the server, which is not in everybody's path.
const DEBIAN: &str = "/usr/sbin/nats-server";
/// How long a server may take to begin.
const START_MAX: Duration = Duration::from_secs(10);
/// How long replicas are given to choose who leads a stream.
pub(crate) const ELECTED: Duration = Duration::from_secs(3);
/// After what silence a server is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often a server that begins is tried.
const START_INTERVAL: Duration = Duration::from_millis(20);

/// A server of its own, killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

/// A port that is free; nobody else takes it in between, on a machine that measures.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The configuration of a server at a port, its streams in this folder, with this line about them.
pub(crate) fn config(folder: &Path, port: u16, line: Option<&str>) -> String {
    let (store, line) = (folder.join("store"), line.unwrap_or_default());
    format!("host: 127.0.0.1\nport: {port}\njetstream {{\n  store_dir: {store:?}\n  {line}\n}}\n")
}

/// The program to measure, whose version is printed; nothing where there is none, which is said.
pub(crate) fn program() -> Option<PathBuf> {
    let program = std::env::var_os("NATS_SERVER").unwrap_or_else(|| DEBIAN.into());
    let Ok(version) = Command::new(&program).arg("--version").output() else {
        println!("there is no nats-server: apt-get install nats-server, or name it: NATS_SERVER=");
        return None;
    };
    println!("{}\n", String::from_utf8_lossy(&version.stdout).trim());
    Some(program.into())
}

/// Prints the tables.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let Some(program) = program() else { return Ok(()) };
    println!(
        "| batch | append + fdatasync, msg/s | JetStream, its default | JetStream, sync always \
         | this node | of append | of JetStream's default | of JetStream, sync always \
         | read: JetStream | read: this node | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 128, 1024] {
        let reference = append::rate(folder, batch, PAYLOAD_BYTES, SPAN)?;
        let lazy = measure(&program, &folder.join(format!("lazy-{batch}")), batch, None)?;
        let Some((lazy, read)) = lazy else { bail!("nats-server did not start") };
        let always = folder.join(format!("always-{batch}"));
        let always = measure(&program, &always, batch, Some("sync_interval: always"))?;
        let (node, node_read) = batches::batched(&folder.join(format!("node-{batch}")), batch)?;
        let (always, of_always) = match always {
            Some((rate, _)) => (format!("{rate:.0}"), format!("{:.2}", node / rate)),
            None => ("not in this version".to_owned(), "–".to_owned()),
        };
        println!(
            "| {batch} | {reference:.0} | {lazy:.0} | {always} | {node:.0} | {:.2} | {:.2} \
             | {of_always} | {read:.0} | {node_read:.0} | {:.2} |",
            node / reference,
            node / lazy,
            node_read / read,
        );
    }
    Ok(())
}

/// Messages a second published and read by a server with this line in its configuration; none
/// when it does not know the line.
fn measure(
    program: &Path,
    folder: &Path,
    batch: usize,
    line: Option<&str>,
) -> anyhow::Result<Option<(f64, f64)>> {
    runtime()?.block_on(async {
        let text = config(folder, free_port()?, line);
        let Some(server) = Server::start(program, folder, &text).await? else { return Ok(None) };
        let address = server.address.clone();
        let published = publish(std::slice::from_ref(&address), batch, 1).await?;
        Ok(Some((published, read(&address).await?)))
    })
}

impl Server {
    /// Starts one with this configuration, and returns when it listens; nothing when it ends.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        text: &str,
    ) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let port = text.lines().find_map(|line| line.strip_prefix("port: ")).context("a port")?;
        let config = folder.join("nats.conf");
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { child: command.spawn()?, address: format!("127.0.0.1:{port}") };
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if server.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if tokio::net::TcpStream::connect(&server.address).await.is_ok() {
                return Ok(Some(server));
            }
            tokio::time::sleep(START_INTERVAL).await;
        }
        bail!("nats-server did not listen within {} s", START_MAX.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects under a name, and makes a stream.
pub(crate) async fn with_stream(
    address: &str,
    name: &str,
    stream: &str,
    replicas: usize,
) -> anyhow::Result<JetStream> {
    let began = Instant::now();
    loop {
        let mut client = JetStream::open(address, name).await?;
        // Servers that have just met say for a while that nobody leads, or nothing.
        match tokio::time::timeout(ANSWER_MAX, client.create(stream, replicas)).await {
            Ok(Ok(())) => return Ok(client),
            Ok(Err(error)) => anyhow::ensure!(began.elapsed() < START_MAX, "{error}"),
            Err(_) => anyhow::ensure!(began.elapsed() < START_MAX, "it makes no stream"),
        }
        tokio::time::sleep(START_INTERVAL).await;
    }
}

/// Each connection, to the next one of some servers, has a stream of its own, as each of the node's
/// has a topic.
pub(crate) async fn publish(
    addresses: &[String],
    window: usize,
    replicas: usize,
) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for number in 0..BATCH_CONNECTIONS {
        let (stream, address) = (format!("stream-{number}"), &addresses[number % addresses.len()]);
        let client = with_stream(address, &format!("writer-{number}"), &stream, replicas).await?;
        clients.push((client, stream));
    }
    if replicas > 1 {
        tokio::time::sleep(ELECTED).await;
    }
    let began = Instant::now();
    let until = began + SPAN;
    let writers = clients.into_iter().map(|(mut client, stream)| {
        tokio::spawn(async move { client.publish(&stream, window, PAYLOAD_BYTES, until).await })
    });
    let mut stored = 0;
    for writer in writers.collect::<Vec<_>>() {
        stored += writer.await??;
    }
    Ok(stored as f64 / began.elapsed().as_secs_f64())
}

/// Reads the first stream from its beginning, again and again.
pub(crate) async fn read(address: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let readers = (0..READ_CONNECTIONS).map(|number| {
        let address = address.to_owned();
        tokio::spawn(async move {
            let mut client = JetStream::open(&address, &format!("reader-{number}")).await?;
            client.read("stream-0", began + SPAN).await
        })
    });
    let mut count = 0;
    for reader in readers.collect::<Vec<_>>() {
        count += reader.await??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
