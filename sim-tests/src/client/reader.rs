//! A client that reads without a subscription: by offset, by time, by id.

use std::time::Duration;

use serde_json::Value;
use sprawl_core::ids::Offset;
use sprawl_server::duration::rfc3339;

use super::{Answer, Http, Phase, Shared, topic_name};
use crate::clock;
use crate::history::{self, Asked, Sought};
use crate::invariants::{Page, check_page};
use crate::plan::Draw;

/// How long a reader waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads here and there until the run is over.
pub(crate) async fn read(shared: Shared, topics: u32, mut dice: Draw) {
    let mut http = Http::default();
    while shared.phase() == Phase::Chaos {
        let pause = dice.log_range(50, 2_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let topic = dice.range(0, u64::from(topics) - 1) as u32;
        match dice.range(0, 9) {
            0 => by_time(&shared, &mut http, topic, &mut dice).await,
            1 => by_id(&shared, &mut http, &mut dice).await,
            _ => by_offset(&shared, &mut http, topic, &mut dice).await,
        }
    }
}

async fn by_offset(shared: &Shared, http: &mut Http, topic: u32, dice: &mut Draw) {
    let (from, max) = (dice.log_range(1, 2_000) - 1, dice.log_range(1, 100));
    let wait = dice.pick(&["0", "300ms", "2s"]);
    let query = format!("offset={from}&max={max}&wait={wait}");
    let (answer, asked) = fetch(shared, http, topic, &query, PATIENCE).await;
    if let Some(body) = answer.ok() {
        take_page(shared, (topic, Some(from)), body, asked);
    }
}

/// Looks for what was stored at some time of the run or later.
async fn by_time(shared: &Shared, http: &mut Http, topic: u32, dice: &mut Draw) {
    let time_ms = dice.range(0, shared.now_ms());
    let at = rfc3339(clock::wall(time_ms));
    let query = format!("at={at}&max=10");
    let (answer, asked) = fetch(shared, http, topic, &query, PATIENCE).await;
    let Some(body) = answer.ok() else { return };
    let page = take_page(shared, (topic, None), body, asked);
    let mut history = shared.history();
    let (start, found) = (Offset(page.start), Offset(page.from));
    history.sought.push(Sought { topic, time_ms, start, found, at_ms: asked.to_ms });
    history.count(history::FOUND_BY_TIME, u64::from(!page.messages.is_empty()));
}

/// Looks for a message that is known to be stored.
async fn by_id(shared: &Shared, http: &mut Http, dice: &mut Draw) {
    let some = {
        let history = shared.history();
        let last = history.published.len().saturating_sub(1) as u64;
        let mut from = history.published.iter().skip(dice.range(0, last) as usize);
        let found = from.find(|(_, message)| message.place().is_some());
        found.map(|(id, message)| (id.clone(), message.topic))
    };
    let Some((id, topic)) = some else { return };
    let (answer, asked) = fetch(shared, http, topic, &format!("id={id}"), PATIENCE).await;
    match &answer {
        Answer::Came(404, _) => shared.history().unfound.push((id.clone(), asked.to_ms)),
        Answer::Came(..) | Answer::None => {}
    }
    let messages = answer.ok().and_then(|body| body["messages"].as_array());
    for message in messages.into_iter().flatten() {
        let seen = shared.saw(message, asked);
        if let Some(other) = seen.filter(|seen| seen.id != id) {
            let detail = format!("{id} was asked for, and {} came", other.id);
            shared.findings.violated("NoPhantom", detail);
        }
        shared.history().count(history::FOUND_BY_ID, 1);
    }
}

/// Asks for messages of a topic.
pub(super) async fn fetch(
    shared: &Shared,
    http: &mut Http,
    topic: u32,
    query: &str,
    patience: Duration,
) -> (Answer, Asked) {
    let asked = shared.ask();
    let path = format!("/topics/{}/messages?{query}", topic_name(topic));
    let answer = http.get(&path, patience).await;
    (answer, shared.answered(asked))
}

/// Takes an answer past the checkers; without the offset that was asked for, it begins where its
/// first message stands.
pub(super) fn take_page(
    shared: &Shared,
    (topic, from): (u32, Option<u64>),
    body: &Value,
    asked: Asked,
) -> Page {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let messages: Vec<_> =
        messages.iter().filter_map(|message| shared.saw(message, asked)).collect();
    let number = |field: &str| body[field].as_u64().unwrap_or(0);
    let next = number("next_offset");
    let first = messages.first().map_or(next, |seen| seen.offset.0);
    let (start, end) = (number("start_offset"), number("end_offset"));
    let page = Page { topic, from: from.unwrap_or(first), messages, next, start, end };
    check_page(&mut shared.history(), &page, asked, &shared.findings);
    page
}
