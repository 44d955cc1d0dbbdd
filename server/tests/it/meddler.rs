//! A proxy before a real node that may answer in its place: what a broken node would do.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use crate::http::Connection;

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether it publishes the message of this number, as `bench` and `test` name theirs.
    pub(crate) fn publishes(&self, number: u64) -> bool {
        let id = self.json()["id"].as_str().map(str::to_owned).unwrap_or_default();
        self.path == "/publish" && id.ends_with(&format!("-{number}"))
    }

    /// Asks the node.
    pub(crate) fn forward(&self, node: &str) -> Said {
        let asked = Connection::open(node)
            .and_then(|mut connection| connection.send(&self.method, &self.path, &self.body));
        let reply = asked.expect("the node answers");
        Said { status: reply.status, body: reply.body }
    }
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Said {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into_bytes() }
    }

    /// The same with another text in the place of each `from`.
    #[track_caller]
    pub(crate) fn altered(self, from: &str, to: &str) -> Self {
        let body = String::from_utf8(self.body).expect("JSON is text");
        Self { body: body.replace(from, to).into_bytes(), ..self }
    }
}

/// Listens on a port of its own; gives its address. `meddle` says what each request is answered.
pub(crate) fn start<F>(meddle: F) -> String
where
    F: Fn(&Asked) -> Said + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address").to_string();
    let meddle = Arc::new(meddle);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, meddle) = (stream.expect("a connection"), meddle.clone());
            // An error means that the client went away.
            std::thread::spawn(move || serve(stream, meddle.as_ref()));
        }
    });
    address
}

fn serve(mut stream: TcpStream, meddle: &dyn Fn(&Asked) -> Said) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    while let Some(asked) = receive(&mut stream, &mut read)? {
        let Said { status, body } = meddle(&asked);
        let head = format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.into_bytes(), body].concat())?;
    }
    Ok(())
}

/// The next request; none when the client has ended.
fn receive(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if !fill(stream, read)? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let exact = String::from_utf8_lossy(&read[..end]).into_owned();
    read.drain(..end);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    while read.len() < length {
        if !fill(stream, read)? {
            return Ok(None);
        }
    }
    let mut words = exact.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Some(Asked { method, path, body: read.drain(..length).collect() }))
}

/// Reads more; gives whether there is any.
fn fill(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<bool> {
    let mut part = [0; 16 << 10];
    let bytes = stream.read(&mut part)?;
    read.extend_from_slice(&part[..bytes]);
    Ok(bytes > 0)
}
