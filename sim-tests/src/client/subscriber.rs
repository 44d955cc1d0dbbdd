//! A client that subscribes, pulls, works, and acknowledges, gives back, asks for more time, or
//! forgets to.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Http, Phase, Shared, back_off, topic_name};
use crate::history::{self, Seen, Subscribed};
use crate::invariants::{check_count, check_due, check_order, check_wanted};
use crate::plan::{Draw, Filter, Subscriber};

/// How long a pull waits for a message.
const WAIT: Duration = Duration::from_secs(2);

/// How long a verdict may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many messages a client takes at once when it catches up.
const CATCH_UP: u64 = 1_000;

/// A message in the client's hands.
struct Held {
    seen: Seen,
    token: Value,
    /// Whether the client cannot take it.
    poison: bool,
}

/// A subscriber at work.
struct Working {
    shared: Shared,
    name: String,
    plan: Subscriber,
    http: Http,
    dice: Draw,
}

/// Receives until the run is over.
pub(crate) async fn subscribe(shared: Shared, number: usize, plan: Subscriber, dice: Draw) {
    tokio::time::sleep(Duration::from_millis(plan.at_ms)).await;
    let (name, idle) = (format!("s{number}"), Duration::from_millis(plan.idle_ms));
    let subscribed = Subscribed {
        topics: plan.topics.clone(),
        latest: plan.latest,
        filter: plan.filter.clone(),
        max_deliver: plan.max_deliver(),
        ..Subscribed::default()
    };
    shared.history().subscribed.insert(name.clone(), subscribed);
    let mut client = Working { shared, name, plan, http: Http::default(), dice };
    client.begin().await;
    tokio::time::sleep(idle).await;
    while client.shared.phase() != Phase::Over {
        let held = client.pull().await;
        if !held.is_empty() {
            client.work(held).await;
        }
    }
}

impl Working {
    /// Subscribes, as often as it takes.
    async fn begin(&mut self) {
        let body = description(&self.name, &self.plan);
        for n in 0.. {
            let answer = self.http.post("/subscribe", &body, Duration::from_secs(12)).await;
            if answer.ok().is_some() {
                let now_ms = self.shared.now_ms();
                if let Some(own) = self.shared.history().subscribed.get_mut(&self.name) {
                    own.answered_ms = Some(now_ms);
                }
                self.shared.trace.client(&(&self.name, "subscribed"));
                return;
            }
            if self.shared.phase() == Phase::Over {
                return;
            }
            tokio::time::sleep(back_off(n)).await;
        }
    }

