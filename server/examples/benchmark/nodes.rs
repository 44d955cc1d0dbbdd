//! Nodes as their clients see them, over HTTP.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use super::connection::{Connection, get, post};
use super::load::{Load, Requests};
use super::system::{RECEIVE_WAIT, Reader, Received, System, Writer};

/// One node or more.
#[derive(Clone)]
pub(crate) struct Nodes {
    addresses: Arc<[String]>,
}

/// A connection that publishes.
pub(crate) struct NodeWriter {
    connection: Connection,
    requests: Requests,
    request: Vec<u8>,
}

/// A connection that pulls from one subscription.
pub(crate) struct NodeReader {
    connection: Connection,
    pull: Vec<u8>,
    /// Where acknowledgements go.
    ack: String,
    /// What the last pull brought, to be acknowledged; empty when that is nothing.
    tokens: String,
}

#[derive(Deserialize)]
struct Pulled<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    id: &'a str,
    ack_token: &'a str,
}

impl Nodes {
    /// Those that answer here.
    pub(crate) fn at(addresses: &[String]) -> Self {
        Self { addresses: addresses.into() }
    }

    async fn connect(&self, number: usize) -> anyhow::Result<Connection> {
        Connection::open(&self.addresses[number % self.addresses.len()]).await
    }
}

impl System for Nodes {
    type Writer = NodeWriter;
    type Reader = NodeReader;

    async fn writer(&self, load: Load, number: usize) -> anyhow::Result<NodeWriter> {
        let connection = self.connect(number).await?;
        let requests = Requests::of(load, number);
        Ok(NodeWriter { connection, requests, request: Vec::new() })
    }

    async fn reader(&self, topic: usize) -> anyhow::Result<NodeReader> {
        let mut connection = self.connect(topic + 1).await?;
        let body = format!("{{\"id\":\"reader-{topic}\",\"topics\":[\"topic-{topic}\"]}}");
        connection.exchange(&post("/subscribe", body.as_bytes())).await?;
        let (path, wait) = (format!("/subscriptions/reader-{topic}"), RECEIVE_WAIT.as_secs());
        let pull = get(&format!("{path}/messages?max=1000&wait={wait}s"));
        Ok(NodeReader { connection, pull, ack: format!("{path}/ack"), tokens: String::new() })
    }
}

impl Writer for NodeWriter {
    fn prepare(&mut self) {
        self.request = self.requests.following();
    }

    async fn exchange(&mut self) -> anyhow::Result<()> {
        self.connection.exchange(&self.request).await.map(drop)
    }
}

impl Reader for NodeReader {
    async fn receive(&mut self) -> anyhow::Result<Received> {
        let answer = self.connection.exchange(&self.pull).await?;
        let at = Instant::now();
        let Pulled { messages } = serde_json::from_slice(answer)?;
        let tokens = messages.iter().map(|message| format!("\"{}\"", message.ack_token));
        self.tokens = tokens.collect::<Vec<_>>().join(",");
        let ids = messages.iter().map(|message| message.id.to_owned()).collect();
        Ok(Received { at, ids })
    }

    async fn acknowledge(&mut self) -> anyhow::Result<()> {
        let acks = format!("{{\"tokens\":[{}]}}", self.tokens);
        self.connection.exchange(&post(&self.ack, acks.as_bytes())).await.map(drop)
    }
}
