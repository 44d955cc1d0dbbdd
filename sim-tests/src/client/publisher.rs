//! A client that publishes, and tries again under the same ids until it knows.

mod letter;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sprawl_core::ids::Offset;

use super::{Answer, Http, Phase, Shared, back_off};
use crate::history::{CONFLICTS, Published, Try};
use crate::plan::{Draw, Publisher};
use letter::Letter;

/// How long a client goes on trying: well within the dedup window.
const RETRY_MS_MAX: u64 = 30_000;

/// How several messages are sent at once.
#[derive(Clone, Copy, Debug)]
enum Form {
    Array,
    Lines,
}

/// Publishes until the chaos is over.
pub(crate) async fn publish(shared: Shared, number: usize, plan: Publisher, mut dice: Draw) {
    tokio::time::sleep(Duration::from_millis(plan.at_ms)).await;
    let mut http = Http::default();
    let mut next = 0u64;
    loop {
        let count = if plan.batch_max > 1 { dice.range(1, plan.batch_max) } else { 1 };
        let pause = dice.range(1, 2 * plan.pause_ms) * count;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if shared.phase() != Phase::Chaos {
            return;
        }
        let ids = (next..next + count).map(|message| format!("p{number}-{message}"));
        let letters: Vec<Letter> =
            ids.map(|id| Letter::draft(&shared, &plan, id, &mut dice)).collect();
        next += count;
        let form = if dice.share(plan.lines_percent) { Form::Lines } else { Form::Array };
        if dice.share(plan.twice_percent) {
            let (shared, plan, letters) = (shared.clone(), plan.clone(), letters.clone());
            let after = Duration::from_micros(dice.log_range(1, 50_000));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let patience = Duration::from_millis(plan.patience_ms);
                attempt(&shared, &mut Http::default(), &letters, form, patience).await;
            });
        }
        persist(&shared, &mut http, letters, (&plan, form), &mut dice).await;
    }
}

/// Tries until all is stored, or refused for good, or the time for it is over.
async fn persist(
    shared: &Shared,
    http: &mut Http,
    mut letters: Vec<Letter>,
    (plan, form): (&Publisher, Form),
    dice: &mut Draw,
) {
    let began = shared.now_ms();
    for n in 0.. {
        // Now and then the client goes away in the middle, and comes back.
        let breaks = dice.share(plan.breaks_percent);
        let patience = if breaks { dice.log_range(1, 50) } else { plan.patience_ms };
        let ended = attempt(shared, http, &letters, form, Duration::from_millis(patience)).await;
        let mut ended = ended.into_iter();
        letters.retain(|_| ended.next() == Some(false));
        if letters.is_empty() || shared.now_ms() > began + RETRY_MS_MAX {
            return;
        }
        tokio::time::sleep(back_off(n)).await;
    }
}

/// Tries once; says of each whether there is no more to try.
async fn attempt(
    shared: &Shared,
    http: &mut Http,
    letters: &[Letter],
    form: Form,
    patience: Duration,
) -> Vec<bool> {
    let note = |letter: &Letter, f: &dyn Fn(&mut Published)| {
        shared.history().published.get_mut(&letter.id).map(f).expect("it was entered before");
    };
    letters.iter().for_each(|letter| note(letter, &|message| message.open += 1));
    let (path, headers, body) = request(letters, form);
    let answer = http.ask("POST", &path, headers, body, patience).await;
    let now_ms = shared.now_ms();
    let mut ended = Vec::with_capacity(letters.len());
    for (at, letter) in letters.iter().enumerate() {
        let (outcome, end) = outcome(&answer, at);
        shared.trace.client(&(&letter.id, &outcome));
        note(letter, &|message| {
            message.open -= 1;
            message.tries.push(outcome.clone());
            if matches!(outcome, Try::Acknowledged { .. }) {
                message.known(now_ms);
            }
        });
        told(shared, letter, &outcome, end);
        ended.push(end);
    }
    ended
}

/// Notes what else an outcome says.
fn told(shared: &Shared, letter: &Letter, outcome: &Try, end: bool) {
    let mut history = shared.history();
    match outcome {
        Try::Acknowledged { offset, .. } => {
            let topic = history.published.get(&letter.id).map_or(0, |message| message.topic);
            let last = history.ends.entry(topic).or_default();
            *last = (*last).max(*offset);
        }
        Try::Refused if end => history.count(CONFLICTS, 1),
        Try::Refused | Try::Unknown => {}
    }
}

/// The path, the headers and the body of a request.
fn request(letters: &[Letter], form: Form) -> (String, &[(String, String)], Bytes) {
    let [letter] = letters else {
        let texts: Vec<String> = letters.iter().map(|letter| letter.json.to_string()).collect();
        let body = match form {
            Form::Array => format!("[{}]", texts.join(",")),
            Form::Lines => texts.join("\n"),
        };
        return ("/publish/batch".to_owned(), &[], body.into());
    };
    match &letter.raw {
        Some(raw) => (raw.path.clone(), &raw.headers, raw.body.clone()),
        None => ("/publish".to_owned(), &[], letter.json.to_string().into()),
    }
}

/// What an answer says of the message at a place of the request, and whether that is final;
/// anything unclear is unknown.
fn outcome(answer: &Answer, at: usize) -> (Try, bool) {
    let Answer::Came(_, whole) = answer else {
        return (Try::Unknown, false);
    };
    let body = match whole {
        Value::Array(items) => items.get(at).unwrap_or(&Value::Null),
        whole => whole,
    };
    let number = |field: &str| body.get(field).and_then(Value::as_u64);
    match body.get("stored").and_then(Value::as_str) {
        Some("yes") => match (number("partition"), number("offset")) {
            (Some(partition), Some(offset)) => {
                let duplicate = body.get("duplicate").and_then(Value::as_bool).unwrap_or(false);
                let (partition, offset) = (partition as u32, Offset(offset));
                (Try::Acknowledged { partition, offset, duplicate }, true)
            }
            _ => (Try::Unknown, false),
        },
        // The next offset is not what the message expects, and will not be again.
        Some("no") => (Try::Refused, number("status") == Some(409)),
        _ => (Try::Unknown, false),
    }
}
