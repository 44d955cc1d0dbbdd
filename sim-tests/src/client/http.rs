//! A connection to the node, made anew when it breaks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sprawl_server::quiet::Quiet;
use tokio::net::TcpStream;

/// Where the node listens.
pub(crate) const NODE: &str = "10.0.0.1:9070";

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An answer, whole.
    Came(u16, Value),
    /// None came: the connection broke, or patience ended.
    None,
}

impl Answer {
    /// The body of a success.
    pub(crate) fn ok(&self) -> Option<&Value> {
        match self {
            Answer::Came(200, body) => Some(body),
            Answer::Came(..) | Answer::None => None,
        }
    }

    /// Whether nobody knows what became of the request.
    pub(crate) fn is_unclear(&self) -> bool {
        matches!(self, Answer::None | Answer::Came(504, _))
    }
}

/// A request's headers beside those that all have.
pub(crate) type Headers<'a> = &'a [(String, String)];

/// A client's connection.
#[derive(Default)]
pub(crate) struct Http {
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub(crate) async fn get(&mut self, path: &str, patience: Duration) -> Answer {
        self.ask("GET", path, &[], Bytes::new(), patience).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value, patience: Duration) -> Answer {
        self.ask("POST", path, &[], body.to_string().into(), patience).await
    }

    /// Sends a request. Without an answer in time the connection is dropped in the middle.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Bytes,
        patience: Duration,
    ) -> Answer {
        let exchange = self.exchange(method, path, headers, body);
        match tokio::time::timeout(patience, exchange).await {
            Ok(Some((status, body))) => Answer::Came(status, body),
            Ok(None) | Err(_) => {
                // An answer to this request may still be on its way: it must not be taken for
                // that of the next one.
                self.open = None;
                Answer::None
            }
        }
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Bytes,
    ) -> Option<(u16, Value)> {
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", NODE);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("content-type", "application/json");
        let request = request.body(Full::new(body)).ok()?;
        if self.open.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(NODE).await.ok()?;
            let (open, connection) = handshake(TokioIo::new(Quiet::new(stream))).await.ok()?;
            tokio::spawn(async move {
                // How a connection ends is seen by whoever waits for an answer.
                let _ = connection.await;
            });
            self.open = Some(open);
        }
        let open = self.open.as_mut()?;
        open.ready().await.ok()?;
        let response = open.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}
