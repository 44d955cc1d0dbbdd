//! More clients than there is room for: the node lives, and whoever has a place is served.

use crate::http::Connection;
use crate::process::{Node, SPRAWL, command};

/// How many descriptors the process may have; half of them are for connections.
const DESCRIPTORS: usize = 100;
/// How many clients come. Those without a place fit into the kernel's queue.
const CLIENTS: usize = 400;

#[test]
fn too_many_connections_do_not_starve_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut limited = command("sh");
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    limited.args(["-euc", &script, "sh", SPRAWL, "--http-port", "0", "--data-dir"]).arg(&data);
    let node = Node::spawn(limited, data.with_extension("log"));
    let open = || Connection::open(&node.address).expect("the kernel takes it");
    let mut held: Vec<Connection> = (0..CLIENTS).map(|_| open()).collect();
    let first = &mut held[0];
    for number in 0..20 {
        let body = format!(r#"{{"topic":"t-{number}","payload":"x"}}"#);
        let reply = first.send("POST", "/publish", body.as_bytes()).expect("it has a place");
        assert_eq!(reply.status, 200, "{}", reply.json());
    }
    // Those that wait are served when the others leave.
    let mut last = held.pop().expect("there are many");
    drop(held);
    let reply = last.send("GET", "/health", b"").expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.json());
}
