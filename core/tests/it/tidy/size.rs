//! L4: how large things may be. Functions are clippy's.

use super::source::{Source, read};
use super::{complaints, holds_everywhere, none};

/// The longest file, in lines.
const LINES_MAX: usize = 600;
/// The longest line, in characters.
const COLUMNS_MAX: usize = 100;
/// The longest function, in lines, as both `.clippy.toml` files must say.
const FUNCTION_LINES_MAX: i64 = 70;

fn lines(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= LINES_MAX {
        return vec![];
    }
    let path = &source.path;
    vec![format!("{path}: {lines} lines; a second idea wants a room of its own")]
}

fn columns(source: &Source) -> Vec<String> {
    let long = |(number, line): (usize, &str)| {
        let columns = line.chars().count();
        let complaint = || format!("{}:{}: {columns} columns", source.path, number + 1);
        (columns > COLUMNS_MAX).then(complaint)
    };
    source.text.lines().enumerate().filter_map(long).collect()
}

/// The threshold stands in this clippy configuration: a member's own replaces the root's.
fn function_threshold(path: &str, text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().expect("clippy's configuration is TOML");
    match table.get("too-many-lines-threshold").and_then(toml::Value::as_integer) {
        Some(FUNCTION_LINES_MAX) => vec![],
        other => vec![format!("{path}: too-many-lines-threshold is {other:?}")],
    }
}

#[test]
fn nothing_is_too_large() {
    holds_everywhere(lines);
    holds_everywhere(columns);
    for path in [".clippy.toml", "core/.clippy.toml"] {
        none(&function_threshold(path, &read(path)));
    }
}

#[test]
fn a_large_file_is_noticed() {
    assert_eq!(complaints(lines, "io/src/a.rs", &"x\n".repeat(600)), 0);
    assert_eq!(complaints(lines, "io/src/a.rs", &"x\n".repeat(601)), 1);
}

#[test]
fn a_long_line_is_noticed() {
    assert_eq!(complaints(columns, "io/src/a.rs", &"ü".repeat(100)), 0);
    assert_eq!(complaints(columns, "io/src/a.rs", &"u".repeat(101)), 1);
}

#[test]
fn a_missing_threshold_is_noticed() {
    assert_eq!(function_threshold("a", "too-many-lines-threshold = 70").len(), 0);
    assert_eq!(function_threshold("a", "too-many-lines-threshold = 700").len(), 1);
    assert_eq!(function_threshold("a", "").len(), 1);
}
