//! A client that subscribes, pulls, works, and acknowledges, or forgets to.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Http, Phase, Shared, back_off, topic_name};
use crate::history::Subscribed;
use crate::plan::{Draw, Subscriber};

/// How long a pull waits for a message.
const WAIT: Duration = Duration::from_secs(2);

/// How many messages a client takes at once when it catches up.
const CATCH_UP: u64 = 1_000;

/// Receives until the run is over.
pub(crate) async fn subscribe(shared: Shared, number: usize, plan: Subscriber, mut dice: Draw) {
    tokio::time::sleep(Duration::from_millis(plan.at_ms)).await;
    let name = format!("s{number}");
    let subscribed =
        Subscribed { topics: plan.topics.clone(), latest: plan.latest, ..Subscribed::default() };
    shared.history().subscribed.insert(name.clone(), subscribed);
    let mut http = Http::default();
    begin(&shared, &mut http, &name, &plan).await;
    while shared.phase() != Phase::Over {
        let tokens = pull(&shared, &mut http, &name, &plan).await;
        if tokens.is_empty() {
            continue;
        }
        let work = dice.range(0, plan.work_ms);
        let forgets = dice.percent(plan.forgets_percent);
        if shared.phase() == Phase::Chaos {
            tokio::time::sleep(Duration::from_millis(work)).await;
            if forgets {
                continue;
            }
        }
        let body = json!({ "tokens": tokens });
        let path = format!("/subscriptions/{name}/ack");
        let answer = http.post(&path, &body, Duration::from_secs(5)).await;
        let acked = answer.ok().and_then(|body| body["acked"].as_u64()).unwrap_or(0);
        shared.history().acknowledged += acked;
    }
}

/// Subscribes, as often as it takes.
async fn begin(shared: &Shared, http: &mut Http, name: &str, plan: &Subscriber) {
    let topics: Vec<String> = plan.topics.iter().map(|&topic| topic_name(topic)).collect();
    let body = json!({
        "id": name,
        "topics": topics,
        "from": if plan.latest { "latest" } else { "earliest" },
        "ack_wait": format!("{}ms", plan.ack_wait_ms),
    });
    for n in 0.. {
        let answer = http.post("/subscribe", &body, Duration::from_secs(12)).await;
        if answer.ok().is_some() {
            let now_ms = shared.now_ms();
            if let Some(subscribed) = shared.history().subscribed.get_mut(name) {
                subscribed.answered_ms = Some(now_ms);
            }
            shared.trace.client(&(name, "subscribed"));
            return;
        }
        if shared.phase() == Phase::Over {
            return;
        }
        tokio::time::sleep(back_off(n)).await;
    }
}

/// Takes what there is; gives the tokens.
async fn pull(shared: &Shared, http: &mut Http, name: &str, plan: &Subscriber) -> Vec<Value> {
    let wait = WAIT.as_millis();
    // A client that was slow on purpose catches up when all is healed, as fast as it may.
    let max = if shared.phase() == Phase::Chaos { plan.max } else { CATCH_UP };
    let path = format!("/subscriptions/{name}/messages?max={max}&wait={wait}ms");
    let answer = http.get(&path, WAIT + Duration::from_secs(3)).await;
    let Some(messages) = answer.ok().and_then(|body| body["messages"].as_array()) else {
        tokio::time::sleep(Duration::from_millis(300)).await;
        return Vec::new();
    };
    let mut tokens = Vec::new();
    for message in messages {
        if let Some(seen) = shared.saw(message) {
            let mut history = shared.history();
            if let Some(subscribed) = history.subscribed.get_mut(name) {
                *subscribed.received.entry((seen.topic, seen.id)).or_insert(0) += 1;
            }
        }
        tokens.push(message["ack_token"].clone());
    }
    tokens
}
