//! Requests to nodes, tried again while that can help.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long an answer may take, beyond the wait that was asked for.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// The first pause between two tries; each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause that the client takes by itself.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest pause that a node may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// For how long something that is not needed any more is tried to be deleted.
const CLEANING: Duration = Duration::from_secs(5);

/// Talks to nodes.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    nodes: Arc<[String]>,
    /// The node that answered last.
    turn: Arc<AtomicUsize>,
}

/// What a node answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    retry_after: Option<Duration>,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The node could not be asked, or did not answer.
    #[error("cannot reach {node}: {why}; is a node running there?")]
    Unreachable {
        /// The node.
        node: String,
        /// What the system says.
        why: String,
    },
    /// The node refused.
    #[error("{0}")]
    Refused(String),
}

impl Answer {
    /// What the problem document says.
    pub(crate) fn detail(&self) -> String {
        let detail = self.body.get("detail").and_then(Value::as_str);
        detail.map_or_else(|| format!("the node answered {}", self.status), str::to_owned)
    }

    /// The body, if the node did what it was asked.
    fn good(self) -> Result<Value, Failure> {
        if self.status.is_success() { Ok(self.body) } else { Err(Failure::Refused(self.detail())) }
    }

    /// After which time to try again, where the node says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after.map(|after| after.min(RETRY_AFTER_MAX))
    }

    /// Whether the same request may be answered otherwise later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        )
    }
}

impl Client {
    /// A client of these nodes.
    pub(crate) fn new(nodes: Vec<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT)
            .no_proxy()
            .build()
            .context("cannot make an HTTP client")?;
        let mut urls = Vec::new();
        for node in nodes {
            let url = if node.contains("://") { node } else { format!("http://{node}") };
            let parsed = reqwest::Url::parse(&url);
            let good = parsed.is_ok_and(|url| url.scheme() == "http" && url.has_host());
            anyhow::ensure!(good, "'{url}' is no URL of a node; write http://HOST:PORT");
            urls.push(url.trim_end_matches('/').to_owned());
        }
        anyhow::ensure!(!urls.is_empty(), "no node is named; write -n http://HOST:PORT");
        Ok(Self { http, nodes: urls.into(), turn: Arc::default() })
    }

    /// The same, for what a good node does within `patience`.
    pub(crate) fn patient(&self, patience: Duration) -> Patient {
        Patient { client: self.clone(), patience }
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Asks one node once.
    pub(crate) async fn ask_at(
        &self,
        node: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let request = self.http.request(method, format!("{node}{path}"));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        exchange(node, request.timeout(wait + ANSWER_WAIT)).await
    }

    /// Posts bytes to one node once.
    pub(crate) async fn post_at(
        &self,
        node: &str,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let request = self.http.post(format!("{node}{path}")).body(body);
        let request = request.header(reqwest::header::CONTENT_TYPE, media_type);
        exchange(node, request.timeout(ANSWER_WAIT)).await
    }

    /// Asks a node, and again while its refusal may pass or it cannot be reached, for `patience`.
    ///
    /// The request must be one that may be repeated: a publish names its id.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSE_MIN;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            let node = &self.nodes[turn % self.nodes.len()];
            let asked = self.ask_at(node, method.clone(), path, body, wait).await;
            let rest = match &asked {
                Ok(answer) if !answer.may_pass() => return asked,
                Ok(answer) => answer.retry_after().unwrap_or(pause),
                Err(_) => {
                    // Whoever failed first moves on; others that failed meanwhile follow.
                    let next = turn.wrapping_add(1);
                    let order = Ordering::Relaxed;
                    let _ = self.turn.compare_exchange(turn, next, order, order);
                    pause
                }
            };
            if Instant::now() + rest > deadline {
                return asked;
            }
            tokio::time::sleep(rest).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Deletes what a command has made. That something cannot be deleted is said, and no failure.
    pub(crate) async fn clean(&self, paths: impl Iterator<Item = String>) {
        for path in paths {
            let asked = self.ask(Method::DELETE, &path, None, Duration::ZERO, CLEANING).await;
            let why = match asked {
                Ok(answer) if answer.status.is_success() => continue,
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => continue,
                // A node that deletes nothing keeps it.
                Ok(answer) if answer.status == StatusCode::METHOD_NOT_ALLOWED => return,
                Ok(answer) => answer.detail(),
                Err(failure) => failure.to_string(),
            };
            eprintln!("sprawlctl: {path} and what was made with it stay: {why}");
            return;
        }
    }

    /// Asks for something that a good node answers with 200.
    ///
    /// # Errors
    ///
    /// [`Failure`]: what the node, or the system, says instead.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut last = None;
        for node in self.nodes.iter() {
            match self.ask_at(node, Method::GET, path, None, Duration::ZERO).await {
                Ok(answer) => return answer.good(),
                Err(failure) => last = Some(failure),
            }
        }
        let failure = last.unwrap_or_else(|| Failure::Refused("no node is named".to_owned()));
        Err(failure)
    }
}

/// Asks for what a good node does, each time for as long as there is patience.
#[derive(Clone, Debug)]
pub(crate) struct Patient {
    client: Client,
    pub(crate) patience: Duration,
}

impl Patient {
    /// Asks as [`Client::ask`] does; gives the body.
    ///
    /// # Errors
    ///
    /// [`Failure`]: what the node, or the system, says instead.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Value, Failure> {
        self.client.ask(method, path, body, wait, self.patience).await?.good()
    }
}

/// Sends a request and reads the whole of its answer.
async fn exchange(node: &str, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
    let unreachable = |error: reqwest::Error| Failure::Unreachable {
        node: node.to_owned(),
        why: root_of(&error),
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
    let seconds = retry_after.and_then(|after| after.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    let bytes = response.bytes().await.map_err(unreachable)?;
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Answer { status, body, retry_after })
}

/// The innermost reason of an error, which is the one that says something.
fn root_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
