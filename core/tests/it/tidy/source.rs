//! The source files of the workspace, with and without what is not code.

use std::fs;
use std::path::{Path, PathBuf};

use super::MEMBERS;

/// One source file.
pub(super) struct Source {
    /// From the root of the workspace, with `/` between the parts.
    pub(super) path: String,
    /// As it is.
    pub(super) text: String,
    /// With literals and comments blanked out.
    pub(super) code: String,
    /// With literals blanked out.
    pub(super) prose: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: blank(text, true),
            prose: blank(text, false),
        }
    }

    /// A complaint about the place `at` in the code.
    pub(super) fn complain(&self, at: usize, what: &str) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("{}:{line}: {what}", self.path)
    }

    /// Whether the file belongs to the tests of a member.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/")
    }
}

/// The root of the workspace.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the workspace, by its path from the root.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files of the members, ascending by path.
pub(super) fn tree() -> Vec<Source> {
    let mut paths = Vec::new();
    MEMBERS.iter().for_each(|member| walk(member, &mut paths));
    paths.sort();
    paths.iter().map(|path| Source::new(path, &read(path))).collect()
}

fn walk(folder: &str, paths: &mut Vec<String>) {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    for entry in entries {
        let entry = entry.expect("a folder of the workspace can be listed");
        let name = entry.file_name().into_string().expect("file names are UTF-8");
        let path = format!("{folder}/{name}");
        let kind = entry.file_type().expect("the kind of a file is known");
        if kind.is_dir() && name != "target" {
            walk(&path, paths);
        } else if path.ends_with(".rs") {
            paths.push(path);
        }
    }
}

/// Replaces literals by spaces, and comments too if so asked; every byte keeps its place.
pub(super) fn blank(text: &str, comments_too: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (length, what) = token(rest);
        let (taken, after) = rest.split_at(length);
        if what == What::Literal || (what == What::Comment && comments_too) {
            out.extend(taken.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(taken);
        }
        rest = after;
    }
    out
}

#[derive(PartialEq, Eq)]
enum What {
    Code,
    Comment,
    Literal,
}

/// The length of what `rest` begins with, and what it is.
fn token(rest: &str) -> (usize, What) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), What::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), What::Comment);
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let after = &rest[word..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    let quoted = after[hashes..].starts_with('"');
    match &rest[..word] {
        "r" | "br" | "cr" if quoted => {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &after[hashes + 1..];
            let length = body.find(&end).map_or(body.len(), |at| at + end.len());
            (word + hashes + 1 + length, What::Literal)
        }
        "" | "b" | "c" if after.starts_with('"') => (word + literal(after, '"'), What::Literal),
        "" | "b" if is_character(after) => (word + literal(after, '\''), What::Literal),
        "" => (after.chars().next().map_or(0, char::len_utf8), What::Code),
        _ => (word, What::Code),
    }
}

/// Whether a quote begins a character, and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars();
    characters.next() == Some('\'')
        && characters.next().is_some_and(|c| c == '\\' || characters.next() == Some('\''))
}

fn literal(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Where `word` stands in `code` as a whole word.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !code[..at].ends_with(part_of_word) && !code[at + word.len()..].starts_with(part_of_word)
    })
}

#[test]
fn literals_and_comments_are_told_from_code() {
    for (text, code, prose) in [
        ("a // b\nc", "a     \nc", "a // b\nc"),
        ("a /* b /* c */ d */ e", "a                   e", "a /* b /* c */ d */ e"),
        (r#"f("x \" // y", 'z')"#, "f(           ,    )", "f(           ,    )"),
        (r##"r#"a " b"# + br"c""##, "           +      ", "           +      "),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        (r"['\'', '\\', b'x'] r#type", "[    ,     ,     ] r#type", "[    ,     ,     ] r#type"),
        ("\"ü\"x", "    x", "    x"),
    ] {
        assert_eq!(blank(text, true), code, "{text}");
        assert_eq!(blank(text, false), prose, "{text}");
    }
    assert_eq!(words("cat concat cat_ (cat)", "cat").collect::<Vec<_>>(), [0, 17]);
}
