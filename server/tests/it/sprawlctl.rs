//! `sprawlctl` as scripts use it: what it prints, and with which code it ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::http::{get, read_all, request};
use crate::process::{Node, SPRAWLCTL, command, end_of, free_port, run, signal};

pub(crate) fn ctl(address: &str) -> Command {
    let mut ctl = command(SPRAWLCTL);
    ctl.args(["-n", &format!("http://{address}")]);
    ctl
}

#[track_caller]
pub(crate) fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn it_publishes_what_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    let output = run(ctl(at).args(["publish", "-t", "t", "-p", "--text, unaltered", "--key", "k"]));
    assert!(output.status.success(), "{}", said(&output));
    let id = lines(&output)[0].split(' ').next().unwrap_or_default().to_owned();
    let message = &read_all(at, "t")[0];
    assert_eq!((&message["id"], &message["key"]), (&json!(id), &json!("k")));
    assert_eq!(message["payload"], "--text, unaltered");

    let file = folder.path().join("bytes");
    std::fs::write(&file, [0xff, 0, 10]).expect("written");
    assert!(run(ctl(at).args(["publish", "-t", "f", "--file"]).arg(&file)).status.success());
    assert_eq!(read_all(at, "f")[0]["payload_base64"], "/wAK");

    let mut child = ctl(at)
        .args(["publish", "-t", "in"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(b"from\nstdin\n").expect("it reads");
    assert!(end_of(&mut child).success());
    assert_eq!(read_all(at, "in")[0]["payload"], "from\nstdin\n");

    let many = ["publish", "-t", "many", "-p", "x", "-c", "150", "-P", "20", "--output", "json"];
    let output = run(ctl(at).args(many));
    assert!(output.status.success(), "{}", said(&output));
    let printed = lines(&output);
    let mut ids: Vec<String> = printed
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((printed.len(), ids.len(), read_all(at, "many").len()), (150, 150, 150));
}

#[test]
fn it_fails_aloud() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let nobody = format!("127.0.0.1:{}", free_port());
    let at = &node.address;
    let cases: [(&str, &[&str], i32, &str); 12] = [
        (&nobody, &["publish", "-t", "t", "-p", "x", "--patience", "1s"], 1, "cannot reach"),
        (&nobody, &["topics"], 1, "is a node running there?"),
        (&nobody, &["status", "--output", "json"], 1, "cannot reach"),
        (at, &["publish", "-t", "a b", "-p", "x"], 1, "is not stored: topic: a name"),
        (at, &["publish", "-t", "t", "--file", "/nowhere"], 1, "the file /nowhere"),
        (at, &["subscribe", "-t", "t", "--from", "never"], 1, "a time as RFC 3339"),
        (at, &["fetch", "-t", "absent"], 1, "there is no topic 'absent'"),
        (at, &["fetch", "-t", "a b"], 2, "a b"),
        (&nobody, &["test", "--patience", "1s"], 1, "cannot reach"),
        (&nobody, &["bench", "--patience", "1s"], 1, "is a node running there?"),
        (at, &["publish", "-p", "x"], 2, "--topic"),
        (at, &["dance"], 2, "dance"),
    ];
    for (node, arguments, code, wanted) in cases {
        let output = run(ctl(node).args(arguments));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
    }
}

#[test]
fn it_goes_on_when_the_node_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let port = free_port();
    let mut child = ctl(&format!("127.0.0.1:{port}"))
        .args(["publish", "-t", "t", "-p", "x", "--patience", "60s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let node = Node::start_with(&data, &["--http-port", &port]);
    assert!(end_of(&mut child).success());
    assert_eq!(read_all(&node.address, "t").len(), 1);
}

#[test]
fn it_subscribes_until_it_is_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    for payload in ["one", "two", "three"] {
        let body = json!({"topic": "t", "payload": payload}).to_string();
        request(at, "POST", "/publish", &body);
    }
    let first = ["subscribe", "-t", "t", "--id", "s", "--from", "earliest", "--max", "2"];
    let output = run(ctl(at).args(first));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(lines(&output), ["one", "two"]);

    let mut child = ctl(at)
        .args(["subscribe", "-t", "t", "--id", "s", "-f", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    let message: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&message["payload"], &message["attempt"]), (&json!("three"), &json!(1)));
    signal(child.id(), "INT");
    assert_eq!(end_of(&mut child).code(), Some(0));
}

