//! L4: names that say nothing.

use super::source::{Source, words};
use super::{complaints, holds_everywhere};

/// Names under which a second idea always finds a place.
const EMPTY: [&str; 9] =
    ["util", "utils", "helper", "helpers", "common", "impls", "misc", "types", "shared"];

fn empty_names(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for part in source.path.trim_end_matches(".rs").split('/') {
        if EMPTY.contains(&part) {
            found.push(format!("{}: '{part}' says nothing", source.path));
        }
    }
    for at in words(&source.code, "mod") {
        let name = source.code[at + 3..].trim_start();
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        if EMPTY.contains(&name) {
            found.push(source.complain(at, &format!("'{name}' says nothing")));
        }
    }
    found
}

#[test]
fn names_say_something() {
    holds_everywhere(empty_names);
}

#[test]
fn an_empty_name_is_noticed() {
    assert_eq!(complaints(empty_names, "io/src/writer.rs", "mod utility;"), 0);
    assert_eq!(complaints(empty_names, "io/src/util.rs", ""), 1);
    assert_eq!(complaints(empty_names, "io/src/misc/mod.rs", ""), 1);
    assert_eq!(complaints(empty_names, "io/src/lib.rs", "pub mod helpers {}"), 1);
}
