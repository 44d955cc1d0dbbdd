//! A disk that takes no more: publishes are refused and say so, reads go on, health is critical.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::http::{Connection, get, read_all};
use crate::process::{Node, eventually};

/// How large the payloads are that fill a disk.
const PAYLOAD_BYTES: usize = 1 << 20;
/// How many of them fill any disk of these tests.
const PUBLISHES_MAX: usize = 1_000;

/// A payload that no compression makes smaller by much.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 75) as u8)
    };
    std::iter::repeat_with(letter).take(PAYLOAD_BYTES).collect()
}

/// Publishes until the node refuses; gives how many messages it acknowledged.
fn fill(address: &str) -> usize {
    let mut connection = Connection::open(address).expect("it listens");
    for number in 0..PUBLISHES_MAX {
        let payload = noise(number as u64);
        let body = json!({"topic": "t", "id": format!("m-{number}"), "payload": payload});
        let reply = connection.send("POST", "/publish", body.to_string().as_bytes());
        let reply = reply.expect("an answer");
        if reply.status == 200 {
            continue;
        }
        let problem = reply.json();
        // The message that found the disk full waits, and its fate is not known; the next ones
        // are refused.
        if reply.status == 504 {
            assert_eq!(problem["stored"], "unknown", "{problem}");
        }
        let refused = eventually("a refusal", || {
            let body = json!({"topic": "t", "id": format!("late-{number}"), "payload": payload});
            let reply = connection.send("POST", "/publish", body.to_string().as_bytes());
            Some(reply.expect("an answer")).filter(|reply| reply.status == 503)
        });
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:sprawl:problem:disk-full", "{problem}");
        assert_eq!((&problem["stored"], &problem["id"].is_string()), (&json!("no"), &true));
        assert!(refused.header("retry-after").is_some(), "{}", refused.head);
        return number;
    }
    panic!("{PUBLISHES_MAX} messages of {PAYLOAD_BYTES} bytes did not fill the disk");
}

fn says_so_and_reads_on(address: &str, acked: usize) {
    let health = get(address, "/health");
    let said = health.json();
    assert_eq!((health.status, &said["status"]), (503, &json!("critical")), "{said}");
    assert_eq!(said["findings"][0]["subject"], "disk", "{said}");
    let found = read_all(address, "t");
    assert!(found.len() >= acked, "{acked} acknowledged, {} found", found.len());
    for (number, message) in found.iter().take(acked).enumerate() {
        assert_eq!(message["id"], format!("m-{number}"));
    }
}

#[test]
fn the_configured_bound_refuses_publishes_and_reads_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let node = Node::start_with(&data, &["--disk-max-size", "64MiB"]);
    let acked = fill(&node.address);
    assert!(acked > 10, "only {acked} messages fit");
    says_so_and_reads_on(&node.address, acked);
    assert_eq!(node.stop().code(), Some(0));
    let node = Node::start(&data);
    assert_eq!(get(&node.address, "/health").status, 200, "without the bound there is room");
    assert!(read_all(&node.address, "t").len() >= acked);
}

/// A small file system in memory, unmounted when it is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    fn grow(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let grown = Command::new("mount").args(["-o", &size]).arg(&self.0).status();
        assert!(grown.expect("mount runs").success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a node that a failed test left behind may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_publishes_until_there_is_room_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Tmpfs::mount(&folder.path().join("disk"), 100) else {
        println!("SKIPPED: no right to mount a tmpfs");
        return;
    };
    let node = Node::start(&disk.0.join("data"));
    let acked = fill(&node.address);
    assert!(acked > 10, "only {acked} messages fit");
    says_so_and_reads_on(&node.address, acked);
    disk.grow(400);
    let body = r#"{"topic":"t","id":"after","payload":"there is room"}"#;
    eventually("a publish that is taken", || {
        let mut connection = Connection::open(&node.address).ok()?;
        let reply = connection.send("POST", "/publish", body.as_bytes()).ok()?;
        (reply.status == 200).then_some(())
    });
    eventually("health", || (get(&node.address, "/health").status == 200).then_some(()));
    let found = read_all(&node.address, "t");
    assert_eq!(found.last().map(|message| &message["id"]), Some(&json!("after")));
    drop(node);
}
