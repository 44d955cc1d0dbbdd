//! docs/ARCHITECTURE.md against the tree: the code map, and the names of the invariants.

use std::collections::{BTreeMap, BTreeSet};

use super::none;
use super::source::{Source, read, tree};

/// Where both stand.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
/// Where the simulator lists what it checks, each with its name in quotes first.
const CHECKERS: &str = "sim-tests/src/invariants/mod.rs";

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

/// The names in a list of pairs: `("Name", "what it says"),`.
fn pairs(code: &str) -> BTreeSet<&str> {
    let names = code.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    names.filter_map(|line| line.split_once("\", \"")).map(|(name, _)| name).collect()
}

/// The documents and the simulator list the same invariants.
fn same(names: &[&str], listed: &BTreeSet<&str>) -> Vec<String> {
    let documented: BTreeSet<&str> = names.iter().copied().collect();
    let differing = documented.symmetric_difference(listed);
    differing.map(|name| format!("{name} is in one of {ARCHITECTURE} and {CHECKERS}")).collect()
}

/// A listed invariant is used under its name beside the list: somebody checks it.
fn checked(names: &[&str], tree: &[Source]) -> Vec<String> {
    let used = |name: &str| -> usize {
        let quoted = format!("\"{name}\"");
        let elsewhere = tree.iter().filter(|source| !source.path.contains("/tidy/"));
        elsewhere.map(|source| source.text.matches(&quoted).count()).sum()
    };
    let missing = names.iter().filter(|name| used(name) < 2);
    missing.map(|name| format!("{ARCHITECTURE}: nothing checks {name}")).collect()
}

/// An invariant that the code can report as broken is listed.
fn reported(names: &[&str], source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, marker) in source.text.match_indices("invariant: \"") {
        let name = source.text[at + marker.len()..].split('"').next().unwrap_or("");
        if !names.contains(&name) {
            found.push(format!("{}: {name} is not listed in {ARCHITECTURE}", source.path));
        }
    }
    found
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
    let tree = tree();
    none(&checked(&names, &tree));
    none(&tree.iter().flat_map(|source| reported(&names, source)).collect::<Vec<_>>());
    none(&same(&names, &pairs(&read(CHECKERS))));
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
    let source = Source::new("core/src/a.rs", "Broken { invariant: \"KeyOrder\", detail }");
    assert_eq!(reported(&names, &source).len(), 0);
    assert_eq!(reported(&names[1..], &source).len(), 1);
    let list = "[\n(\"KeyOrder\", \"x\"),\n(\"NoSkip\", \"y\"),\n]";
    assert_eq!(pairs(list), BTreeSet::from(["KeyOrder", "NoSkip"]));
    assert_eq!(same(&names, &pairs(list)).len(), 0);
    assert_eq!(same(&names[1..], &pairs(list)).len(), 1);
    let tree = [source, Source::new("sim-tests/src/invariants/mod.rs", list)];
    assert_eq!(checked(&names, &tree).len(), 1);
}
