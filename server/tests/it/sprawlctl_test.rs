//! `sprawlctl test`: a healthy node passes, and nothing that goes wrong on the way of a message
//! passes unnoticed.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::meddler::{self, Asked, Said};
use crate::process::{Node, run};
use crate::sprawlctl::{ctl, lines, said};

/// A fault: the request, the node, and what is answered.
type Fault = Box<dyn Fn(&Asked, &str) -> Said + Send + Sync>;

fn test(address: &str) -> Output {
    run(ctl(address).args(["test", "-c", "40", "--patience", "2s", "--silence", "30s"]))
}

#[test]
fn a_healthy_node_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let output = run(ctl(&node.address).arg("test"));
    assert!(output.status.success(), "{}", said(&output));
    let printed = lines(&output);
    assert_eq!(printed.len(), 6, "{printed:?}");
    let steps = printed[..5].iter().all(|line| line.starts_with("ok ") && line.contains(" s "));
    assert!(steps && printed[0].contains(" 1000 messages"), "{printed:?}");
    assert_eq!(printed[5], "nothing was lost, doubled or altered");

    let output = run(ctl(&node.address).args(["test", "-c", "3", "--output", "json"]));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["ok"], &report["error"]), (&json!(true), &Value::Null), "{report}");
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(5), "{report}");
}

/// The publish of one message is acknowledged and forgotten.
fn swallowed(offset: u64) -> Fault {
    Box::new(move |asked, node| {
        if asked.publishes(7) {
            let id = &asked.json()["id"];
            let place =
                json!({ "status": "published", "id": id, "partition": 0, "offset": offset });
            return Said::json(200, &place);
        }
        asked.forward(node)
    })
}

/// A message that is published again is stored again.
fn forgotten_id() -> Fault {
    let seen = Mutex::new(BTreeSet::new());
    Box::new(move |asked, node| {
        let (mut asked, id) = (asked.clone(), asked.json()["id"].clone());
        let new = seen.lock().expect("no panic").insert(id.to_string());
        if asked.publishes(10) && !new {
            let mut body = asked.json();
            body["id"] = json!("another");
            asked.body = body.to_string().into_bytes();
        }
        asked.forward(node)
    })
}

/// Answers of these paths have payloads that are not what was published: those of the messages
/// whose numbers begin with a 3, whichever of them is seen first.
fn altered(path: &'static str) -> Fault {
    Box::new(move |asked, node| {
        let said = asked.forward(node);
        let reads = asked.path.starts_with(path) && asked.path.contains("/messages");
        if reads { said.altered(r#"\"number\":3"#, r#"\"number\":4"#) } else { said }
    })
}

/// One message is never delivered.
fn withheld() -> Fault {
    Box::new(|asked, node| {
        let said = asked.forward(node);
        if !(asked.path.starts_with("/subscriptions/") && asked.path.contains("/messages")) {
            return said;
        }
        let mut body: Value = serde_json::from_slice(&said.body).expect("JSON");
        let messages = body["messages"].as_array_mut().expect("messages");
        messages.retain(|message| !message["id"].as_str().is_some_and(|id| id.ends_with("-5")));
        Said::json(said.status, &body)
    })
}

/// Acknowledgements are answered and forgotten.
fn deaf() -> Fault {
    Box::new(|asked, node| {
        if asked.path.ends_with("/ack") {
            let acked = asked.json()["tokens"].as_array().map_or(0, Vec::len);
            return Said::json(200, &json!({ "acked": acked, "expired": [] }));
        }
        asked.forward(node)
    })
}

#[test]
fn whatever_goes_wrong_is_named_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let cases: [(Fault, &str, &str); 7] = [
        (swallowed(1_000_000), "lost: acknowledged, and not there when read back", "-7 "),
        (swallowed(3), "lost: acknowledged, and not there when read back", "-7 "),
        (forgotten_id(), "doubled, though its id was known", "-10 "),
        (altered("/topics/"), "altered when read back: the payload", "-3"),
        (altered("/subscriptions/"), "altered when delivered: the payload", "-3"),
        (withheld(), "lost: not delivered", "-5 "),
        (deaf(), "doubled: delivered again after its acknowledgement", "-"),
    ];
    for (fault, wanted, number) in cases {
        let address = node.address.clone();
        let output = test(&meddler::start(move |asked| fault(asked, &address)));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{wanted}: {said}");
        assert!(said.contains(wanted) && said.contains(number), "{wanted}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{wanted}: {said}");
        assert!(!lines(&output).iter().any(|line| line.contains("nothing was lost")), "{wanted}");
    }
}
