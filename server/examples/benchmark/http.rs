//! The real binary, over HTTP/1.1 on loopback: `batch` connections publish one message after the
//! other.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The head of an answer must come within this many bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// How many connections publish batches.
const BATCH_CONNECTIONS: usize = 4;
/// How many connections read.
const READ_CONNECTIONS: usize = 2;
/// About how long an answer is.
const ANSWER_BYTES: usize = 64 << 10;

/// A node of its own, ended when it is dropped.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let release = here.parent().and_then(Path::parent).context("target/release/examples")?;
        let mut child = Command::new(release.join("sprawl"))
            .args(["--bind-port", "0", "--http-port", "0", "--log-level", "warn", "--data-dir"])
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
}

impl Drop for Node {
    fn drop(&mut self) {
        // It is gone already, or goes now; its folder goes with the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Messages per second, a request each, over as many connections as there are messages under way.
pub(crate) fn singly(folder: &Path, batch: usize, span: Duration) -> anyhow::Result<f64> {
    let node = Node::start(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(publish(&node.address, batch, 1, span))
}

/// Messages per second, `batch` to a request, over a few connections; and how many a second are
/// read back.
pub(crate) fn batched(folder: &Path, batch: usize, span: Duration) -> anyhow::Result<(f64, f64)> {
    let node = Node::start(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let published = publish(&node.address, BATCH_CONNECTIONS, batch, span).await?;
        Ok((published, read(&node.address, span).await?))
    })
}

async fn publish(
    address: &str,
    connections: usize,
    batch: usize,
    span: Duration,
) -> anyhow::Result<f64> {
    let published = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut writers = Vec::new();
    for writer in 0..connections {
        let (address, published) = (address.to_owned(), published.clone());
        writers.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            for number in 0u64.. {
                if began.elapsed() >= span {
                    break;
                }
                exchange(&mut stream, request(writer, number, batch).as_bytes()).await?;
                published.fetch_add(batch as u64, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

/// Reads the first topic from its beginning, again and again.
async fn read(address: &str, span: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut readers = Vec::new();
    for _ in 0..READ_CONNECTIONS {
        let address = address.to_owned();
        readers.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(&address).await?;
            let (mut offset, mut count) = (0u64, 0u64);
            while began.elapsed() < span {
                let request = format!(
                    "GET /topics/topic-0/messages?offset={offset}&max=1000 HTTP/1.1\r\nhost: \
                     node\r\n\r\n"
                );
                let answer = exchange(&mut stream, request.as_bytes()).await?;
                let tail = String::from_utf8_lossy(&answer[answer.len().saturating_sub(120)..]);
                let number = |name: &str| {
                    let after = tail.split_once(name)?.1;
                    after.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
                };
                let next = number("\"next_offset\":").context("a page says where to go on")?;
                count += next - offset;
                let end = number("\"end_offset\":").context("a page says where the end is")?;
                offset = if next == end { 0 } else { next };
            }
            anyhow::Ok(count)
        }));
    }
    let mut count = 0;
    for reader in readers {
        count += reader.await??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

fn request(writer: usize, number: u64, batch: usize) -> String {
    let (topic, payload) = (writer % 4, "x".repeat(1024));
    let message = |place: usize| {
        format!(
            r#"{{"topic":"topic-{topic}","id":"{writer}-{number}-{place}","payload":"{payload}"}}"#
        )
    };
    let (path, body) = match batch {
        1 => ("/publish", message(0)),
        _ => ("/publish/batch", (0..batch).map(message).collect::<Vec<_>>().join("\n")),
    };
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\n\r\n{body}"
    )
}

/// Sends a request and reads its answer, which must be a success.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    let (head, body) = loop {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the answer ended early: {}", String::from_utf8_lossy(&answer));
        }
        let end = answer.windows(4).take(HEAD_BYTES_MAX).position(|part| part == b"\r\n\r\n");
        if let Some(at) = end {
            let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let len: usize = len.context("an answer says its length")?.trim().parse()?;
            break (head, at + 4 + len);
        }
    };
    while answer.len() < body {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the answer ended early: {head}");
        }
    }
    if !head.starts_with("http/1.1 200") {
        bail!("a request ended with {}", String::from_utf8_lossy(&answer));
    }
    Ok(answer)
}

/// How long a new node takes to its first stored message, and the resident bytes of an idle one.
pub(crate) fn idle(folder: &Path) -> anyhow::Result<(Duration, u64)> {
    let began = Instant::now();
    let node = Node::start(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stream = TcpStream::connect(&node.address).await?;
        exchange(&mut stream, request(0, 0, 1).as_bytes()).await
    })?;
    let first = began.elapsed();
    #[expect(clippy::disallowed_methods, reason = "what a start leaves to be done ends in time")]
    std::thread::sleep(Duration::from_secs(2));
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = resident.context("the system says what is resident")?.trim().parse()?;
    Ok((first, kib * 1024))
}
