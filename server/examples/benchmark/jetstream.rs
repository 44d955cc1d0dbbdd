//! The NATS client protocol by hand, as far as JetStream's publishes and pull consumers need it:
//! lines of text, `PUB subject reply length` up and `MSG subject sid reply length` down.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::system::RECEIVE_WAIT;

/// How much is read from the socket at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// How many messages a pull asks for.
const PULL_MESSAGES: usize = 1_000;
/// How many pulls are under way, so that the server never waits for the next one.
const PULLS: u64 = 2;
/// How long the server keeps a pull or a consumer that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A connection to a server.
pub(crate) struct JetStream {
    stream: BufReader<TcpStream>,
    inbox: String,
    line: Vec<u8>,
    payload: Vec<u8>,
}

/// A durable consumer that acknowledges each message, on a connection of its own.
pub(crate) struct DurableConsumer {
    client: JetStream,
    stream: String,
    name: String,
    /// Messages that the pulls under way may still bring.
    wanted: usize,
    /// Where the acknowledgements go of what was received last.
    replies: Vec<String>,
}

/// What came to the inbox; its bytes are in `payload`.
enum Arrival {
    /// A message, with the subject for an answer to it.
    Message(Option<String>),
    /// Headers alone: a pull is over.
    Status,
}

/// What a consumer has brought.
struct Consumer {
    name: String,
    /// Messages of the present pull that are still to come.
    wanted: usize,
}

impl JetStream {
    /// Connects; `name` tells this connection from all others.
    pub(crate) async fn open(address: &str, name: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        let inbox = format!("_INBOX.{name}");
        let mut client = Self { stream, inbox, line: Vec::new(), payload: Vec::new() };
        let hello = json!({ "verbose": false, "pedantic": false, "headers": true, "lang": "hand" });
        client.send(&format!("CONNECT {hello}\r\nSUB {}.* 1\r\n", client.inbox)).await?;
        Ok(client)
    }

    /// Sends what is written in the protocol.
    pub(crate) async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.stream.get_mut().write_all(text.as_bytes()).await?)
    }

    /// Waits for the next message to the inbox, whose payload is in `self.payload` then. Gives the
    /// subject for an answer to it; status messages without a payload are passed over.
    async fn receive(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(Arrival::Message(reply)) = self.take().await? {
                return Ok(reply);
            }
        }
    }

    /// Takes one line of the server, with what belongs to it.
    async fn take(&mut self) -> anyhow::Result<Option<Arrival>> {
        self.line.clear();
        if self.stream.read_until(b'\n', &mut self.line).await? == 0 {
            bail!("the server closed the connection");
        }
        let line = std::str::from_utf8(&self.line)?.trim_end();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "INFO" | "+OK" | "PONG" => {}
            "PING" => self.send("PONG\r\n").await?,
            "MSG" | "HMSG" => {
                let len: usize = words.last().context("a length")?.parse()?;
                let reply = (words.len() == 5).then(|| words[3].to_owned());
                let bears_headers = words[0] == "HMSG";
                self.payload.resize(len + 2, 0);
                self.stream.read_exact(&mut self.payload).await?;
                let message = Arrival::Message(reply);
                return Ok(Some(if bears_headers { Arrival::Status } else { message }));
            }
            _ => bail!("the server said {line}"),
        }
        Ok(None)
    }

    /// Asks the server's own interface. Only its answers come without a place in a stream; what
    /// else comes first is passed over.
    async fn ask(&mut self, subject: &str, body: &Value) -> anyhow::Result<Value> {
        self.put(subject, body).await?;
        while self.receive().await?.is_some() {}
        let answer: Value = serde_json::from_slice(&self.payload)?;
        match answer.get("error") {
            Some(error) => bail!("{subject}: {error}"),
            None => Ok(answer),
        }
    }

    async fn put(&mut self, subject: &str, body: &Value) -> anyhow::Result<()> {
        let body = body.to_string();
        let (inbox, len) = (&self.inbox, body.len());
        self.send(&format!("PUB $JS.API.{subject} {inbox}.0 {len}\r\n{body}\r\n")).await
    }

    /// Makes a stream in files, of so many replicas, that takes the subject of its name.
    pub(crate) async fn create(&mut self, stream: &str, replicas: usize) -> anyhow::Result<()> {
        let config = json!({
            "name": stream, "subjects": [stream], "retention": "limits", "storage": "file",
            "num_replicas": replicas,
        });
        self.ask(&format!("STREAM.CREATE.{stream}"), &config).await.map(drop)
    }

    /// A message in the protocol, of so many bytes that begin with these.
    pub(crate) fn message(&self, stream: &str, start: &str, bytes: usize) -> String {
        format!("PUB {stream} {}.0 {bytes}\r\n{start:x<bytes$}\r\n", self.inbox)
    }

    /// Waits until one more message is acknowledged.
    pub(crate) async fn stored(&mut self) -> anyhow::Result<()> {
        self.receive().await?;
        let answer = &self.payload;
        if !answer.windows(6).any(|part| part == b"\"seq\":") {
            bail!("not stored: {}", String::from_utf8_lossy(answer));
        }
        Ok(())
    }

    /// Publishes with this many messages under way until the time is over; gives how many were
    /// acknowledged.
    pub(crate) async fn publish(
        &mut self,
        stream: &str,
        window: usize,
        bytes: usize,
        until: Instant,
    ) -> anyhow::Result<u64> {
        let message = self.message(stream, "", bytes);
        let window_of_them = message.repeat(window);
        let (mut under_way, mut stored) = (0, 0);
        loop {
            if Instant::now() < until {
                let text = &window_of_them.as_bytes()[..message.len() * (window - under_way)];
                self.stream.get_mut().write_all(text).await?;
                under_way = window;
            }
            // What has come already is taken too, so that what follows is sent at once.
            while under_way > 0 {
                self.stored().await?;
                (under_way, stored) = (under_way - 1, stored + 1);
                if self.stream.buffer().is_empty() {
                    break;
                }
            }
            if under_way == 0 && Instant::now() >= until {
                return Ok(stored);
            }
        }
    }

    /// Reads a stream from its beginning, again and again, until the time is over; gives how many
    /// messages came.
    pub(crate) async fn read(&mut self, stream: &str, until: Instant) -> anyhow::Result<u64> {
        let mut count = 0;
        let mut consumer = self.consume(stream).await?;
        while Instant::now() < until {
            let reply = self.receive().await?.context("a message of a stream says its place")?;
            // Names of consumers that are done are passed over: something of them may still come.
            let mut words = reply.split('.').skip(3);
            if words.next() != Some(consumer.name.as_str()) {
                continue;
            }
            count += 1;
            consumer.wanted -= 1;
            if words.last() == Some("0") {
                consumer = self.consume(stream).await?;
            } else if consumer.wanted == 0 {
                consumer.wanted = PULL_MESSAGES;
                self.pull(stream, &consumer.name).await?;
            }
        }
        Ok(count)
    }

    /// Makes a consumer that begins at the beginning and wants no acknowledgements.
    async fn consume(&mut self, stream: &str) -> anyhow::Result<Consumer> {
        let idle_max = IDLE_MAX.as_nanos() as u64;
        let config = json!({ "stream_name": stream, "config": {
            "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant",
            "inactive_threshold": idle_max, "mem_storage": true,
        } });
        let answer = self.ask(&format!("CONSUMER.CREATE.{stream}"), &config).await?;
        let name = answer["name"].as_str().context("a consumer has a name")?.to_owned();
        for _ in 0..PULLS {
            self.pull(stream, &name).await?;
        }
        Ok(Consumer { name, wanted: PULL_MESSAGES })
    }

    async fn pull(&mut self, stream: &str, consumer: &str) -> anyhow::Result<()> {
        let wanted = json!({ "batch": PULL_MESSAGES, "expires": IDLE_MAX.as_nanos() as u64 });
        self.put(&format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"), &wanted).await
    }
}

