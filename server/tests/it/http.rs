//! A client of its own: HTTP/1.1 by hand, so that it shares no mistake with the server.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection that is kept open.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends a request and reads its answer. An error leaves the fate of the request unknown.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: node\r\ncontent-length: {length}\r\n");
        let mut request = format!("{head}\r\n").into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        self.receive()
    }

    /// Sends bytes as they are and reads an answer.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        self.stream.write_all(bytes)?;
        self.receive()
    }

    /// An answer may take this long from now on.
    pub(crate) fn waits(&self, span: Duration) {
        self.stream.set_read_timeout(Some(span)).expect("a span that is not zero");
    }

    /// A second handle to write by.
    pub(crate) fn writer(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Ends the connection.
    pub(crate) fn shutdown(&self) {
        // An error means that the other side has ended it already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn receive(&mut self) -> io::Result<Reply> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end);
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let reply = Reply { status: status.ok_or_else(|| bad("no status"))?, head, body: vec![] };
        let length = reply.header("content-length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| bad("no content-length"))?;
        while self.read.len() < length {
            self.fill()?;
        }
        let body = self.read.drain(..length).collect();
        Ok(Reply { body, ..reply })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut part = [0; 16 << 10];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    self.read.extend_from_slice(&part[..bytes]);
                    return Ok(());
                }
                // A read with a time limit is not taken up again by itself after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn request(address: &str, method: &str, path: &str, body: &str) -> Reply {
    let sent = Connection::open(address)
        .and_then(|mut connection| connection.send(method, path, body.as_bytes()));
    sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

#[track_caller]
pub(crate) fn get(address: &str, path: &str) -> Reply {
    request(address, "GET", path, "")
}

/// Every message of a partition, in order, as the node gives them page by page.
#[track_caller]
pub(crate) fn read_all(address: &str, topic: &str) -> Vec<Value> {
    let mut connection = Connection::open(address).expect("the node listens");
    let (mut all, mut next) = (Vec::new(), 0);
    loop {
        let path = format!("/topics/{topic}/messages?offset={next}&max=1000");
        let reply = connection.send("GET", &path, b"").expect("an answer");
        let page = reply.json();
        assert_eq!(reply.status, 200, "{page}");
        all.extend(page["messages"].as_array().expect("messages").iter().cloned());
        next = page["next_offset"].as_u64().expect("next_offset");
        if next >= page["end_offset"].as_u64().expect("end_offset") {
            return all;
        }
    }
}
