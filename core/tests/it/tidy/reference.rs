//! What the documents list against what the code has: options, metrics, planted bugs.

use std::collections::BTreeSet;

use super::none;
use super::source::{read, tree};

const OPERATIONS: &str = "docs/operations.md";
const SIMULATION: &str = "docs/simulation.md";
const ZOO: &str = "sim-tests/src/cli/zoo.rs";

/// The strings of a text that begin with `start` and go on in capitals, letters, digits or `_`.
fn literals<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let from = |(at, _): (usize, &str)| {
        let rest = &text[at + 1..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    };
    text.match_indices(&format!("\"{start}")).map(from).collect()
}

/// The names that `document` does not write as code.
fn missing(document: &str, path: &str, names: &BTreeSet<&str>) -> Vec<String> {
    let lacks = |name: &&&str| !document.contains(&format!("`{name}`"));
    names.iter().filter(lacks).map(|name| format!("{path} does not name {name}")).collect()
}

/// Every option that this version serves: what stands before the list of those that it does not.
fn options(text: &str) -> BTreeSet<&str> {
    let served = text.split("const ABSENT").next().unwrap_or(text);
    literals(served, "SPRAWL_")
}

/// Planted bugs with the invariants that must catch them.
fn planted(text: &str) -> Vec<(&str, &str)> {
    let is_row = |line: &&str| line.contains("(\"") && line.ends_with("\"),");
    text.lines()
        .filter(is_row)
        .filter_map(|row| {
            let mut texts = row.split('"').skip(1).step_by(2);
            Some((texts.next()?, texts.next()?))
        })
        .collect()
}

/// The bugs that can be planted: the variants of `Bug`.
fn variants(text: &str) -> Vec<&str> {
    let body = text.split("pub enum Bug {").nth(1).and_then(|rest| rest.split("\n}").next());
    let lines = body.unwrap_or_default().lines().map(str::trim);
    lines.filter(|line| !line.starts_with("//")).filter_map(|line| line.strip_suffix(',')).collect()
}

/// Each bug that can be planted is sought.
fn sought(zoo: &str, bugs: &[&str]) -> Vec<String> {
    let rows: Vec<&str> = zoo.lines().filter(|line| line.ends_with("\"),")).collect();
    let is_sought = |bug: &str| rows.iter().any(|row| row.contains(&format!(" Bug::{bug}, ")));
    let lost = bugs.iter().filter(|bug| !is_sought(bug));
    lost.map(|bug| format!("{ZOO}: nobody seeks Bug::{bug}")).collect()
}

/// Each planted bug has a row that names its invariant.
fn zoo(document: &str, bugs: &[(&str, &str)]) -> Vec<String> {
    let listed = |bug: &str, invariant: &str| {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{bug}` |")));
        row.is_some_and(|row| row.contains(invariant))
    };
    let lost = bugs.iter().filter(|(bug, invariant)| !listed(bug, invariant));
    lost.map(|(bug, invariant)| format!("{SIMULATION}: no row for {bug}, {invariant}")).collect()
}

#[test]
fn options_and_metrics_are_documented() {
    let operations = read(OPERATIONS);
    let source = read("server/src/config/options.rs");
    let options = options(&source);
    assert!(options.len() > 10, "{options:?}");
    none(&missing(&operations, OPERATIONS, &options));
    for source in tree().iter().filter(|source| source.path.starts_with("server/src/")) {
        none(&missing(&operations, OPERATIONS, &literals(&source.text, "sprawl_")));
    }
}

#[test]
fn planted_bugs_are_documented() {
    let source = read(ZOO);
    let bugs = planted(&source);
    assert!(bugs.len() >= 20, "{bugs:?}");
    none(&zoo(&read(SIMULATION), &bugs));
}

#[test]
fn every_bug_that_can_be_planted_is_sought() {
    let source = read("core/src/zoo.rs");
    let bugs = variants(&source);
    assert!(bugs.len() >= 20, "{bugs:?}");
    none(&sought(&read(ZOO), &bugs));
}

#[test]
fn an_undocumented_name_is_noticed() {
    let source = "choice(\"SPRAWL_A\"), const ABSENT: [\"SPRAWL_B\"]";
    assert_eq!(options(source), BTreeSet::from(["SPRAWL_A"]));
    assert_eq!(missing("| `SPRAWL_A` |", "a", &options(source)).len(), 0);
    assert_eq!(missing("| `SPRAWL_AB` |", "a", &options(source)).len(), 1);
}

#[test]
fn an_undocumented_bug_is_noticed() {
    let bugs = planted("    node(\"no-sync\", Bug::NoSync, \"AckMeansDurable\"),");
    assert_eq!(bugs, [("no-sync", "AckMeansDurable")]);
    assert_eq!(zoo("| `no-sync` | … | **AckMeansDurable** |", &bugs).len(), 0);
    assert_eq!(zoo("| `no-sync` | … | **NoPhantom** |", &bugs).len(), 1);
    assert_eq!(zoo("", &bugs).len(), 1);
}

#[test]
fn a_bug_that_nobody_seeks_is_noticed() {
    let source = "pub enum Bug {\n    /// One.\n    NoSync,\n    /// Two, too.\n    Other,\n}\n";
    let bugs = variants(source);
    assert_eq!(bugs, ["NoSync", "Other"]);
    let row = "    node(\"no-sync\", Bug::NoSync, \"AckMeansDurable\"),";
    assert_eq!(sought(row, &bugs), [format!("{ZOO}: nobody seeks Bug::Other")]);
    assert_eq!(sought(row, &bugs[..1]).len(), 0);
}
