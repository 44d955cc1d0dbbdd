//! Event streams, with curl as the client: coming back acknowledges, and the stream ends now and
//! then so that a client that only listens comes back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{get, request};
use crate::process::{Node, end_of, eventually};

/// One event: its id and its data.
type Event = (String, Value);

/// A stream that curl reads into a file.
struct Stream {
    curl: Child,
    heard: PathBuf,
}

impl Stream {
    #[track_caller]
    fn open(node: &Node, folder: &Path, last: Option<&str>, flags: &[&str]) -> Self {
        let heard = tempfile::Builder::new().tempfile_in(folder).expect("a file");
        let (file, heard) = heard.keep().expect("a file that stays");
        let mut curl = Command::new("curl");
        curl.args(["-sSN", "--max-time", "100"]).args(flags);
        if let Some(last) = last {
            curl.args(["-H", &format!("last-event-id: {last}")]);
        }
        curl.arg(format!("http://{}/subscriptions/s/stream", node.address));
        let curl = curl.stdin(Stdio::null()).stdout(file).spawn().expect("curl runs");
        Self { curl, heard }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.heard).expect("a file")
    }

    /// The events that are there in whole.
    fn events(&self) -> Vec<Event> {
        let text = self.text();
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let field = |event: &str, name: &str| {
            let mut lines = event.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let messages = whole.split("\n\n").filter(|event| event.starts_with("event: message\n"));
        messages
            .map(|event| {
                let data = field(event, "data").expect("data");
                let id = field(event, "id").expect("an id");
                (id, serde_json::from_str(&data).expect("JSON"))
            })
            .collect()
    }

    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Event> {
        eventually("events", || Some(self.events()).filter(|events| events.len() >= count))
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        end_of(&mut self.curl)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

#[track_caller]
fn subscribe(node: &Node, ack_wait: &str) {
    let body = json!({"id": "s", "topics": ["t"], "ack_wait": ack_wait}).to_string();
    let reply = request(&node.address, "POST", "/subscribe", &body);
    assert_eq!(reply.status, 200, "{}", reply.json());
}

#[track_caller]
fn publish(node: &Node, payload: &str) {
    let body = json!({"topic": "t", "payload": payload}).to_string();
    assert_eq!(request(&node.address, "POST", "/publish", &body).status, 200);
}

fn payloads(events: &[Event]) -> Vec<&str> {
    events.iter().filter_map(|(_, data)| data["payload"].as_str()).collect()
}

#[test]
fn coming_back_acknowledges_and_the_rest_comes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    subscribe(&node, "3s");
    for payload in ["one", "two", "three"] {
        publish(&node, payload);
    }
    let mut first = Stream::open(&node, folder.path(), None, &["-i"]);
    let events = first.wait_for(3);
    assert_eq!(payloads(&events), ["one", "two", "three"]);
    assert!(events.iter().all(|(_, data)| data["attempt"] == 1 && data["ack_token"].is_string()));
    let head = first.text().to_lowercase();
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\n\r\nretry: 100\n\n"), "{head}");
    // Nobody acknowledges, so it ends by itself, and ends well.
    assert!(first.ended().success());

    let second = Stream::open(&node, folder.path(), Some(&events[1].0), &[]);
    let again = second.wait_for(1);
    assert_eq!((payloads(&again), &again[0].1["attempt"]), (vec!["three"], &json!(2)));
    assert_ne!(again[0].0, events[2].0, "an event has an id of its own");
    let third = Stream::open(&node, folder.path(), Some(&again[0].0), &[]);
    eventually("a stream that is open", || third.text().contains("retry").then_some(()));
    drop((second, third));
    let pulled = get(&node.address, "/subscriptions/s/messages?wait=10s").json();
    assert_eq!(pulled["messages"], json!([]), "all of it is acknowledged");
}

#[test]
fn whoever_only_listens_gets_everything_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    subscribe(&node, "60s");
    let mut connection = crate::http::Connection::open(&node.address).expect("it listens");
    for number in 0..2_100 {
        let body = json!({"topic": "t", "payload": number.to_string()}).to_string();
        let reply = connection.send("POST", "/publish", body.as_bytes()).expect("an answer");
        assert_eq!(reply.status, 200);
    }
    let mut all = Vec::new();
    let mut last: Option<String> = None;
    for wanted in [1_000, 1_000, 100] {
        let mut stream = Stream::open(&node, folder.path(), last.as_deref(), &[]);
        let mut events = stream.wait_for(wanted);
        assert_eq!(events.len(), wanted);
        if wanted == 1_000 {
            assert!(stream.ended().success(), "its end is its limit");
        }
        last = events.last().map(|(id, _)| id.clone());
        all.append(&mut events);
    }
    let expected: Vec<String> = (0..2_100).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&all), expected);
    assert!(all.iter().all(|(_, data)| data["attempt"] == 1));
}

#[test]
fn acknowledging_beside_it_keeps_a_stream_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    subscribe(&node, "30s");
    // A session that nobody knows is no reason not to listen.
    let mut stream = Stream::open(&node, folder.path(), Some("nobody-7"), &[]);
    publish(&node, "one");
    let events = stream.wait_for(1);
    let tokens = json!({"tokens": [events[0].1["ack_token"]]}).to_string();
    let acked = request(&node.address, "POST", "/subscriptions/s/ack", &tokens).json();
    assert_eq!(acked["acked"], 1);
    // A third of 30 s after the first message the stream would have ended; it is silent instead.
    eventually("a sign of life", || stream.text().ends_with("\n:\n\n").then_some(()));
    publish(&node, "two");
    assert_eq!(payloads(&stream.wait_for(2)), ["one", "two"]);
    // The second one is not acknowledged.
    assert!(stream.ended().success());
}

#[test]
fn a_stop_ends_streams_and_an_unknown_subscription_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let absent = get(&node.address, "/subscriptions/none/stream");
    assert_eq!(
        (absent.status, absent.header("content-type")),
        (404, Some("application/problem+json"))
    );
    assert_eq!(get(&node.address, "/subscriptions/none/stream?max=1").status, 400);
    subscribe(&node, "30s");
    let mut streams = [&[][..], &["--http2-prior-knowledge"]]
        .map(|flags| Stream::open(&node, folder.path(), None, flags));
    for stream in &streams {
        eventually("an open stream", || stream.text().contains("retry").then_some(()));
    }
    let began = Instant::now();
    assert_eq!(node.stop().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for stream in &mut streams {
        assert!(stream.ended().success());
    }
}
