//! What clients publish, and publishing it in a closed loop: on each connection the next request
//! follows on the answer to the last one.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::post;
use super::nodes::Nodes;
use super::system::{System, Writer as _};

/// How many topics there are where nothing else is said.
pub(crate) const TOPICS: usize = 4;
/// How many bytes a payload has where nothing else is said.
pub(crate) const PAYLOAD_BYTES: usize = 1_024;

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Messages to a request.
    pub(crate) batch: usize,
    /// Bytes of each payload.
    pub(crate) bytes: usize,
    pub(crate) topics: Topics,
    pub(crate) form: Form,
    /// The number of its first writer: loads of other numbers have other ids.
    pub(crate) first: usize,
}

/// Where the messages of a load go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topics {
    /// Each connection has its topic, of so many.
    ByConnection(usize),
    /// Each message goes to the next one, of so many.
    ByMessage(usize),
}

/// How messages are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// `/publish`, or `/publish/batch` with an object a line.
    Json,
    /// The body is the one payload.
    Raw,
}

impl Load {
    /// Messages of 1 KiB as JSON, over few topics.
    pub(crate) fn of(connections: usize, batch: usize) -> Self {
        let (topics, form) = (Topics::ByConnection(TOPICS), Form::Json);
        Self { connections, batch, bytes: PAYLOAD_BYTES, topics, form, first: 0 }
    }

    /// Messages per second that are stored; any refusal is an error.
    pub(crate) async fn publish(self, address: &str, span: Duration) -> anyhow::Result<f64> {
        self.publish_among(&[address.to_owned()], span).await
    }

    /// The same, with each connection to the next one of some nodes.
    pub(crate) async fn publish_among(
        self,
        addresses: &[String],
        span: Duration,
    ) -> anyhow::Result<f64> {
        self.publish_to(&Nodes::at(addresses), span).await
    }

    /// The same of any system.
    pub(crate) async fn publish_to<S: System>(
        self,
        system: &S,
        span: Duration,
    ) -> anyhow::Result<f64> {
        let published = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut writers = Vec::new();
        for number in 0..self.connections {
            let (system, published) = (system.clone(), published.clone());
            writers.push(tokio::spawn(async move {
                let mut writer = system.writer(self, number).await?;
                while began.elapsed() < span {
                    writer.prepare();
                    writer.exchange().await?;
                    published.fetch_add(self.batch as u64, Ordering::Relaxed);
                }
                anyhow::Ok(())
            }));
        }
        for writer in writers {
            writer.await??;
        }
        Ok(published.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
    }
}

/// The requests of one connection, each with messages of ids of their own.
pub(crate) struct Requests {
    load: Load,
    writer: usize,
    number: usize,
    payload: String,
    body: Vec<u8>,
}

impl Requests {
    pub(crate) fn of(load: Load, writer: usize) -> Self {
        Self { load, writer, number: 0, payload: "x".repeat(load.bytes), body: Vec::new() }
    }

    /// The next request.
    pub(crate) fn following(&mut self) -> Vec<u8> {
        let (writer, number) = (self.load.first + self.writer, self.number);
        self.number += 1;
        if let Form::Raw = self.load.form {
            let path = format!("/topics/topic-{}/messages", self.topic(0));
            return post(&path, self.payload.as_bytes());
        }
        self.body.clear();
        for place in 0..self.load.batch {
            let topic = self.topic(place);
            writeln!(
                self.body,
                "{{\"topic\":\"topic-{topic}\",\"id\":\"{writer}-{number}-{place}\",\
                 \"payload\":\"{}\"}}",
                self.payload
            )
            .expect("memory takes it");
        }
        let path = if self.load.batch == 1 { "/publish" } else { "/publish/batch" };
        post(path, &self.body)
    }

    fn topic(&self, place: usize) -> usize {
        match self.load.topics {
            Topics::ByConnection(count) => self.writer % count,
            Topics::ByMessage(count) => {
                // Connections begin apart, so that they do not go about in step.
                let start = self.writer * count / self.load.connections;
                (start + self.number * self.load.batch + place) % count
            }
        }
    }
}
