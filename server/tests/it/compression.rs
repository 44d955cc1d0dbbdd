//! Answers are compressed for those who ask for it, and are the same when they are unpacked.

use std::io::Read as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::{Connection, Reply, request};
use crate::process::Node;

#[track_caller]
fn asked(address: &str, path: &str, accepts: &str) -> Reply {
    let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\naccept-encoding: {accepts}\r\n\r\n");
    let mut connection = Connection::open(address).expect("it listens");
    connection.send_raw(head.as_bytes()).expect("an answer")
}

#[test]
fn a_compressed_answer_is_the_same_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    // Some of it repeats and some does not, and all of it is more than is compressed in one turn.
    let mixed: String = (0..40_000_u64).map(|n| format!("{:x} ", n * n * 0x9e37_79b9)).collect();
    let body = json!({"topic": "t", "payload": mixed}).to_string();
    assert_eq!(request(at, "POST", "/publish", &body).status, 200);
    let path = "/topics/t/messages";
    let plain = asked(at, path, "identity");
    assert_eq!(
        (plain.header("content-encoding"), plain.header("vary")),
        (None, Some("accept-encoding"))
    );
    assert!(plain.body.len() > mixed.len());
    for accepts in ["gzip", "zstd", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.5"] {
        let packed = asked(at, path, accepts);
        assert!(packed.body.len() < plain.body.len() * 3 / 4, "{accepts}: {}", packed.body.len());
        let mut unpacked = Vec::new();
        match packed.header("content-encoding") {
            Some("gzip") => {
                let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
                decoder.read_to_end(&mut unpacked).expect("gzip");
            }
            Some("zstd") => {
                unpacked.resize(plain.body.len() + 1, 0);
                let length = zstd_safe::decompress(&mut unpacked[..], &packed.body).expect("zstd");
                unpacked.truncate(length);
            }
            other => panic!("{accepts}: {other:?}"),
        }
        assert!(unpacked == plain.body, "{accepts}: another answer");
    }
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "--max-time", "60", "--compressed", "-H", "accept-encoding: gzip"]);
    let output = curl.arg(format!("http://{at}{path}")).output().expect("curl runs");
    let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read["messages"][0]["payload"], mixed);
    // What is short is left alone.
    let short = asked(at, "/topics/t", "gzip, zstd");
    assert_eq!((short.status, short.header("content-encoding")), (200, None));
    assert_eq!(short.header("vary"), None);
}
