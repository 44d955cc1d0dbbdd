//! L1 and L2: who may depend on whom, read out of the manifests.

use toml::{Table, Value};

use super::source::read;
use super::{MEMBERS, none};

/// The other members that each member may depend on.
const ARROWS: [(&str, &[&str]); 4] = [
    ("core", &[]),
    ("io", &["sprawl-core"]),
    ("server", &["sprawl-core", "sprawl-io"]),
    ("sim-tests", &["sprawl-core", "sprawl-io", "sprawl-server"]),
];
/// What core may use: encoding, hashing, a hash under a key (gossip's datagrams), seeded
/// randomness, shared structure. Nothing that acts.
const CORE_MAY: [&str; 10] = [
    "bincode",
    "bytes",
    "crc32c",
    "hmac",
    "imbl",
    "rand_chacha",
    "serde",
    "sha2",
    "thiserror",
    "tracing",
];
/// What core's tests may use beside.
const CORE_TESTS_MAY: [&str; 3] = ["insta", "proptest", "toml"];
/// What must never be linked into a simulation.
const NEVER_SIMULATED: [&str; 5] = ["rocksdb", "reqwest", "sysinfo", "aws-sdk-s3", "rustix"];

const REAL: &str = "cfg(not(madsim))";
const SIMULATED: &str = "cfg(madsim)";

/// One line of a dependency table.
struct Need {
    name: String,
    for_tests: bool,
    /// The condition of the target table that it stands in.
    target: Option<String>,
}

fn needs(manifest: &str) -> Vec<Need> {
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    let mut all = tables(&manifest, None);
    if let Some(Value::Table(targets)) = manifest.get("target") {
        for (target, value) in targets {
            all.extend(value.as_table().into_iter().flat_map(|t| tables(t, Some(target))));
        }
    }
    all
}

fn tables(holder: &Table, target: Option<&str>) -> Vec<Need> {
    let kinds =
        [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
    let mut all = Vec::new();
    for (kind, for_tests) in kinds {
        for name in holder.get(kind).and_then(Value::as_table).into_iter().flat_map(Table::keys) {
            let (name, target) = (name.clone(), target.map(str::to_owned));
            all.push(Need { name, for_tests, target });
        }
    }
    all
}

/// L1: arrows between members point one way.
fn arrows(member: &str, manifest: &str) -> Vec<String> {
    let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == member).expect("a member");
    needs(manifest)
        .iter()
        .filter(|need| need.name.starts_with("sprawl-") && !allowed.contains(&&*need.name))
        .map(|need| format!("{member}/Cargo.toml: {member} may not depend on {}", need.name))
        .collect()
}

/// L2: core uses what is on its list.
fn core_allowed(manifest: &str) -> Vec<String> {
    let fits = |need: &&Need| {
        CORE_MAY.contains(&&*need.name) || need.for_tests && CORE_TESTS_MAY.contains(&&*need.name)
    };
    needs(manifest)
        .iter()
        .filter(|need| !fits(need))
        .map(|need| format!("core/Cargo.toml: {} is not on core's list", need.name))
        .collect()
}

/// L1: what touches the real world is compiled for the real world only.
fn conditions(member: &str, manifest: &str) -> Vec<String> {
    let wanted = |need: &Need| match &*need.name {
        name if NEVER_SIMULATED.contains(&name) => need.target.as_deref() == Some(REAL),
        "madsim" => need.target.as_deref() == Some(SIMULATED),
        "tokio" => need.target.is_some(),
        _ => true,
    };
    needs(manifest)
        .iter()
        .filter(|need| !wanted(need))
        .map(|need| {
            let target = need.target.as_deref().unwrap_or("no condition");
            format!("{member}/Cargo.toml: {} stands under {target}", need.name)
        })
        .collect()
}

/// L1: the members are those of this list.
fn members(manifest: &str) -> Vec<String> {
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    let listed = manifest["workspace"]["members"].as_array().expect("a list of members");
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    if listed == MEMBERS { vec![] } else { vec![format!("Cargo.toml: members are {listed:?}")] }
}

/// Every member takes version, edition, licence and lints from the workspace.
fn shares(member: &str, manifest: &str) -> Vec<String> {
    let manifest: Table = manifest.parse().expect("a manifest is TOML");
    let shared = |value: Option<&Value>| {
        value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let mut missing = Vec::new();
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !shared(manifest["package"].get(key)) {
            missing.push(format!("{member}/Cargo.toml: {key} is not the workspace's"));
        }
    }
    if !shared(manifest.get("lints")) {
        missing.push(format!("{member}/Cargo.toml: lints are not the workspace's"));
    }
    missing
}

#[test]
fn the_members_depend_one_way() {
    none(&members(&read("Cargo.toml")));
    for member in MEMBERS {
        let manifest = read(&format!("{member}/Cargo.toml"));
        none(&arrows(member, &manifest));
        none(&conditions(member, &manifest));
        none(&shares(member, &manifest));
    }
    none(&core_allowed(&read("core/Cargo.toml")));
}

#[test]
fn a_wrong_arrow_is_noticed() {
    assert_eq!(arrows("io", "[dependencies]\nsprawl-core.workspace = true").len(), 0);
    assert_eq!(arrows("core", "[dependencies]\nsprawl-io.workspace = true").len(), 1);
    assert_eq!(arrows("io", "[dev-dependencies]\nsprawl-server = {}").len(), 1);
    assert_eq!(arrows("server", "[target.'cfg(madsim)'.dependencies]\nsprawl-sim = {}").len(), 1);
}

#[test]
fn a_dependency_that_core_may_not_have_is_noticed() {
    assert_eq!(core_allowed("[dependencies]\nserde = '1'\nbytes = '1'").len(), 0);
    assert_eq!(core_allowed("[dependencies]\ntokio = '1'").len(), 1);
    assert_eq!(core_allowed("[dev-dependencies]\nproptest = '1'").len(), 0);
    assert_eq!(core_allowed("[dependencies]\nproptest = '1'").len(), 1);
    assert_eq!(core_allowed("[target.'cfg(unix)'.dependencies]\nlibc = '1'").len(), 1);
}

#[test]
fn a_missing_condition_is_noticed() {
    let real = "[target.'cfg(not(madsim))'.dependencies]\nrocksdb = '1'\ntokio = '1'";
    assert_eq!(conditions("io", real).len(), 0);
    let simulated = "[target.'cfg(madsim)'.dependencies]\nrocksdb = '1'\nmadsim = '1'";
    assert_eq!(conditions("io", simulated).len(), 1);
    let plain = "[dependencies]\nreqwest = '1'\nmadsim = '1'\ntokio = '1'\nbytes = '1'";
    assert_eq!(conditions("io", plain).len(), 3);
}

#[test]
fn a_manifest_that_goes_its_own_way_is_noticed() {
    let keys = ["version", "edition", "rust-version", "license", "publish"];
    let lines: String = keys.iter().map(|key| format!("{key}.workspace = true\n")).collect();
    let good = format!("[package]\n{lines}[lints]\nworkspace = true");
    assert_eq!(shares("io", &good).len(), 0);
    let own = good.replace("edition.workspace = true", "edition = '2024'");
    assert_eq!(shares("io", &own).len(), 1);
    assert_eq!(shares("io", &good.replace("[lints]", "[else]")).len(), 1);
    assert_eq!(members("[workspace]\nmembers = ['core', 'io']").len(), 1);
}
