//! docs/ARCHITECTURE.md against the tree: the code map, and the names of the invariants.

use std::collections::{BTreeMap, BTreeSet};

use super::none;
use super::source::{Source, read, tree};

/// Where both stand.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
/// The text between a heading of the second level and the next one.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n## {heading}\n"));
    let rest = &document[start.unwrap_or_else(|| panic!("no section '{heading}'")) + 1..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The files that a code map names: a heading of the third level names a folder, the first cell
/// of each row below it a file there.
fn mapped(map: &str) -> Vec<String> {
    let mut folder = "";
    let mut files = Vec::new();
    for line in map.lines() {
        if let Some(named) = line.strip_prefix("### `") {
            folder = named.trim_end_matches('`');
        } else if let Some((file, _)) = line.strip_prefix("| `").and_then(|l| l.split_once('`')) {
            files.push(format!("{folder}/{file}"));
        }
    }
    files
}

/// Every file is named once, and every named file exists.
fn compare(mapped: &[String], present: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for file in mapped {
        if !seen.insert(file) {
            found.push(format!("{ARCHITECTURE}: {file} stands twice in the code map"));
        }
        if !present.contains(file) {
            found.push(format!("{ARCHITECTURE}: {file} does not exist"));
        }
    }
    let missing = present.iter().filter(|file| !seen.contains(file));
    found.extend(missing.map(|file| format!("{ARCHITECTURE}: the code map lacks {file}")));
    found
}

/// The bold names in the first cells of a section's tables.
fn invariants(section: &str) -> Vec<&str> {
    let name = |line: &'_ str| line.strip_prefix("| **").map(str::len);
    let names = section.lines().filter(|line| name(line).is_some());
    names.filter_map(|line| line["| **".len()..].split("**").next()).collect()
}

/// Each invariant is listed once.
fn listed_once(names: &[&str]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let twice = counts.into_iter().filter(|(_, count)| *count > 1);
    twice.map(|(name, _)| format!("{ARCHITECTURE}: {name} is listed twice")).collect()
}

/// The names under which a file reports that an invariant does not hold.
fn reported(source: &Source) -> BTreeSet<&str> {
    let named = |marker: &'static str| {
        let calls = source.text.match_indices(marker).map(|(at, _)| at + marker.len());
        let names = calls.filter_map(|at| source.text[at..].trim_start().strip_prefix('"'));
        names.filter_map(|rest| rest.split('"').next())
    };
    named("violated(").chain(named("invariant:")).collect()
}

/// What is listed is reported by somebody, and what is reported is listed.
fn same(listed: &[&str], reported: &BTreeSet<&str>) -> Vec<String> {
    let listed: BTreeSet<&str> = listed.iter().copied().collect();
    let unchecked = listed.difference(reported);
    let unlisted = reported.difference(&listed);
    let unchecked = unchecked.map(|name| format!("{ARCHITECTURE}: nothing reports {name}"));
    let unlisted = unlisted.map(|name| format!("{ARCHITECTURE}: {name} is not listed"));
    unchecked.chain(unlisted).collect()
}

#[test]
fn the_code_map_is_the_tree() {
    let present: Vec<String> = tree().into_iter().map(|source| source.path).collect();
    none(&compare(&mapped(section(&read(ARCHITECTURE), "Code map")), &present));
}

#[test]
fn invariants_have_one_name() {
    let document = read(ARCHITECTURE);
    let names = invariants(section(&document, "Invariants"));
    assert!(names.len() > 3, "only {names:?}");
    none(&listed_once(&names));
    let mut tree = tree();
    tree.retain(|source| source.path.contains("/src/"));
    none(&same(&names, &tree.iter().flat_map(reported).collect()));
}

#[test]
fn a_map_that_differs_from_the_tree_is_noticed() {
    let text = "\n## Code map\n\n### `io/src`\n\n| `a.rs` | one |\n| `b.rs` | two |\n\n## Next\n";
    let present = |files: &[&str]| files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>();
    let mapped = mapped(section(text, "Code map"));
    assert_eq!(mapped, ["io/src/a.rs", "io/src/b.rs"]);
    assert_eq!(compare(&mapped, &present(&["io/src/a.rs", "io/src/b.rs"])).len(), 0);
    assert_eq!(compare(&mapped, &present(&["io/src/a.rs"])).len(), 1);
    assert_eq!(compare(&mapped[..1], &present(&["io/src/a.rs", "io/src/b.rs"])).len(), 1);
    let twice = [mapped[0].clone(), mapped[0].clone()];
    assert_eq!(compare(&twice, &present(&["io/src/a.rs"])).len(), 1);
}

#[test]
fn an_invariant_that_nobody_checks_is_noticed() {
    let table = "## Invariants\n| name | who |\n| **KeyOrder** | x |\n| **NoSkip** | y |\n";
    let names = invariants(table);
    assert_eq!(names, ["KeyOrder", "NoSkip"]);
    assert_eq!(listed_once(&names).len(), 0);
    assert_eq!(listed_once(&["NoSkip", "NoSkip"]).len(), 1);
    let machine = Source::new("core/src/a.rs", "Broken { invariant: \"KeyOrder\", detail }");
    let checker = Source::new("sim-tests/src/a.rs", "findings.violated(\n  \"NoSkip\", detail)");
    let reported: BTreeSet<&str> = [&machine, &checker].into_iter().flat_map(reported).collect();
    assert_eq!(reported, BTreeSet::from(["KeyOrder", "NoSkip"]));
    assert_eq!(same(&names, &reported).len(), 0);
    assert_eq!(same(&names[1..], &reported).len(), 1);
    assert_eq!(same(&names, &BTreeSet::from(["NoSkip"])).len(), 1);
}
