//! The README's lines, run as they are printed, against a real node.

use std::process::Command;

use serde_json::Value;

use crate::process::{Node, run};

const README: &str = include_str!("../../../README.md");

/// The commands of all `sh` blocks that talk to a node.
fn commands() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or("").lines());
    lines.filter(|line| line.contains("127.0.0.1:9070")).collect()
}

#[test]
fn the_readme_works_as_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let commands = commands();
    assert!(commands.len() >= 5, "{commands:?}");
    let mut answers = Vec::new();
    for line in &commands {
        let here = line.replace("127.0.0.1:9070", &node.address);
        let output = run(Command::new("sh").args(["-euc", &here]).current_dir(folder.path()));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {output:?}");
        let answer: Value = serde_json::from_str(&said).unwrap_or(Value::String(said));
        assert!(answer.get("error").is_none(), "{line}: {answer}");
        assert!(answer.as_str().is_none_or(|text| text.ends_with("# EOF\n")), "{line}: {answer}");
        answers.push(answer);
    }
    let answer_with = |field: &str| {
        let mut all = answers.iter().filter(|answer| answer.get(field).is_some());
        all.next_back().unwrap_or_else(|| panic!("no answer has {field}")).clone()
    };
    assert_eq!(answer_with("duplicate")["duplicate"], true);
    assert_eq!(answer_with("acked")["acked"], 1);
    assert_eq!(answer_with("messages")["messages"][0]["payload"], "hello");
}
