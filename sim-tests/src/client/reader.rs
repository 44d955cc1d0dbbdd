//! A client that reads without a subscription; and the world's own last look at everything.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Http, Phase, Shared, topic_name};
use crate::invariants::ReadBack;
use crate::plan::Draw;

/// How long a request may take when all is healed.
const HEALED_PATIENCE: Duration = Duration::from_secs(15);

/// Reads here and there until the run is over.
pub(crate) async fn read(shared: Shared, topics: u32, mut dice: Draw) {
    let mut http = Http::default();
    while shared.phase() == Phase::Chaos {
        let pause = dice.log_range(50, 2_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let topic = topic_name(dice.range(0, u64::from(topics) - 1) as u32);
        let (from, max) = (dice.log_range(1, 2_000) - 1, dice.log_range(1, 100));
        let wait = dice.pick(&["0", "300ms", "2s"]);
        let path = format!("/topics/{topic}/messages?offset={from}&max={max}&wait={wait}");
        let answer = http.get(&path, Duration::from_secs(5)).await;
        let messages = answer.ok().and_then(|body| body["messages"].as_array());
        for message in messages.into_iter().flatten() {
            shared.saw(message);
        }
    }
}

/// Publishes to a topic until it takes the message; gives up when the limit is over.
pub(crate) async fn probe(shared: &Shared, topic: u32, limit: Duration) -> bool {
    let began = tokio::time::Instant::now();
    let mut http = Http::default();
    let id = format!("probe-{topic}");
    let body = json!({ "topic": topic_name(topic), "id": id, "payload": "probe" });
    let message = crate::history::Published {
        topic,
        payload: b"probe".to_vec(),
        sent_ms: shared.now_ms(),
        tries: vec![crate::history::Try::Unknown],
        open: 0,
    };
    shared.history().published.insert(id, message);
    while began.elapsed() < limit {
        if http.post("/publish", &body, HEALED_PATIENCE).await.ok().is_some() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

/// Reads a topic from its beginning to its end. A damaged one ends with a clear error; any other
/// answer but messages is a request that does not resolve.
pub(crate) async fn read_back(shared: &Shared, topic: u32) -> ReadBack {
    let mut http = Http::default();
    let mut back = ReadBack::default();
    let mut next = 0;
    loop {
        let path = format!("/topics/{}/messages?offset={next}&max=1000", topic_name(topic));
        let answer = http.get(&path, HEALED_PATIENCE).await;
        let Some(body) = answer.ok() else {
            match answer {
                Answer::Came(500, _) => back.damaged = true,
                Answer::Came(404, _) => {}
                other => {
                    let detail = format!("reading topic {topic} back at {next}: {other:?}");
                    shared.findings.violated("EveryRequestResolves", detail);
                }
            }
            return back;
        };
        let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        back.messages.extend(messages.iter().filter_map(|message| shared.saw(message)));
        let (before, end) = (next, body["end_offset"].as_u64().unwrap_or(0));
        next = body["next_offset"].as_u64().unwrap_or(0);
        if next >= end || next <= before {
            check_whole(shared, topic, next, body);
            return back;
        }
    }
}

/// Reading ends at the end, not before it.
fn check_whole(shared: &Shared, topic: u32, next: u64, body: &Value) {
    if Some(next) != body["end_offset"].as_u64() {
        let detail = format!("topic {topic} is read to {next}, its end is {}", body["end_offset"]);
        shared.findings.violated("EveryRequestResolves", detail);
    }
}