    /// Takes what there is.
    async fn pull(&mut self) -> Vec<Held> {
        let chaos = self.shared.phase() == Phase::Chaos;
        // A client that was slow on purpose catches up when all is healed, as fast as it may.
        let max = if chaos { self.plan.max } else { CATCH_UP };
        let path =
            format!("/subscriptions/{}/messages?max={max}&wait={}ms", self.name, WAIT.as_millis());
        let breaks = chaos && self.dice.share(self.plan.breaks_percent);
        let patience = match breaks {
            true => Duration::from_millis(self.dice.log_range(1, 200)),
            false => WAIT + Duration::from_secs(3),
        };
        let asked = self.shared.ask();
        let overlaps = self.shared.trace.overlaps(&self.name);
        let answer = self.http.get(&path, patience).await;
        let overlapped = self.shared.trace.overlaps(&self.name) != overlaps;
        let asked = history::Asked { overlapped, ..self.shared.answered(asked) };
        let Some(messages) = answer.ok().and_then(|body| body["messages"].as_array()) else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            return Vec::new();
        };
        let mut held = Vec::new();
        for message in messages {
            let Some(seen) = self.shared.saw(message, asked) else { continue };
            self.received(&seen, asked);
            let poison = message["headers"]["poison"] == "yes";
            held.push(Held { seen, token: message["ack_token"].clone(), poison });
        }
        held
    }

    /// Takes a message past the checkers of subscriptions.
    fn received(&self, seen: &Seen, asked: history::Asked) {
        let findings = &self.shared.findings;
        let mut history = self.shared.history();
        check_due(&history, seen, asked, findings);
        check_wanted(&history, &self.name, seen, findings);
        check_order(&mut history, &self.name, seen, asked, findings);
        if let Some(own) = history.subscribed.get_mut(&self.name) {
            check_count(own, seen, asked, findings);
        }
        let message = history.published.get(&seen.id);
        let delayed = message.is_some_and(|message| message.terms.delay_ms > 0);
        history.count(history::DELAYED, u64::from(delayed));
        history.count(history::REDELIVERED, u64::from(seen.attempt > 1));
    }

    /// Does what it does with messages.
    async fn work(&mut self, held: Vec<Held>) {
        let chaos = self.shared.phase() == Phase::Chaos;
        let work = Duration::from_millis(self.dice.range(0, self.plan.work_ms));
        let forgets = self.dice.share(self.plan.forgets_percent);
        if chaos {
            if self.dice.share(self.plan.extends_percent) {
                self.extend(&held).await;
            }
            tokio::time::sleep(work).await;
            if forgets {
                return;
            }
        }
        let (mut good, mut back, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for one in held {
            let (nacks, rejects) = (self.plan.nacks_percent, self.plan.rejects_percent);
            if one.poison {
                // It is given back, or left until its deadline.
                if !chaos || self.dice.percent(50) {
                    back.push(one);
                }
            } else if chaos && self.dice.share(nacks) {
                back.push(one);
            } else if chaos && self.dice.share(rejects) {
                rejected.push(one);
            } else {
                good.push(one);
            }
        }
        self.acknowledge(good).await;
        let pause = self.plan.nack_delay_ms;
        let pause = if chaos && pause > 0 { Some(self.dice.range(1, pause)) } else { None };
        let mut body = json!({});
        if let Some(pause) = pause {
            body["delay"] = json!(format!("{pause}ms"));
        }
        self.give_back(&back, body, history::GIVEN_BACK).await;
        self.give_back(&rejected, json!({ "dead_letter": true }), history::REJECTED).await;
    }

    async fn acknowledge(&mut self, held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let answer = self.judge("ack", &held, json!({})).await;
        let mut history = self.shared.history();
        history.acknowledged += answer.ok().and_then(|body| body["acked"].as_u64()).unwrap_or(0);
        let refused = match answer.ok() {
            Some(body) => body["expired"].as_array().cloned().unwrap_or_default(),
            None if answer.is_unclear() => Vec::new(),
            None => return,
        };
        let Some(own) = history.subscribed.get_mut(&self.name) else { return };
        for Held { seen, token, .. } in held {
            if !refused.contains(&token)
                && let Some(received) = own.received.get_mut(&(seen.topic, seen.id))
            {
                received.acknowledged = true;
            }
        }
    }

    async fn give_back(&mut self, held: &[Held], body: Value, what: &'static str) {
        if !held.is_empty() {
            let answer = self.judge("nack", held, body).await;
            let taken = answer.ok().and_then(|body| body["acked"].as_u64()).unwrap_or(0);
            self.shared.history().count(what, taken);
        }
    }

    async fn extend(&mut self, held: &[Held]) {
        let by = self.dice.log_range(100, 10_000);
        let answer = self.judge("extend", held, json!({ "by": format!("{by}ms") })).await;
        let taken = answer.ok().and_then(|body| body["acked"].as_u64()).unwrap_or(0);
        self.shared.history().count(history::EXTENDED, taken);
    }

    /// Says what is to become of messages.
    async fn judge(&mut self, verdict: &str, held: &[Held], mut body: Value) -> Answer {
        body["tokens"] = held.iter().map(|one| one.token.clone()).collect();
        let path = format!("/subscriptions/{}/{verdict}", self.name);
        let answer = self.http.post(&path, &body, PATIENCE).await;
        let status = match &answer {
            Answer::Came(status, _) => *status,
            Answer::None => 0,
        };
        self.shared.trace.client(&(&self.name, verdict, held.len(), status));
        answer
    }
}

/// The subscription as the API takes it.
fn description(name: &str, plan: &Subscriber) -> Value {
    let topics: Vec<String> = match &plan.pattern {
        Some(pattern) => vec![pattern.clone()],
        None => plan.topics.iter().map(|&topic| topic_name(topic)).collect(),
    };
    let mut body = json!({
        "id": name,
        "topics": topics,
        "from": if plan.latest { "latest" } else { "earliest" },
        "ack_wait": format!("{}ms", plan.ack_wait_ms),
    });
    if let Some(max_deliver) = plan.max_deliver {
        body["max_deliver"] = json!(max_deliver);
    }
    if !plan.backoff_ms.is_empty() {
        body["backoff"] = plan.backoff_ms.iter().map(|pause| format!("{pause}ms")).collect();
    }
    if let Some(filter) = &plan.filter {
        body["filter"] = match filter {
            Filter::Kinds(kinds) => json!({ "headers": { "kind": kinds } }),
            Filter::NoKind => json!({ "headers": { "kind": { "exists": false } } }),
            Filter::KeyPrefix(prefix) => json!({ "key": { "prefix": prefix } }),
            Filter::Keys(keys) => json!({ "key": keys }),
        };
    }
    body
}
