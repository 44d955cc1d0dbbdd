//! `sprawlctl bench`: what it counts is what the node stored, and its latencies count from when a
//! message was due.

use std::process::Output;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::get;
use crate::meddler::{self, Asked, Said};
use crate::process::{Node, eventually, run};
use crate::sprawlctl::{ctl, lines, said};

#[track_caller]
fn bench(address: &str, arguments: &[&str]) -> (Output, Value) {
    let output = run(ctl(address).args(["bench", "--output", "json"]).args(arguments));
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

/// The percentiles, which never fall.
#[track_caller]
fn percentiles(latency: &Value) -> Vec<f64> {
    let names = ["p50", "p90", "p99", "p99_9", "max"];
    let values: Vec<f64> = names.iter().filter_map(|name| latency[name].as_f64()).collect();
    assert!(values.len() == 5 && values.is_sorted() && values[0] > 0.0, "{latency}");
    values
}

#[test]
fn it_reports_what_the_node_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let arguments = ["--rate", "200", "--duration", "1s", "--topics", "3", "--subscribe"];
    let (output, report) = bench(&node.address, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    for (field, wanted) in [
        ("ok", json!(true)),
        ("asked_rate", json!(200)),
        ("messages", json!(200)),
        ("stored", json!(200)),
        ("failed", json!({})),
        ("size", json!(1_024)),
    ] {
        assert_eq!(report[field], wanted, "{field}: {report}");
    }
    let rate = report["achieved_rate"].as_f64().expect("a rate");
    assert!(rate > 0.0 && rate <= 200.0, "{report}");
    percentiles(&report["latency_ms"]);
    let delivery = &report["delivery"];
    assert_eq!((&delivery["received"], &delivery["missing"]), (&json!(200), &json!(0)), "{report}");
    percentiles(&delivery["latency_ms"]);
    // One more for each topic, from before the schedule began.
    let metrics = String::from_utf8(get(&node.address, "/metrics").body).expect("text");
    assert!(metrics.lines().any(|line| line == "sprawl_published_total 203"), "{metrics}");

    let output = run(ctl(&node.address).args(["bench", "--rate", "50", "--duration", "200ms"]));
    let printed = lines(&output);
    assert!(
        output.status.success() && printed[0].starts_with("50 messages/s asked"),
        "{printed:?}"
    );
    assert!(printed[1].contains("p50") && printed[1].contains("p99.9"), "{printed:?}");
}

#[test]
fn refusals_are_counted_tried_again_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let (address, refused) = (node.address.clone(), Mutex::new(0));
    let problem = |status: u16, kind: &str| {
        let kind = format!("urn:sprawl:problem:{kind}");
        Said::json(status, &json!({ "type": kind, "status": status }))
    };
    let proxy = meddler::start(move |asked| {
        let mut refused = refused.lock().expect("no panic");
        if asked.publishes(3) && *refused < 2 {
            *refused += 1;
            return problem(503, "overloaded");
        }
        if asked.publishes(5) { problem(400, "malformed") } else { asked.forward(&address) }
    });
    let (output, report) = bench(&proxy, &["--rate", "100", "--duration", "200ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(report["retried"], json!({ "503 overloaded": 2 }), "{report}");
    assert_eq!(report["failed"], json!({ "400 malformed": 1 }), "{report}");
    assert_eq!((&report["ok"], &report["stored"]), (&json!(false), &json!(19)), "{report}");
}

#[test]
fn a_node_that_stands_still_stands_in_the_percentiles() {
    const STILL: Duration = Duration::from_millis(800);
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let address = node.address.clone();
    let proxy = meddler::start(move |asked| {
        let began = Instant::now();
        if asked.publishes(0) {
            eventually("the end", || (began.elapsed() >= STILL).then_some(()));
        }
        asked.forward(&address)
    });
    let arguments = ["--rate", "100", "--duration", "1s", "--connections", "1"];
    let (output, report) = bench(&proxy, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    // One request of a hundred was slow; four fifths of the messages were due while it was.
    let found = percentiles(&report["latency_ms"]);
    assert!(found[0] > 100.0 && found[4] >= 800.0, "{report}");
    assert_eq!(report["stored"], 100);
}

#[test]
fn a_batch_has_an_answer_for_each_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(&folder.path().join("data"));
    let address = node.address.clone();
    // The batch as the API defines it, made of single publishes; the last but one is refused once.
    let refused = Mutex::new(false);
    let proxy = meddler::start(move |asked| {
        if asked.path != "/publish/batch" {
            return asked.forward(&address);
        }
        let one = |line: &[u8]| {
            let (method, path) = ("POST".to_owned(), "/publish".to_owned());
            let one = Asked { method, path, body: line.to_vec() };
            let mut refused = refused.lock().expect("no panic");
            if one.publishes(18) && !*refused {
                *refused = true;
                return json!({ "type": "urn:sprawl:problem:overloaded", "status": 503 });
            }
            serde_json::from_slice::<Value>(&one.forward(&address).body).expect("JSON")
        };
        let lines = asked.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Said::json(207, &lines.map(one).collect())
    });
    let arguments = ["--rate", "100", "--duration", "200ms", "--batch", "8"];
    let (output, report) = bench(&proxy, &arguments);
    assert!(output.status.success(), "{} {report}", said(&output));
    assert_eq!((&report["stored"], &report["batch"]), (&json!(20), &json!(8)), "{report}");
    assert_eq!(report["retried"], json!({ "503 overloaded": 1 }), "{report}");

    let without = meddler::start(|asked| match asked.path.as_str() {
        "/publish/batch" => Said::json(404, &json!({ "status": 404 })),
        _ => Said::json(200, &json!({ "status": "published", "partition": 0, "offset": 0 })),
    });
    let (output, _) = bench(&without, &arguments);
    let said = said(&output);
    assert!(
        !output.status.success() && said.contains("does not have POST /publish/batch"),
        "{said}"
    );
}
