//! The laws of the house, read out of the tree.
//!
//! Each room holds the checks of one kind. A check is a function from text to complaints; one
//! test runs it over the tree, and another shows, with good and bad text, that it can fail.
//! What a compiler lint can say (functions' length, banned types, missing docs) is said in the
//! lint tables of Cargo.toml and in the `.clippy.toml` files instead.

// Reading files is what these tests are for; core itself may not.
#![expect(clippy::disallowed_methods, reason = "the checks read the tree")]

mod arrows;
mod habits;
mod lock;
mod map;
mod matches;
mod names;
mod purity;
mod reference;
mod size;
mod source;

use source::Source;

/// The members of the workspace, in the order in which the arrows may not point.
const MEMBERS: [&str; 4] = ["core", "io", "server", "sim-tests"];

/// Fails with all complaints, one a line.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// A check of source files, run over all of the tree.
#[track_caller]
fn holds_everywhere(check: impl Fn(&Source) -> Vec<String>) {
    let tree = source::tree();
    assert!(tree.len() > 20, "only {} source files were found", tree.len());
    none(&tree.iter().flat_map(check).collect::<Vec<_>>());
}

/// How many complaints a check has about a file of this path and text.
fn complaints(check: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    check(&Source::new(path, text)).len()
}
