//! The world's own last look at everything: whether topics take messages again, what stands in
//! them, what stands among the dead letters.

use std::time::Duration;

use serde_json::{Value, json};
use sprawl_core::ids::Offset;

use super::reader::{fetch, take_page};
use super::{Answer, Http, Shared, dead_letters_name, topic_name};
use crate::history::{Published, Try};
use crate::invariants::{DeadLetter, ReadBack, check_letter};

/// How long a request may take when all is healed.
const HEALED_PATIENCE: Duration = Duration::from_secs(15);

/// Publishes to a topic until it takes the message; gives up when the limit is over.
pub(crate) async fn probe(shared: &Shared, topic: u32, limit: Duration) -> bool {
    let began = tokio::time::Instant::now();
    let mut http = Http::default();
    let id = format!("probe-{topic}");
    let body = json!({ "topic": topic_name(topic), "id": id, "payload": "probe" });
    let (payload, tries) = (b"probe".to_vec(), vec![Try::Unknown]);
    let sent_ms = shared.now_ms();
    let message = Published { topic, payload, sent_ms, tries, ..Published::default() };
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
    let mut from = 0;
    loop {
        let query = format!("offset={from}&max=1000");
        let (answer, asked) = fetch(shared, &mut http, topic, &query, HEALED_PATIENCE).await;
        let Some(body) = answer.ok() else {
            match answer {
                Answer::Came(500, _) => back.damaged = true,
                Answer::Came(404, _) => {}
                other => {
                    let detail = format!("reading topic {topic} back at {from}: {other:?}");
                    shared.findings.violated("EveryRequestResolves", detail);
                }
            }
            return back;
        };
        let page = take_page(shared, (topic, Some(from)), body, asked);
        back.messages.extend(page.messages);
        (back.start, back.at_ms) = (Offset(page.start), asked.to_ms);
        if page.next >= page.end || page.next <= from {
            if page.next != page.end {
                let (next, end) = (page.next, page.end);
                let detail = format!("topic {topic} is read to {next}, its end is {end}");
                shared.findings.violated("EveryRequestResolves", detail);
            }
            return back;
        }
        from = page.next;
    }
}

/// Asks where a topic begins by now.
pub(crate) async fn look(shared: &Shared, topic: u32) {
    let mut http = Http::default();
    let (answer, asked) = fetch(shared, &mut http, topic, "max=1", HEALED_PATIENCE).await;
    if let Some(body) = answer.ok() {
        take_page(shared, (topic, None), body, asked);
    }
}

/// Reads a topic's dead letters from an offset on, each past the checkers; gives where to go on,
/// and how many there were.
pub(crate) async fn read_letters(
    shared: &Shared,
    http: &mut Http,
    topic: u32,
    mut from: u64,
) -> (u64, Vec<Value>) {
    let mut letters = Vec::new();
    loop {
        let topic = dead_letters_name(topic);
        let path = format!("/topics/{topic}/messages?offset={from}&max=1000");
        let answer = http.get(&path, HEALED_PATIENCE).await;
        let Some(body) = answer.ok() else {
            return (from, letters);
        };
        for message in body["messages"].as_array().into_iter().flatten() {
            take_letter(shared, message);
            letters.push(message.clone());
        }
        let (next, end) = (body["next_offset"].as_u64(), body["end_offset"].as_u64());
        let next = next.unwrap_or(from);
        if next <= from || Some(next) >= end {
            return (next.max(from), letters);
        }
        from = next;
    }
}

fn take_letter(shared: &Shared, message: &Value) {
    let Some(letter) = letter(message) else {
        let detail = format!("among the dead letters is what is none: {message}");
        return shared.findings.violated("NoPhantom", detail);
    };
    shared.trace.client(&(&letter.id, letter.place, &letter.subscription));
    check_letter(&mut shared.history(), letter, &shared.findings);
}

/// Reads a dead letter.
fn letter(message: &Value) -> Option<DeadLetter> {
    let header = |name: &str| message["headers"][format!("Sprawl-Dead-{name}")].as_str();
    Some(DeadLetter {
        place: message["offset"].as_u64()?,
        topic: super::topic_number(header("Topic")?)?,
        offset: header("Offset")?.parse().ok()?,
        id: header("Id")?.to_owned(),
        subscription: header("Subscription")?.to_owned(),
        payload: message["payload"].as_str()?.as_bytes().to_vec(),
    })
}
