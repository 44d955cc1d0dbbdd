//! NATS JetStream of one replica beside a node: the same messages over as many connections, with
//! as many under way, on the same disk in the same run.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::batches::{self, BATCH_CONNECTIONS, READ_CONNECTIONS};
use super::jetstream::JetStream;
use super::load::PAYLOAD_BYTES;
use super::{SPAN, append, runtime};

/// Where Debian's package puts the server, which is not in everybody's path.
const DEBIAN: &str = "/usr/sbin/nats-server";
/// How long a server may take to begin.
const START_MAX: Duration = Duration::from_secs(10);
/// How often a server that begins is tried.
const START_INTERVAL: Duration = Duration::from_millis(20);

/// A server of its own, killed when it is dropped.
struct Server {
    child: Child,
    address: String,
}

/// Prints the tables.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let program = std::env::var_os("NATS_SERVER").unwrap_or_else(|| DEBIAN.into());
    let Ok(version) = Command::new(&program).arg("--version").output() else {
        println!("there is no nats-server: apt-get install nats-server, or name it: NATS_SERVER=");
        return Ok(());
    };
    println!("{}\n", String::from_utf8_lossy(&version.stdout).trim());
    println!(
        "| batch | append + fdatasync, msg/s | JetStream, its default | JetStream, sync always \
         | this node | of append | of JetStream's default | of JetStream, sync always \
         | read: JetStream | read: this node | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for batch in [1, 16, 128, 1024] {
        let reference = append::rate(folder, batch, PAYLOAD_BYTES, SPAN)?;
        let program = Path::new(&program);
        let lazy = measure(program, &folder.join(format!("lazy-{batch}")), batch, None)?;
        let Some((lazy, read)) = lazy else { bail!("nats-server did not start") };
        let always = folder.join(format!("always-{batch}"));
        let always = measure(program, &always, batch, Some("sync_interval: always"))?;
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
        let Some(server) = Server::start(program, folder, line).await? else { return Ok(None) };
        let published = publish(&server.address, batch).await?;
        Ok(Some((published, read(&server.address).await?)))
    })
}

impl Server {
    async fn start(
        program: &Path,
        folder: &Path,
        line: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        // Nobody else takes the port in between, on a machine that measures.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{\n  store_dir: {:?}\n  {}\n}}\n",
            folder.join("store"),
            line.unwrap_or_default()
        );
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

/// Each connection has a stream of its own, as each of the node's has a topic.
async fn publish(address: &str, window: usize) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for number in 0..BATCH_CONNECTIONS {
        let stream = format!("stream-{number}");
        let mut client = JetStream::open(address, &format!("writer-{number}")).await?;
        client.create(&stream).await?;
        clients.push((client, stream));
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
async fn read(address: &str) -> anyhow::Result<f64> {
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
