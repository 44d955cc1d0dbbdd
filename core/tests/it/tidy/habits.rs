//! What is not written here: unfinished work, tests that do not run, unbiased choice, queues
//! without a bound.

use super::source::{Source, read, words};
use super::{complaints, holds_everywhere, none};

/// Words that own up to unfinished work, spelt so that this file does not use them.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("place", "holder"),
];

/// The documents that speak of the present.
const DOCS: [&str; 6] = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/protocol.md",
    "docs/simulation.md",
    "docs/operations.md",
    "docs/CONTRIBUTING.md",
];

fn unfinished(source: &Source) -> Vec<String> {
    unfinished_in(&source.path, &source.prose)
}

fn unfinished_in(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            found.push(format!("{path}:{}: {word}: finish it, or take it out", number + 1));
        }
    }
    found
}

/// A test runs, and waits for a state by asking for it, never by sleeping through a time.
fn tests_run(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("#[ignore") {
        found.push(source.complain(at, "an ignored test tests nothing"));
    }
    if source.is_test() {
        for nap in ["thread::sleep", "time::sleep("] {
            for (at, _) in source.code.match_indices(nap) {
                found.push(source.complain(at, "a test does not sleep"));
            }
        }
    }
    found
}

/// `select!` polls in the order in which it is written: an unbiased one draws from randomness
/// that no seed governs.
fn biased(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("select!") {
        let body = source.code[at + "select!".len()..].trim_start();
        if !body.starts_with('{') || !body[1..].trim_start().starts_with("biased;") {
            found.push(source.complain(at, "select! begins with biased;"));
        }
    }
    found
}

/// L5: a queue between tasks has a named bound; one without says who bounds it. The bounds of
/// core's own queues are asserted by its machines' `check`.
fn bounded(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.path.contains("/src/") {
        return found;
    }
    for (at, call) in source.code.match_indices("mpsc::channel(") {
        let bound = source.code[at + call.len()..].split(')').next().unwrap_or("").trim();
        if bound != "1" && !bound.ends_with("_MAX") && !bound.ends_with("_max") {
            found.push(source.complain(at, "a queue's bound has a name that ends in _MAX"));
        }
    }
    let says_who = source.prose.to_lowercase().contains("bounded by");
    for at in words(&source.code, "unbounded_channel").filter(|_| !says_who) {
        found.push(source.complain(at, "say by what this queue is bounded"));
    }
    found
}

/// A lint that is set aside has a reason that can be checked.
fn reasons(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for word in ["allow", "expect"] {
        for at in words(&source.code, word) {
            let before = source.code[..at].trim_end();
            let attribute = before.ends_with("#[") || before.ends_with("#![");
            let arguments = source.code[at..].split(']').next().unwrap_or("");
            if attribute && !arguments.contains("reason =") {
                found.push(source.complain(at, "a lint is set aside without a reason"));
            }
        }
    }
    found
}

/// Memory safety is the compiler's; no member of the workspace takes it over.
fn safe(source: &Source) -> Vec<String> {
    words(&source.code, "unsafe").map(|at| source.complain(at, "unsafe")).collect()
}

#[test]
fn habits_are_kept() {
    holds_everywhere(unfinished);
    holds_everywhere(tests_run);
    holds_everywhere(biased);
    holds_everywhere(bounded);
    holds_everywhere(reasons);
    holds_everywhere(safe);
    for path in DOCS {
        none(&unfinished_in(path, &read(path)));
    }
}

#[test]
fn unfinished_work_is_noticed() {
    assert_eq!(complaints(unfinished, "io/src/a.rs", "// done\nlet all = 1;"), 0);
    for word in UNFINISHED {
        assert_eq!(complaints(unfinished, "io/src/a.rs", &format!("// {word} later")), 1);
        assert_eq!(complaints(unfinished, "io/src/a.rs", &format!("f(\"{word}\")")), 0);
    }
}

#[test]
fn tests_that_rest_are_noticed() {
    let nap = "std::thread::sleep(second);";
    assert_eq!(complaints(tests_run, "io/tests/it/main.rs", nap), 1);
    assert_eq!(complaints(tests_run, "io/src/rate.rs", nap), 0);
    assert_eq!(complaints(tests_run, "io/tests/a.rs", "tokio::time::sleep(second).await"), 1);
    assert_eq!(complaints(tests_run, "io/src/rate.rs", "#[ignore]\nfn f() {}"), 1);
    assert_eq!(complaints(tests_run, "io/tests/a.rs", "// thread::sleep, #[ignore]"), 0);
}

#[test]
fn an_unbiased_choice_is_noticed() {
    assert_eq!(
        complaints(biased, "io/src/a.rs", "tokio::select! {\n  biased;\n  x = y => {}\n}"),
        0
    );
    assert_eq!(complaints(biased, "io/src/a.rs", "tokio::select! { x = y => {} }"), 1);
}

#[test]
fn a_queue_without_bound_is_noticed() {
    let path = "io/src/a.rs";
    assert_eq!(complaints(bounded, path, "mpsc::channel(JOBS_MAX); mpsc::channel(1)"), 0);
    assert_eq!(complaints(bounded, path, "mpsc::channel(512)"), 1);
    assert_eq!(complaints(bounded, path, "let (a, b) = mpsc::unbounded_channel();"), 1);
    let said = "// Bounded by what is under way.\nmpsc::unbounded_channel()";
    assert_eq!(complaints(bounded, path, said), 0);
    assert_eq!(complaints(bounded, "io/tests/a.rs", "mpsc::channel(512)"), 0);
}

#[test]
fn a_lint_set_aside_without_reason_is_noticed() {
    let good = "#[expect(dead_code, reason = \"why\")]\nfn f() { x.expect(\"y\") }";
    assert_eq!(complaints(reasons, "io/src/a.rs", good), 0);
    assert_eq!(complaints(reasons, "io/src/a.rs", "#[allow(dead_code)]\nfn f() {}"), 1);
    assert_eq!(complaints(reasons, "io/src/a.rs", "#![expect(dead_code)]"), 1);
}

#[test]
fn unsafe_code_is_noticed() {
    assert_eq!(complaints(safe, "io/src/a.rs", "unsafe { f() }"), 1);
    assert_eq!(complaints(safe, "io/src/a.rs", "#![forbid(unsafe_code)] // unsafe"), 0);
}
