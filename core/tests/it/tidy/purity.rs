//! L1, L2 and L3 inside core: what its source may name.

use super::source::{Source, words};
use super::{complaints, holds_everywhere};

/// What the world offers and core does not take, with the reason.
const WORLD: [(&str, &str); 8] = [
    ("std::fs", "the driver has the disk"),
    ("std::net", "the driver has the network"),
    ("std::env", "options are handed in"),
    ("std::thread", "a machine is one thread's"),
    ("std::process", "only the binaries have a process"),
    ("std::os", "core runs anywhere"),
    ("std::time::Instant", "time is handed in"),
    ("std::time::SystemTime", "time is handed in"),
];

/// Where core may derive serde: what leaves the process, as it is stored or agreed on, and of the
/// machines' time the wall's alone.
const SERDE: [(&str, Option<&str>); 29] = [
    ("core/src/wire.rs", None),
    ("core/src/ids.rs", None),
    ("core/src/machine/time.rs", Some("WallTime")),
    ("core/src/cluster/message.rs", None),
    ("core/src/cluster/metadata/change.rs", None),
    ("core/src/cluster/metadata/nodes.rs", None),
    ("core/src/cluster/metadata/partitions.rs", Some("Standing")),
    ("core/src/cluster/metadata/partitions.rs", Some("Member")),
    ("core/src/cluster/metadata/snapshot.rs", None),
    ("core/src/cluster/founding.rs", None),
    ("core/src/cluster/dht.rs", Some("Route")),
    ("core/src/cluster/gossip/datagram.rs", None),
    ("core/src/cluster/gossip/member.rs", Some("Incarnation")),
    ("core/src/cluster/gossip/member.rs", Some("Description")),
    ("core/src/cluster/gossip/member.rs", Some("Load")),
    ("core/src/cluster/gossip/news.rs", None),
    ("core/src/cluster/pattern.rs", None),
    ("core/src/cluster/subscription.rs", None),
    ("core/src/cluster/topic.rs", None),
    ("core/src/broker/routing/wire.rs", None),
    ("core/src/broker/replica/entry.rs", None),
    ("core/src/broker/replica/epochs.rs", Some("Epochs")),
    ("core/src/broker/replica/frame.rs", None),
    ("core/src/broker/replica/message.rs", None),
    ("core/src/broker/replica/state.rs", None),
    ("core/src/broker/replica/blocks.rs", None),
    ("core/src/broker/replica/cursor.rs", None),
    ("core/src/broker/replica/producers.rs", None),
    ("core/src/broker/replica/runs.rs", None),
];

fn in_core(source: &Source) -> bool {
    source.path.starts_with("core/src/")
}

/// Every path that begins with `std`, with its place: `use` groups are taken apart.
fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for at in words(code, "std") {
        if let Some(rest) = code[at + 3..].strip_prefix("::") {
            branch("std", rest, at, &mut all);
        }
    }
    all
}

/// Reads one branch of a path tree behind `prefix::`; gives what follows it.
fn branch<'a>(prefix: &str, rest: &'a str, at: usize, all: &mut Vec<(usize, String)>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut group) = rest.strip_prefix('{') {
        loop {
            group = branch(prefix, group, at, all).trim_start();
            match group.strip_prefix(',') {
                Some(next) if next.trim_start().starts_with('}') => group = next.trim_start(),
                Some(next) => {
                    group = next;
                    continue;
                }
                None => {}
            }
            return group.strip_prefix('}').unwrap_or("");
        }
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let path = format!("{prefix}::{}", &rest[..end]);
    match rest[end..].strip_prefix("::") {
        Some(deeper) if end > 0 => branch(&path, deeper, at, all),
        Some(_) | None => {
            all.push((at, path));
            let after = rest[end..].trim_start();
            // `use a::b as c` and `a::*`
            let after = after.strip_prefix('*').unwrap_or(after);
            match after.strip_prefix("as ") {
                Some(renamed) => renamed.trim_start_matches(|c: char| c.is_alphanumeric()),
                None => after,
            }
        }
    }
}

/// L2: core takes nothing from the world by itself.
fn world(source: &Source) -> Vec<String> {
    if !in_core(source) {
        return vec![];
    }
    let mut found = Vec::new();
    for (at, path) in std_paths(&source.code) {
        for (banned, why) in WORLD {
            let below = path.strip_prefix(banned);
            if below.is_some_and(|rest| rest.is_empty() || rest.starts_with("::")) {
                found.push(source.complain(at, &format!("core may not use {path}: {why}")));
            }
        }
    }
    for (word, why) in [
        ("async", "a machine takes one input at a time"),
        ("await", "a machine takes one input at a time"),
        ("println", "the driver reports"),
        ("eprintln", "the driver reports"),
        ("dbg", "the driver reports"),
    ] {
        let complaint = format!("core may not say {word}: {why}");
        found.extend(words(&source.code, word).map(|at| source.complain(at, &complaint)));
    }
    // The planted bug of a run belongs to its thread; nothing else in core does.
    if source.path != "core/src/zoo.rs" {
        let locals = words(&source.code, "thread_local");
        found.extend(locals.map(|at| source.complain(at, "core keeps nothing per thread")));
    }
    found
}

