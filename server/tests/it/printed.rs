//! The README and the guide, run as they are printed, against a real node: what is shown as an
//! answer is compared with the answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::http::get;
use crate::process::{Node, command, run};
use crate::websocket::python;

const README: &str = include_str!("../../../README.md");
const GUIDE: &str = include_str!("../../../docs/guide.md");
/// Where the documents think that the node is.
const THERE: &str = "127.0.0.1:9070";
/// What a document writes for anything at all.
const ANYTHING: char = '…';

/// A block of commands, and what they answer, as it is printed.
#[derive(Debug)]
struct Example {
    commands: String,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// Line breaks and indentation are the document's own.
    Json(String),
    Text(String),
}

/// The `sh` blocks that need a node, each with the block behind it.
fn examples(document: &str) -> Vec<Example> {
    let mut blocks = Vec::new();
    let mut rest = document;
    while let Some((_, from)) = rest.split_once("```") {
        let (kind, from) = from.split_once('\n').expect("a block has lines");
        let (block, behind) = from.split_once("\n```").expect("a block ends");
        blocks.push((kind, block));
        rest = behind;
    }
    let examples = blocks.iter().zip(blocks.iter().skip(1)).filter(|((kind, _), _)| *kind == "sh");
    examples
        .map(|((_, commands), (kind, answer))| Example {
            commands: (*commands).to_owned(),
            answer: match *kind {
                "json" => Answer::Json((*answer).to_owned()),
                "text" => Answer::Text((*answer).to_owned()),
                other => panic!("{commands}: its answer is a block of '{other}'"),
            },
        })
        .collect()
}

/// A text without what JSON does not need: white space between its parts.
fn squeezed(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        let keep = quoted || !c.is_whitespace();
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        keep
    });
    kept.collect()
}

/// A text without the white space at the end of its lines, and at its own.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Whether a text is as the pattern says.
fn matches(pattern: &str, text: &str) -> bool {
    let (first, rest) = pattern.split_once(ANYTHING).unwrap_or((pattern, ""));
    let Some(mut text) = text.strip_prefix(first) else { return false };
    if !pattern.contains(ANYTHING) {
        return text.is_empty();
    }
    let (middle, last) = rest.rsplit_once(ANYTHING).unwrap_or(("", rest));
    for part in middle.split(ANYTHING) {
        let Some((_, behind)) = text.split_once(part) else { return false };
        text = behind;
    }
    text.ends_with(last)
}

impl Answer {
    fn is(&self, said: &str) -> bool {
        match self {
            Self::Json(printed) => matches(&squeezed(printed), &squeezed(said)),
            Self::Text(printed) => matches(&trimmed(printed), &trimmed(said)),
        }
    }
}

/// Runs a document, in order, in one folder, against one new node.
#[track_caller]
fn play(document: &str, at_least: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    // It is to say of itself what is printed, whatever port it has.
    let flags = ["--advertise-port", "7946"];
    let node = Node::start_with(&folder.path().join("data"), &flags);
    let examples = examples(&document.replace(THERE, &node.address));
    assert!(examples.len() >= at_least, "{examples:?}");
    let python = python();
    for Example { commands, answer } in &examples {
        if commands.contains("python3") && python.is_none() {
            println!("SKIPPED: python3 with the package websockets is missing");
            continue;
        }
        let mut shell = command("sh");
        shell.args(["-euc", commands]).current_dir(folder.path());
        shell.env("PATH", path(python.as_deref())).env("SPRAWL_NODES", url(&node));
        let output = run(&mut shell);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{commands}: {output:?}");
        assert!(answer.is(&said), "{commands}\nsays\n{said}\nand not\n{answer:?}\n{}", node.log());
    }
}

fn url(node: &Node) -> String {
    format!("http://{}", node.address)
}

/// Where a shell finds `sprawlctl` and this Python.
fn path(python: Option<&Path>) -> OsString {
    let ours = [Some(Path::new(env!("CARGO_BIN_EXE_sprawlctl"))), python];
    let mut folders: Vec<PathBuf> =
        ours.into_iter().flatten().filter_map(Path::parent).map(Path::to_owned).collect();
    folders.retain(|folder| !folder.as_os_str().is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("no folder has a colon in its name")
}

#[test]
fn the_readme_works_as_printed() {
    play(README, 5);
}

#[test]
fn the_guide_works_as_printed() {
    play(GUIDE, 50);
}

/// What the guide shows, its tests run; so it shows every command and every endpoint.
#[test]
fn the_guide_lacks_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // It is to say of itself what is printed, whatever port it has.
    let flags = ["--advertise-port", "7946"];
    let node = Node::start_with(&folder.path().join("data"), &flags);
    let output = run(Command::new(env!("CARGO_BIN_EXE_sprawlctl")).arg("--help"));
    let help = String::from_utf8(output.stdout).expect("text");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names = commands.filter(|line| !line.starts_with("   ") && !line.starts_with("  help "));
    let mut wanted: Vec<String> = names
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| format!("…sprawlctl {name}…"))
        .collect();
    let document = get(&node.address, "/openapi.json").json();
    for path in document["paths"].as_object().expect("paths").keys() {
        let levels = path.split('/').map(|level| if level.starts_with('{') { "…" } else { level });
        wanted.push(format!("…{THERE}{}…", levels.collect::<Vec<_>>().join("/")));
    }
    let examples = examples(GUIDE);
    wanted.retain(|pattern| !examples.iter().any(|example| matches(pattern, &example.commands)));
    assert!(wanted.is_empty(), "the guide lacks {wanted:?}");
}

#[test]
fn an_answer_is_compared_with_what_is_printed() {
    let json = |printed: &str, said| Answer::Json(printed.to_owned()).is(said);
    assert!(json("{\"a\": [1,\n 2]}", "{\"a\":[1,2]}\n"));
    assert!(!json("{\"a\": \"b c\"}", "{\"a\":\"bc\"}"));
    assert!(json("{\"a\":…,\"d\":\"x…z\"}", "{\"a\":7,\"b\":[],\"d\":\"xyz\"}"));
    assert!(!json("{\"a\":…,\"d\":1}", "{\"a\":7,\"d\":2}"));
    assert!(!json("{\"a\":1}", "{\"a\":1,\"b\":2}"));
    assert!(json(r#"{"a":"\" b", "c":1}"#, r#"{"a":"\" b","c":1}"#));
    let text = |printed: &str, said| Answer::Text(printed.to_owned()).is(said);
    assert!(text("ok …\nend", "ok  1 s \nend\n") && !text("ok\nend", "ok end"));
}
