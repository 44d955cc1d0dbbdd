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

/// Messages per second.
pub(crate) fn rate(folder: &Path, batch: usize, span: Duration) -> anyhow::Result<f64> {
    let node = Node::start(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let published = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut writers = Vec::new();
        for writer in 0..batch {
            let (address, published) = (node.address.clone(), published.clone());
            writers.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                for number in 0u64.. {
                    if began.elapsed() >= span {
                        break;
                    }
                    exchange(&mut stream, &request(writer, number)).await?;
                    published.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            }));
        }
        for writer in writers {
            writer.await??;
        }
        Ok(published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
    })
}

fn request(writer: usize, number: u64) -> String {
    let topic = writer % 4;
    let body = format!(
        r#"{{"topic":"topic-{topic}","id":"{writer}-{number}","payload":"{}"}}"#,
        "x".repeat(1024)
    );
    let len = body.len();
    format!(
        "POST /publish HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\n\r\n{body}"
    )
}

/// Sends a request and reads its answer, which must be a success.
async fn exchange(stream: &mut TcpStream, request: &str) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    let (head, body) = loop {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > HEAD_BYTES_MAX {
            bail!("the answer ended early: {}", String::from_utf8_lossy(&answer));
        }
        let text = String::from_utf8_lossy(&answer);
        if let Some(at) = text.find("\r\n\r\n") {
            let head = text[..at].to_ascii_lowercase();
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
        bail!("a publish ended with {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// How long a new node takes to its first stored message, and the resident bytes of an idle one.
pub(crate) fn idle(folder: &Path) -> anyhow::Result<(Duration, u64)> {
    let began = Instant::now();
    let node = Node::start(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stream = TcpStream::connect(&node.address).await?;
        exchange(&mut stream, &request(0, 0)).await
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
