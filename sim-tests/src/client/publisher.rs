//! A client that publishes, and tries again under the same id until it knows.

use std::time::Duration;

use serde_json::{Value, json};
use sprawl_core::ids::Offset;

use super::{Answer, Http, Phase, Shared, back_off, topic_name};
use crate::history::{Published, Try};
use crate::plan::{Draw, Publisher};

/// How long a client goes on trying: well within the dedup window.
const RETRY_MS_MAX: u64 = 30_000;

/// Publishes until the chaos is over.
pub(crate) async fn publish(shared: Shared, number: usize, plan: Publisher, mut dice: Draw) {
    let mut http = Http::default();
    for message in 0u64.. {
        let pause = dice.range(1, 2 * plan.pause_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if shared.phase() != Phase::Chaos {
            return;
        }
        let id = format!("p{number}-{message}");
        let body = draft(&shared, &plan, &id, &mut dice);
        let twice = dice.percent(plan.twice_percent);
        if twice {
            let (shared, plan, id, body) = (shared.clone(), plan.clone(), id.clone(), body.clone());
            let after = Duration::from_micros(dice.log_range(1, 50_000));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                attempt(&shared, &mut Http::default(), &id, &body, plan.patience_ms).await;
            });
        }
        persist(&shared, &mut http, &id, &body, plan.patience_ms).await;
    }
}

/// Makes a message, and enters it into the history before anybody sends it.
fn draft(shared: &Shared, plan: &Publisher, id: &str, dice: &mut Draw) -> Value {
    let len = dice.log_range(16, plan.payload_bytes_max as u64) as usize;
    let mut payload: String =
        dice.bytes(len).iter().map(|byte| char::from(b' ' + byte % 94)).collect();
    if shared.trace.take_tamper() {
        let first = payload.remove(0);
        payload.insert(0, if first == 'x' { 'y' } else { 'x' });
    }
    let message = Published {
        topic: plan.topic,
        payload: payload.clone().into_bytes(),
        sent_ms: shared.now_ms(),
        tries: Vec::new(),
        open: 0,
    };
    shared.history().published.insert(id.to_owned(), message);
    let mut body = json!({ "topic": topic_name(plan.topic), "id": id, "payload": payload });
    if dice.percent(plan.keyed_percent) {
        body["key"] = json!(format!("k{}", dice.range(0, 9)));
    }
    body
}

/// Tries until the message is stored or the time for it is over.
async fn persist(shared: &Shared, http: &mut Http, id: &str, body: &Value, patience_ms: u64) {
    let began = shared.now_ms();
    for n in 0.. {
        let stored = attempt(shared, http, id, body, patience_ms).await;
        if stored || shared.now_ms() > began + RETRY_MS_MAX {
            return;
        }
        tokio::time::sleep(back_off(n)).await;
    }
}

/// Tries once; says whether the message is stored.
async fn attempt(
    shared: &Shared,
    http: &mut Http,
    id: &str,
    body: &Value,
    patience_ms: u64,
) -> bool {
    let note = |f: &dyn Fn(&mut Published)| {
        shared.history().published.get_mut(id).map(f).expect("it was entered before");
    };
    note(&|message| message.open += 1);
    let answer = http.post("/publish", body, Duration::from_millis(patience_ms)).await;
    let outcome = outcome(&answer);
    shared.trace.client(&(id, &outcome));
    note(&|message| {
        message.open -= 1;
        message.tries.push(outcome.clone());
    });
    matches!(outcome, Try::Acknowledged { .. })
}

/// What an answer says; anything unclear is unknown.
fn outcome(answer: &Answer) -> Try {
    let Answer::Came(status, body) = answer else {
        return Try::Unknown;
    };
    let number = |field: &str| body.get(field).and_then(Value::as_u64);
    match (status, body.get("stored").and_then(Value::as_str)) {
        (200, _) => match (number("partition"), number("offset")) {
            (Some(partition), Some(offset)) => Try::Acknowledged {
                partition: partition as u32,
                offset: Offset(offset),
                duplicate: body.get("duplicate").and_then(Value::as_bool).unwrap_or(false),
            },
            _ => Try::Unknown,
        },
        (400.., Some("no")) => Try::Refused,
        _ => Try::Unknown,
    }
}