#[test]
fn it_shows_and_diagnoses() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    request(at, "POST", "/publish", r#"{"topic":"orders","payload":"x"}"#);
    let output = run(ctl(at).arg("topics"));
    let printed = lines(&output);
    assert!(printed[0].starts_with("TOPIC") && printed[1].starts_with("orders  1 "), "{printed:?}");
    for (arguments, path) in [("topics", "/topics"), ("status", "/status")] {
        let output = run(ctl(at).args([arguments, "--output", "json"]));
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let said = get(at, path).json();
        let fields =
            |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
        assert_eq!(fields(&shown), fields(&said));
    }
    let output = run(ctl(at).arg("status"));
    let printed = lines(&output);
    assert!(printed.iter().any(|line| line.starts_with("node_id  ")), "{printed:?}");
    assert!(printed.iter().any(|line| line.starts_with("NODE  ")), "{printed:?}");
    assert!(printed.iter().all(|line| line.chars().count() <= 120), "{printed:?}");

    let output = run(ctl(at).arg("diagnose"));
    assert!(output.status.success(), "{:?}", lines(&output));
    assert_eq!(lines(&output).last().map(String::as_str), Some("nothing is wrong"));
    let nobody = format!("127.0.0.1:{}", free_port());
    let output = run(ctl(&nobody).args(["diagnose", "--output", "json"]));
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["ok"], false);
    let advice = report["checks"][0]["advice"].as_str().unwrap_or_default();
    assert!(advice.contains("start a node"), "{report}");
}

#[test]
fn it_fetches_without_a_subscription() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    let output = run(ctl(at).args(["publish", "-t", "t", "-p", "x", "-c", "1100", "-P", "50"]));
    assert!(output.status.success(), "{}", said(&output));
    for (arguments, count) in [(&[][..], 1_100), (&["--offset", "1098"], 2), (&["--max", "3"], 3)] {
        let output = run(ctl(at).args(["fetch", "-t", "t"]).args(arguments));
        assert!(output.status.success(), "{}", said(&output));
        let printed = lines(&output);
        assert_eq!(printed.len(), count, "{arguments:?}");
        assert!(printed.iter().all(|line| line == "x"), "{arguments:?}");
    }
    let one = ["fetch", "-t", "t", "--partition", "0", "--offset", "7", "--max", "1"];
    let output = run(ctl(at).args(one).args(["--output", "json"]));
    let message: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&message["offset"], &message["topic"]), (&json!(7), &json!("t")));

    let mut child = ctl(at)
        .args(["fetch", "-t", "t", "--offset", "1100", "--wait", "30s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    request(at, "POST", "/publish", r#"{"topic":"t","payload":"awaited"}"#);
    assert!(end_of(&mut child).success());
    let printed = child.wait_with_output().expect("it has ended");
    assert_eq!(lines(&printed), ["awaited"]);
}

#[test]
fn it_lists_subscriptions() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let at = &node.address;
    let body = r#"{"id":"billing","topics":["orders"],"from":"earliest","ack_wait":"5s"}"#;
    assert_eq!(request(at, "POST", "/subscribe", body).status, 200);
    let printed = lines(&run(ctl(at).arg("subscriptions")));
    assert!(printed[0].starts_with("SUBSCRIPTION  TOPICS"), "{printed:?}");
    assert_eq!(printed[1], "billing       orders  earliest  5.0");
    let output = run(ctl(at).args(["subscriptions", "--output", "json"]));
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown, get(at, "/subscriptions").json());
}

#[test]
fn shells_understand_its_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(ctl("unused:1").args(["completions", shell]));
        assert!(output.status.success(), "{shell}: {}", said(&output));
        let script = lines(&output);
        assert!(script.iter().any(|line| line.contains("diagnose")), "{shell}");
        if shell == "bash" {
            let mut parser = Command::new("bash");
            let parsed = run(parser.args(["-n", "-c", &script.join("\n")]));
            assert!(parsed.status.success(), "{}", said(&parsed));
        }
    }
}
