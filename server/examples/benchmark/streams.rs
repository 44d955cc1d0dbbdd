//! Servers of NATS JetStream under the loads of the nodes: a stream for each topic, a message that
//! begins with its id, and a durable consumer who acknowledges each message.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

use super::connection::RETRY_MAX;
use super::jetstream::{DurableConsumer, JetStream};
use super::load::{Load, TOPICS};
use super::nats;
use super::system::{Reader, Received, System, Writer};

/// Servers with a stream of their replicas for each topic.
#[derive(Clone)]
pub(crate) struct Streams {
    addresses: Arc<[String]>,
}

/// A connection that publishes to one stream.
pub(crate) struct StreamWriter {
    client: JetStream,
    load: Load,
    writer: usize,
    number: usize,
    request: String,
}

impl Streams {
    /// Makes the streams, and returns when they have had time to choose who leads them.
    pub(crate) async fn create(addresses: Vec<String>) -> anyhow::Result<Self> {
        for topic in 0..TOPICS {
            let address = &addresses[topic % addresses.len()];
            let name = format!("maker-{topic}");
            nats::with_stream(address, &name, &stream(topic), addresses.len()).await?;
        }
        tokio::time::sleep(nats::ELECTED).await;
        Ok(Self { addresses: addresses.into() })
    }

    fn address(&self, number: usize) -> &str {
        &self.addresses[number % self.addresses.len()]
    }
}

fn stream(topic: usize) -> String {
    format!("stream-{topic}")
}

impl System for Streams {
    type Writer = StreamWriter;
    type Reader = DurableConsumer;

    async fn writer(&self, load: Load, number: usize) -> anyhow::Result<StreamWriter> {
        let writer = load.first + number;
        let client = JetStream::open(self.address(number), &format!("writer-{writer}")).await?;
        Ok(StreamWriter { client, load, writer, number: 0, request: String::new() })
    }

    async fn reader(&self, topic: usize) -> anyhow::Result<DurableConsumer> {
        let name = format!("reader-{topic}");
        let client = JetStream::open(self.address(topic + 1), &name).await?;
        client.subscribe(&stream(topic), &name).await
    }
}

impl Writer for StreamWriter {
    fn prepare(&mut self) {
        self.request.clear();
        let stream = stream((self.writer - self.load.first) % TOPICS);
        for place in 0..self.load.batch {
            let id = format!("{}-{}-{place} ", self.writer, self.number);
            self.request += &self.client.message(&stream, &id, self.load.bytes);
        }
        self.number += 1;
    }

    async fn exchange(&mut self) -> anyhow::Result<()> {
        self.client.send(&self.request).await?;
        let stored = async {
            for _ in 0..self.load.batch {
                self.client.stored().await?;
            }
            anyhow::Ok(())
        };
        let stored = tokio::time::timeout(RETRY_MAX, stored).await;
        stored.context("JetStream does not acknowledge a publish")?
    }
}

impl Reader for DurableConsumer {
    async fn receive(&mut self) -> anyhow::Result<Received> {
        let ids = self.following().await?;
        Ok(Received { at: Instant::now(), ids })
    }

    async fn acknowledge(&mut self) -> anyhow::Result<()> {
        self.acknowledge_all().await
    }
}
