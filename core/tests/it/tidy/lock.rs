//! L2: what may not be among the packages that Cargo.lock names.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::none;
use super::source::read;

/// Packages that are refused wherever they come from, with the reason.
const BANNED: [(&str, &str); 3] = [
    ("openssl", "TLS is rustls; a second stack is a second set of holes"),
    ("openssl-sys", "TLS is rustls; it needs a C library of the right version"),
    ("native-tls", "TLS is rustls; its behaviour differs by platform"),
];
/// Packages whose randomness the simulator does not govern: they read it by a raw system call,
/// so that the same seed gives another run. Only the simulator itself may pull them in.
const UNGOVERNED: [(&str, &str); 2] = [("rand", "0.8."), ("getrandom", "0.2.")];
/// Packages that run while others are compiled and are linked into nothing, with who needs them.
const AT_BUILD: [(&str, &str); 1] =
    [("chrono-tz-build", "makes tables for openraft's display-more")];

/// The packages of a lock file, by name and version, each with those that it needs.
fn graph(lock: &str) -> BTreeMap<(String, String), Vec<String>> {
    let lock: Table = lock.parse().expect("Cargo.lock is TOML");
    let text = |package: &Value, key: &str| {
        package.get(key).and_then(Value::as_str).expect("packages have name and version").to_owned()
    };
    let packages = lock["package"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let needs = package.get("dependencies").and_then(Value::as_array);
            let needs = needs.into_iter().flatten().filter_map(Value::as_str);
            let name = (text(package, "name"), text(package, "version"));
            (name, needs.map(str::to_owned).collect())
        })
        .collect()
}

fn banned(lock: &str) -> Vec<String> {
    let graph = graph(lock);
    BANNED
        .iter()
        .filter(|(name, _)| graph.keys().any(|(package, _)| package == name))
        .map(|(name, why)| format!("Cargo.lock: {name} is banned: {why}"))
        .collect()
}

/// Walks from the members, round the simulator's own packages and those that run at build time;
/// each ungoverned one that is reached is a complaint with the way to it.
fn ungoverned(lock: &str) -> Vec<String> {
    let graph = graph(lock);
    let members = graph.keys().filter(|(name, _)| name.starts_with("sprawl-"));
    let mut ways: Vec<Vec<&(String, String)>> = members.map(|member| vec![member]).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(way) = ways.pop() {
        let package = *way.last().expect("a way has a beginning");
        let apart =
            package.0.starts_with("madsim") || AT_BUILD.iter().any(|(name, _)| package.0 == *name);
        if apart || !seen.insert(package) {
            continue;
        }
        if UNGOVERNED.iter().any(|(name, v)| package.0 == *name && package.1.starts_with(v)) {
            let names: Vec<&str> = way.iter().map(|(name, _)| name.as_str()).collect();
            found.push(format!("Cargo.lock: {} by way of {}", package.1, names.join(" -> ")));
        }
        for need in &graph[package] {
            let mut parts = need.split(' ');
            let name = parts.next().expect("a dependency has a name");
            let version = parts.next();
            let fits = |(n, v): &&(String, String)| n == name && version.is_none_or(|w| w == v);
            let next = graph.keys().find(fits).expect("a lock file names what it needs");
            ways.push(way.iter().copied().chain([next]).collect());
        }
    }
    found
}

#[test]
fn the_lock_file_names_nothing_banned() {
    let lock = read("Cargo.lock");
    assert!(graph(&lock).len() > 50, "the lock file was not understood");
    none(&banned(&lock));
    none(&ungoverned(&lock));
}

fn lock(packages: &[(&str, &str, &[&str])]) -> String {
    let package = |(name, version, needs): &(&str, &str, &[&str])| {
        format!("[[package]]\nname = '{name}'\nversion = '{version}'\ndependencies = {needs:?}\n")
    };
    packages.iter().map(package).collect()
}

#[test]
fn a_banned_package_is_noticed() {
    assert_eq!(banned(&lock(&[("sprawl-io", "0.1.0", &[])])).len(), 0);
    assert_eq!(banned(&lock(&[("openssl", "0.10.1", &[])])).len(), 1);
}

#[test]
fn ungoverned_randomness_is_noticed_unless_the_simulator_brings_it() {
    let through = [
        ("sprawl-io", "0.1.0", &["madsim", "rand 0.10.1"][..]),
        ("madsim", "0.2.34", &["rand 0.8.5"]),
        ("rand", "0.8.5", &["getrandom"]),
        ("rand", "0.10.1", &[]),
        ("getrandom", "0.2.17", &[]),
    ];
    assert_eq!(ungoverned(&lock(&through)), [""; 0]);
    let mut direct = through;
    direct[0].2 = &["madsim", "rand 0.8.5"];
    let found = ungoverned(&lock(&direct));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|complaint| complaint.ends_with("sprawl-io -> rand -> getrandom")));
}