impl JetStream {
    /// Becomes a consumer of what comes to a stream from now on.
    pub(crate) async fn subscribe(
        mut self,
        stream: &str,
        name: &str,
    ) -> anyhow::Result<DurableConsumer> {
        let config = json!({ "stream_name": stream, "config": {
            "durable_name": name, "ack_policy": "explicit", "deliver_policy": "new",
            "replay_policy": "instant",
        } });
        self.ask(&format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &config).await?;
        let (stream, name) = (stream.to_owned(), name.to_owned());
        Ok(DurableConsumer { client: self, stream, name, wanted: 0, replies: Vec::new() })
    }
}

impl DurableConsumer {
    /// Waits for messages, but not for ever, and takes what came with the first of them; gives the
    /// first word of each.
    pub(crate) async fn following(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        while ids.is_empty() || !self.client.stream.buffer().is_empty() {
            while self.wanted <= PULL_MESSAGES {
                self.client.pull(&self.stream, &self.name).await?;
                self.wanted += PULL_MESSAGES;
            }
            // Only this wait can be given up without losing what it has read.
            let filled = self.client.stream.fill_buf();
            if tokio::time::timeout(RECEIVE_WAIT, filled).await.is_err() {
                break;
            }
            match self.client.take().await? {
                None => {}
                Some(Arrival::Message(reply)) => {
                    self.replies.push(reply.context("a message says where its answer goes")?);
                    let text = std::str::from_utf8(&self.client.payload)?;
                    ids.extend(text.split(' ').next().map(str::to_owned));
                    self.wanted = self.wanted.saturating_sub(1);
                }
                Some(Arrival::Status) => {
                    self.wanted = self.wanted.saturating_sub(pending(&self.client.payload));
                }
            }
        }
        Ok(ids)
    }

    /// Acknowledges each message that was received.
    pub(crate) async fn acknowledge_all(&mut self) -> anyhow::Result<()> {
        let acks = self.replies.drain(..).map(|reply| format!("PUB {reply} 4\r\n+ACK\r\n"));
        let acks: String = acks.collect();
        self.client.send(&acks).await
    }
}

/// How many messages a pull that is over did not bring.
fn pending(headers: &[u8]) -> usize {
    let headers = String::from_utf8_lossy(headers);
    let line = headers.lines().find_map(|line| line.strip_prefix("Nats-Pending-Messages: "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(PULL_MESSAGES)
}
