//! A client that configures topics, removes messages, sends dead letters back, and makes and
//! deletes a topic and a subscription of its own.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sprawl_core::ids::{IdHash, Offset};
use sprawl_server::duration::moment;

use super::judge::read_letters;
use super::reader::{fetch, take_page};
use super::{Answer, Http, Phase, Shared, back_off, dead_letters_name, topic_name, topic_number};
use crate::history::{self, Published, Terms, Try};
use crate::plan::{Administrator, Draw, Keeping};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long sending dead letters back may take: it must have ended before it is asked for again.
const REDRIVE_PATIENCE: Duration = Duration::from_secs(60);
/// How many dead letters are sent back at once at most.
const REDRIVE_MAX: u64 = 20;
/// The topic, and the subscription, that are its own.
const OWN: &str = "scratch";

/// Has a topic kept as the plan says, as often as it takes.
pub(crate) async fn configure(shared: Shared, topic: u32, keeping: Keeping) {
    let mut http = Http::default();
    let retention = keeping.retention_ms.map(|span| format!("{span}ms"));
    let body = json!({ "retention": retention, "retention_bytes": keeping.retention_bytes });
    let body = Bytes::from(body.to_string());
    let path = format!("/topics/{}", topic_name(topic));
    for n in 0.. {
        let answer = http.ask("PUT", &path, &[], body.clone(), PATIENCE).await;
        if answer.ok().is_some() || shared.phase() == Phase::Over {
            return;
        }
        tokio::time::sleep(back_off(n)).await;
    }
}

/// Does one thing or another until the chaos is over.
pub(crate) async fn administrate(shared: Shared, plan: Administrator, topics: u32, mut dice: Draw) {
    let mut http = Http::default();
    let (mut gone, mut redrives) = (Vec::new(), plan.redrives);
    for turn in 0u64.. {
        let pause = dice.range(1, 2 * plan.pause_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if shared.phase() != Phase::Chaos {
            return;
        }
        let topic = dice.range(0, u64::from(topics) - 1) as u32;
        match dice.range(0, 2) {
            0 if plan.purges => purge(&shared, &mut http, topic, &mut dice).await,
            1 if redrives => redrives = redrive(&shared, &mut http, topic, &mut dice).await,
            2 if plan.deletes => remake(&shared, &mut http, turn, &mut gone).await,
            _ => {}
        }
    }
}

/// Removes some of a topic's oldest messages.
async fn purge(shared: &Shared, http: &mut Http, topic: u32, dice: &mut Draw) {
    let (answer, asked) = fetch(shared, http, topic, "max=1", PATIENCE).await;
    let Some(body) = answer.ok() else { return };
    let page = take_page(shared, (topic, None), body, asked);
    let before = page.start + dice.range(0, (page.end - page.start.min(page.end)) / 2);
    // From now on they may be gone, whatever the answer is.
    let asked = Offset(before);
    shared.history().purged.entry(topic).and_modify(|at| *at = asked.max(*at)).or_insert(asked);
    let path = format!("/topics/{}/messages?partition=0&before={before}", topic_name(topic));
    let answer = http.ask("DELETE", &path, &[], Bytes::new(), PATIENCE).await;
    let Some(body) = answer.ok() else { return };
    let start = body["partitions"][0]["start_offset"].as_u64().unwrap_or(0);
    if start < before {
        let detail = format!("topic {topic} was purged below {before} and begins at {start}");
        shared.findings.violated("PurgedMeansGone", detail);
    }
    shared.history().count(history::PURGED, before - page.start.min(before));
}

/// Sends the oldest dead letters of a topic back; says whether it may be asked for again.
async fn redrive(shared: &Shared, http: &mut Http, topic: u32, dice: &mut Draw) -> bool {
    let (_, letters) = read_letters(shared, http, topic, 0).await;
    let count = dice.range(1, REDRIVE_MAX).min(letters.len() as u64);
    if count == 0 {
        return true;
    }
    for letter in &letters {
        expect_again(shared, topic, letter);
    }
    let path = format!("/topics/{}/redrive", dead_letters_name(topic));
    let answer = http.post(&path, &json!({ "max": count }), REDRIVE_PATIENCE).await;
    shared.trace.client(&("redrive", topic, count, answer.ok().is_some()));
    let taken = answer.ok().and_then(|body| body["redriven"].as_u64()).unwrap_or(0);
    shared.history().count(history::REDRIVEN, taken);
    !matches!(answer, Answer::None)
}

/// Enters a dead letter into the history as the message that it may be when it is back. Its id
/// follows from where it stands, which is the API's promise that it comes back once.
fn expect_again(shared: &Shared, topic: u32, letter: &Value) {
    let (Some(offset), Some(stored)) = (letter["offset"].as_u64(), letter["timestamp"].as_str())
    else {
        return;
    };
    let time = moment(stored).map_or(0, |time| time.0);
    let place = format!("{} 0 {offset} {time}", dead_letters_name(topic));
    let id = format!("redriven-{:032x}", IdHash::of(place.as_bytes()).0);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let terms = Terms {
        key: text(&letter["key"]),
        kind: text(&letter["headers"]["kind"]),
        poison: letter["headers"]["poison"] == "yes",
        ..Terms::default()
    };
    let payload = letter["payload"].as_str().unwrap_or_default().as_bytes().to_vec();
    let origin = letter["headers"]["Sprawl-Dead-Topic"].as_str().and_then(topic_number);
    let (topic, tries) = (origin.unwrap_or(topic), vec![Try::Unknown]);
    let sent_ms = shared.now_ms();
    let message = Published { topic, payload, terms, sent_ms, tries, ..Published::default() };
    shared.history().published.entry(id).or_insert(message);
}

/// Deletes a topic and a subscription, and makes and uses them anew: `gone`, what was stored there
/// before, does not come.
async fn remake(shared: &Shared, http: &mut Http, turn: u64, gone: &mut Vec<String>) {
    let id = format!("{OWN}-{turn}");
    let subscribe = json!({ "id": OWN, "topics": [OWN], "from": "earliest" });
    let publish = json!({ "topic": OWN, "id": id, "payload": "x" });
    let pull = format!("/subscriptions/{OWN}/messages?wait=1s");
    let mut stored = false;
    let steps = async {
        for path in [format!("/topics/{OWN}"), format!("/subscriptions/{OWN}")] {
            match http.ask("DELETE", &path, &[], Bytes::new(), PATIENCE).await {
                Answer::Came(200 | 404, _) => {}
                Answer::Came(..) | Answer::None => return None,
            }
        }
        http.post("/subscribe", &subscribe, PATIENCE).await.ok()?;
        http.post("/publish", &publish, PATIENCE).await.ok()?;
        stored = true;
        let pulled = http.get(&pull, PATIENCE).await.ok()?.clone();
        let ids = pulled["messages"].as_array()?.iter().filter_map(|one| one["id"].as_str());
        Some(ids.map(str::to_owned).collect::<Vec<_>>())
    };
    let ids = steps.await;
    shared.trace.client(&("remake", turn, &ids));
    shared.history().count(history::DELETED, u64::from(ids.is_some()));
    if let Some(other) = ids.iter().flatten().find(|other| gone.contains(other)) {
        let detail = format!("{other} of a deleted topic came to {OWN} in turn {turn}");
        shared.findings.violated("PurgedMeansGone", detail);
    }
    gone.extend(stored.then_some(id));
}
