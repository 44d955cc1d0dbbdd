//! The kernel's own record: no success leaves a socket before the sync that covers it returned.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::http::Connection;
use crate::process::{Node, SPRAWL, command, eventually, signal};

/// How many messages are published one after the other.
const SERIAL: usize = 30;
/// How many publishers then publish at once.
const WRITERS: usize = 8;
/// How many messages each of them publishes.
const EACH: usize = 25;
/// System calls that write or sync; all that RocksDB and the sockets use.
const CALLS: &str =
    "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fdatasync,fsync,sync_file_range,msync";

/// One system call, with the lines of the record at which it began and ended.
#[derive(Debug)]
struct Call {
    name: String,
    /// What stands between its parentheses.
    arguments: String,
    result: i64,
    began: usize,
    ended: usize,
}

impl Call {
    fn descriptor(&self) -> &str {
        self.arguments.split([',', ')']).next().unwrap_or("").trim()
    }

    fn syncs(&self, descriptor: &str) -> bool {
        let sync = self.name == "fdatasync" || self.name == "fsync";
        sync && self.result == 0 && self.descriptor() == descriptor
    }
}

/// Reads the record; a call that another thread's interrupted stands in two lines.
fn calls(record: &str) -> Vec<Call> {
    let mut all = Vec::new();
    let mut open: BTreeMap<&str, (String, String, usize)> = BTreeMap::new();
    for (at, line) in record.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            let (name, arguments) = begun.split_once('(').unwrap_or((begun, ""));
            open.insert(thread, (name.to_owned(), arguments.to_owned(), at));
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            let Some((name, begun, began)) = open.remove(thread) else { continue };
            let (more, result) = end.rsplit_once(" = ").unwrap_or((end, ""));
            let arguments = begun + more;
            all.push(Call { name, arguments, result: number(result), began, ended: at });
        } else if let Some((call, result)) = rest.rsplit_once(" = ") {
            let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
            let (name, arguments) = (name.to_owned(), arguments.to_owned());
            all.push(Call { name, arguments, result: number(result), began: at, ended: at });
        }
    }
    all
}

fn number(result: &str) -> i64 {
    result.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(-1)
}

/// Starts a node under strace; `None` where that is not allowed.
fn start_traced(data: &Path, record: &Path) -> Option<(Node, u32)> {
    let allowed = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut traced = command("strace");
    traced.args(["-f", "-s", "4096", "-e", CALLS, "-o"]).arg(record).arg(SPRAWL);
    traced.args(["--http-port", "0", "--data-dir"]).arg(data);
    let node = Node::spawn(traced, data.with_extension("log"));
    let children = format!("/proc/{0}/task/{0}/children", node.pid());
    let child = std::fs::read_to_string(children).expect("Linux says who strace started");
    let pid = child.trim().parse().expect("strace started one process");
    Some((node, pid))
}

fn publish(address: &str, ids: impl Iterator<Item = String>) {
    let mut connection = Connection::open(address).expect("it listens");
    for id in ids {
        let body = json!({"topic": "t", "id": id, "payload": format!("payload of {id}")});
        let reply = connection.send("POST", "/publish", body.to_string().as_bytes());
        assert_eq!(reply.expect("an answer").status, 200);
    }
}

/// Shows that a message was written to the log, synced there, and only then answered.
#[track_caller]
fn in_order(calls: &[Call], id: &str) {
    let answer = format!("\\\"id\\\":\\\"{id}\\\"");
    let answered = calls.iter().find(|call| {
        call.arguments.contains("HTTP/1.1 200 OK") && call.arguments.contains(&answer)
    });
    let answered = answered.unwrap_or_else(|| panic!("no answer to {id} in the record"));
    let payload = format!("payload of {id}");
    let written: Vec<&Call> = calls
        .iter()
        .filter(|call| call.arguments.contains(&payload) && !call.arguments.contains("HTTP/1.1"))
        .filter(|call| call.result > 0 && call.ended < answered.began)
        .collect();
    assert!(!written.is_empty(), "{id} was answered before it was written");
    let synced = written.iter().any(|write| {
        let mut later = calls.iter().filter(|call| call.began > write.ended);
        later.any(|call| call.syncs(write.descriptor()) && call.ended < answered.began)
    });
    assert!(synced, "{id} was answered before a sync of what it was written to returned");
}

#[test]
fn no_success_leaves_before_its_sync_returned() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record");
    let Some((node, pid)) = start_traced(&folder.path().join("data"), &record) else {
        println!("SKIPPED: strace is missing or may not trace");
        return;
    };
    let ids = |writer: usize, count: usize| (0..count).map(move |n| format!("m-{writer}-{n}-end"));
    publish(&node.address, ids(0, SERIAL));
    std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let address = &node.address;
            scope.spawn(move || publish(address, ids(writer, EACH)));
        }
    });
    signal(pid, "TERM");
    assert_eq!(node.ended().code(), Some(0));
    let record = eventually("the record", || std::fs::read_to_string(&record).ok());
    let calls = calls(&record);
    let all = ids(0, SERIAL).chain((1..=WRITERS).flat_map(|writer| ids(writer, EACH)));
    all.for_each(|id| in_order(&calls, &id));
    let syncs = calls.iter().filter(|call| call.name == "fdatasync" || call.name == "fsync");
    let syncs = syncs.count();
    assert!(syncs >= SERIAL, "{syncs} syncs for {SERIAL} messages one after the other");
}

#[test]
fn the_record_is_understood() {
    let record = "7 write(9, \"payload of a\", 12) = 12\n\
                  7 fdatasync(9 <unfinished ...>\n\
                  8 writev(5, [{iov_base=\"HTTP/1.1 200 OK \\\"id\\\":\\\"b\\\"\"}], 1) = 30\n\
                  7 <... fdatasync resumed>) = 0\n\
                  8 writev(5, [{iov_base=\"HTTP/1.1 200 OK \\\"id\\\":\\\"a\\\"\"}], 1) = 30\n";
    let good = calls(record);
    assert_eq!(good.len(), 4);
    in_order(&good, "a");
    for bad in [
        record.replace("8 writev", "6 writev").replace("\"a\\\"\"", "\"c\\\"\""),
        record.replace("fdatasync(9", "fdatasync(8"),
        record.replace("resumed>) = 0", "resumed>) = -1 EIO"),
        record.replace("\\\"id\\\":\\\"b", "\\\"id\\\":\\\"a"),
    ] {
        let judged = std::panic::catch_unwind(|| in_order(&calls(&bad), "a"));
        assert!(judged.is_err(), "{bad}");
    }
}