/// L1: the control plane does not know the data plane; `machine/` is what they share.
fn cluster_apart(source: &Source) -> Vec<String> {
    if !source.path.starts_with("core/src/cluster/") {
        return vec![];
    }
    let complaint = "cluster may not name broker";
    words(&source.code, "broker").map(|at| source.complain(at, complaint)).collect()
}

/// L3: serde is derived for what leaves the process.
fn serde(source: &Source) -> Vec<String> {
    if !in_core(source) {
        return vec![];
    }
    let allowed = || SERDE.iter().filter(|(path, _)| *path == source.path);
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("derive(") {
        let Some((traits, after)) = source.code[at..].split_once(')') else { continue };
        if !traits.contains("Serialize") && !traits.contains("Deserialize") {
            continue;
        }
        let mut words = after.split(|c: char| !c.is_alphanumeric() && c != '_');
        let name = words.find(|word| *word == "struct" || *word == "enum").and(words.next());
        let fits = allowed().any(|(_, only)| only.is_none() || *only == name);
        if !fits {
            let name = name.unwrap_or("this");
            found.push(source.complain(at, &format!("{name} does not leave the process")));
        }
    }
    found
}

/// `anyhow` is for binaries: a library's errors have types.
fn typed_errors(source: &Source) -> Vec<String> {
    let library = ["core/src/", "io/src/", "server/src/"];
    if !library.iter().any(|root| source.path.starts_with(root))
        || source.path.starts_with("server/src/bin/")
    {
        return vec![];
    }
    let complaint = "anyhow belongs to binaries";
    words(&source.code, "anyhow").map(|at| source.complain(at, complaint)).collect()
}

#[test]
fn core_names_nothing_of_the_world() {
    holds_everywhere(world);
    holds_everywhere(cluster_apart);
    holds_everywhere(serde);
    holds_everywhere(typed_errors);
}

#[test]
fn the_world_in_core_is_noticed() {
    let core = "core/src/a.rs";
    for good in [
        "use std::collections::BTreeMap;",
        "// std::fs\nlet text = \"std::net\";",
        "use std::{fmt, time::Duration};",
        "let environment = my::std_env;",
    ] {
        assert_eq!(complaints(world, core, good), 0, "{good}");
    }
    for bad in [
        "use std::fs::File;",
        "std::thread::spawn(f)",
        "use std::{fmt, env};",
        "use std::{\n    sync::Arc,\n    time::{Duration, Instant},\n};",
        "use std::{io as stream, net::{self, TcpStream as T}};",
        "std::time::SystemTime::now()",
        "async fn f() {}",
        "println!()",
        "thread_local! {}",
    ] {
        assert_ne!(complaints(world, core, bad), 0, "{bad}");
        assert_eq!(complaints(world, "io/src/a.rs", bad), 0, "{bad}");
    }
    assert_eq!(complaints(world, "core/src/zoo.rs", "std::thread_local! {}"), 0);
}

#[test]
fn an_arrow_from_cluster_to_broker_is_noticed() {
    let bad = "use crate::broker::Shard;";
    assert_eq!(complaints(cluster_apart, "core/src/cluster/control.rs", bad), 1);
    assert_eq!(complaints(cluster_apart, "core/src/broker/shard.rs", bad), 0);
    let good = "// the broker\nuse crate::machine::Report;";
    assert_eq!(complaints(cluster_apart, "core/src/cluster/control.rs", good), 0);
}

#[test]
fn serde_in_the_wrong_place_is_noticed() {
    let wall = "#[derive(Clone, Serialize)]\npub struct WallTime(u64);";
    let other = "#[derive(Clone, Serialize)]\npub struct Other(u64);";
    let plain = "#[derive(Clone, Debug)]\npub struct Other(u64);";
    assert_eq!(complaints(serde, "core/src/ids.rs", other), 0);
    assert_eq!(complaints(serde, "core/src/machine/time.rs", wall), 0);
    assert_eq!(complaints(serde, "core/src/machine/time.rs", other), 1);
    assert_eq!(complaints(serde, "core/src/node.rs", wall), 1);
    assert_eq!(complaints(serde, "core/src/node.rs", plain), 0);
}

#[test]
fn an_untyped_error_is_noticed() {
    let text = "use anyhow::Context;";
    assert_eq!(complaints(typed_errors, "io/src/start.rs", text), 1);
    assert_eq!(complaints(typed_errors, "server/src/bin/sprawl.rs", text), 0);
}
