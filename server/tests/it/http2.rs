//! HTTP/2 without TLS, by prior knowledge: curl is a client, and hyper and raw sockets are where
//! it is too well behaved.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::http::{Connection, get, request};
use crate::process::Node;

/// What every client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn curl(arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2-prior-knowledge", "--max-time", "60"]).args(arguments);
    curl
}

/// Runs curl, which itself gives up after a minute.
#[track_caller]
fn sent(curl: &mut Command) -> Output {
    curl.output().expect("curl runs")
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn curl_speaks_http2_to_the_same_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let url = |path: &str| format!("http://{}{path}", node.address);
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}\n"];
    let body = json!({"topic": "t", "payload": "x".repeat(1 << 20)}).to_string();
    let file = folder.path().join("body");
    std::fs::write(&file, &body).expect("written");
    let data = format!("@{}", file.display());
    let publish = sent(curl(&version).args(["--data-binary", &data, &url("/publish")]));
    assert_eq!(said(&publish), "2 200\n");
    // Larger than a stream's window, so that it goes out in pieces.
    let read = sent(&mut curl(&[&url("/topics/t/messages")]));
    let read: Value = serde_json::from_str(&said(&read)).expect("JSON");
    assert_eq!(read["messages"][0]["payload"].as_str().map(str::len), Some(1 << 20));
    let absent = sent(curl(&version).arg(url("/nowhere")));
    assert_eq!(said(&absent), "2 404\n");
    // HTTP/1 is served beside it.
    assert_eq!(get(&node.address, "/health").status, 200);
}

/// A connection of HTTP/2, driven in the background.
async fn connect(address: &str) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (requests, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    requests
}

fn read(address: &str, path: &str) -> hyper::Request<Empty<Bytes>> {
    let uri = format!("http://{address}{path}");
    hyper::Request::get(uri).body(Empty::new()).expect("a request")
}

/// What the clock of a test allows.
async fn soon<T>(what: &str, comes: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, comes).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let requests = connect(&node.address).await;
    let answers = (0..1_000).map(|number| {
        let mut requests = requests.clone();
        let request = read(&node.address, &format!("/topics/{number}"));
        async move {
            let answer = requests.send_request(request).await.expect("an answer");
            let status = answer.status().as_u16();
            (status, answer.collect().await.expect("a body").to_bytes().len() > 100)
        }
    });
    let answers = soon("the answers", futures_util::future::join_all(answers)).await;
    assert_eq!(answers, [(404, true); 1_000]);
}

#[tokio::test]
async fn a_stream_whose_reader_takes_nothing_is_reset_and_its_connection_lives() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start_with(&folder.path().join("data"), &["--log-level", "debug"]);
    let body = json!({"topic": "t", "payload": "x".repeat(4 << 20)}).to_string();
    assert_eq!(request(&node.address, "POST", "/publish", &body).status, 200);
    let mut requests = connect(&node.address).await;
    let asked = requests.send_request(read(&node.address, "/topics/t/messages")).await;
    let mut answer = asked.expect("an answer");
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    // Its window is never opened, because nothing of the body is asked for.
    let reset = async {
        loop {
            let health = requests.send_request(read(&node.address, "/health")).await;
            assert_eq!(health.expect("an answer").status(), 200);
            if node.log().contains("takes nothing is reset") {
                return;
            }
            pause.tick().await;
        }
    };
    soon("the reset", reset).await;
    let mut taken = 0;
    let ended = loop {
        match answer.frame().await.expect("it does not end well") {
            Ok(frame) => taken += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => break error,
        }
    };
    assert!(taken < 4 << 20, "{taken}: {ended}");
    let health = requests.send_request(read(&node.address, "/health")).await;
    assert_eq!(health.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_poll_over_http2_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    request(&node.address, "POST", "/publish", r#"{"topic":"t","payload":"x"}"#);
    let mut requests = connect(&node.address).await;
    let polled = requests.send_request(read(&node.address, "/topics/t/messages?offset=1&wait=30s"));
    // Requests of a connection arrive in order, so when this one is answered the poll is there.
    let health = requests.send_request(read(&node.address, "/health")).await;
    assert_eq!(health.expect("an answer").status(), 200);
    let began = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || node.stop());
    let answer = soon("the poll", polled).await.expect("an answer");
    let answer = answer.collect().await.expect("a body").to_bytes();
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer["messages"], json!([]));
    drop(requests);
    assert_eq!(stopped.await.expect("it ends").code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn whoever_does_not_get_to_the_point_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let starts = [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost: "];
    // All at once: the node waits for each as long as it waits for a head.
    let waiting = starts.map(|start| {
        let mut stream = TcpStream::connect(&node.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        stream.write_all(start).expect("it takes it");
        stream
    });
    for mut stream in waiting {
        stream.read_to_end(&mut Vec::new()).expect("the node ends it");
    }
    // After the preface, what is no HTTP/2 ends the connection too.
    let mut stream = TcpStream::connect(&node.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    stream.write_all(PREFACE).expect("it takes it");
    stream.write_all(&[0xff; 64]).expect("it takes it");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_ok() || !rest.is_empty(), "{ended:?}");
    let mut connection = Connection::open(&node.address).expect("it listens");
    assert_eq!(connection.send("GET", "/health", b"").expect("an answer").status, 200);
}
