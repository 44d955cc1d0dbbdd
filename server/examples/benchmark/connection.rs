//! One connection to a node: HTTP/1.1 by hand, so that the client costs little of the machine that
//! it shares with the node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The head of an answer must come within this many bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// About how long an answer is.
const ANSWER_BYTES: usize = 64 << 10;
/// How long a request that ends in 503 is sent again, and after what pause.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// The status of a node that cannot do it now, and could soon.
const UNAVAILABLE: u16 = 503;
/// The status of a batch of which each message has a status of its own.
const MULTI_STATUS: u16 = 207;

/// How many requests were sent again since this was last asked.
static RETRIES: AtomicU64 = AtomicU64::new(0);

/// How many requests were sent again after a 503, on all connections, since this was last called.
pub(crate) fn take_retries() -> u64 {
    RETRIES.swap(0, Ordering::Relaxed)
}

/// A connection with one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    /// The status of the last answer, and where its body begins.
    status: u16,
    body: usize,
}

/// What a node answered.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// Whether 503 is all that went wrong: with the request, or with messages of a batch.
    fn is_unavailable(&self) -> bool {
        if self.status != MULTI_STATUS {
            return self.status == UNAVAILABLE;
        }
        let messages: Vec<Value> = serde_json::from_slice(self.body).unwrap_or_default();
        let is_soon =
            |message: &Value| message["stored"] == "yes" || message["status"] == UNAVAILABLE;
        !messages.is_empty() && messages.iter().all(is_soon)
    }
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        Self::on(TcpStream::connect(address).await?)
    }

    /// Takes a socket that is connected.
    pub(crate) fn on(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(ANSWER_BYTES), status: 0, body: 0 })
    }

    /// Sends a request and reads its answer, whatever it is.
    pub(crate) async fn converse(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        self.body = loop {
            self.read().await?;
            let mut heads = self.answer.windows(4).take(HEAD_BYTES_MAX);
            if let Some(end) = heads.position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let body = self.body;
        let head = String::from_utf8_lossy(&self.answer[..body]).to_ascii_lowercase();
        self.status = head.get(9..12).context("an answer says its status")?.parse()?;
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let len: usize = len.context("an answer says its length")?.trim().parse()?;
        while self.answer.len() < body + len {
            self.read().await?;
        }
        Ok(self.answered())
    }

    /// The last answer.
    fn answered(&self) -> Answer<'_> {
        Answer { status: self.status, body: &self.answer[self.body..] }
    }

    /// Sends a request and reads its answer, which must be a success; gives its body. As long as
    /// the node says 503, of all or a part, as it does while a lead is handed over, the request is
    /// sent again: the ids of what it stored the first time are recognised.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        let began = Instant::now();
        while self.converse(request).await?.is_unavailable() && began.elapsed() < RETRY_MAX {
            RETRIES.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        let Answer { status, body } = self.answered();
        if status != 200 {
            let start = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
            bail!("a request ended with {status}: {start}");
        }
        Ok(body)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.answer).await? == 0 {
            let start = &self.answer[..self.answer.len().min(1_000)];
            bail!("the answer ended early: {:?}", String::from_utf8_lossy(start));
        }
        Ok(())
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n").into_bytes()
}

/// A request that adds what its body says.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    with_body("POST", path, body)
}

/// A request that makes something what its body says.
pub(crate) fn put(path: &str, body: &[u8]) -> Vec<u8> {
    with_body("PUT", path, body)
}

fn with_body(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\n\r\n"
    );
    let mut request = Vec::with_capacity(head.len() + len);
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(body);
    request
}
