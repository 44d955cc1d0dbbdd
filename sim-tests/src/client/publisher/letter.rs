//! A message on its way: as JSON, and as a body with headers.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::{Shared, topic_name};
use crate::history::{Number, Published, Terms};
use crate::plan::{Draw, Publisher};

/// A message to publish.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) json: Value,
    /// How it is sent alone, where not as JSON.
    pub(super) raw: Option<Raw>,
    /// How many ids it has had before.
    renamed: u64,
}

/// A request whose body is the payload.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Letter {
    /// Makes a message, and enters it into the history before anybody sends it.
    pub(super) fn draft(
        shared: &Shared,
        plan: &Publisher,
        (id, number): (String, Option<Number>),
        dice: &mut Draw,
    ) -> Self {
        let payload = payload(shared, plan, dice);
        let terms = Terms { number, ..terms(shared, plan, dice) };
        let raw = dice.share(plan.mix.raw).then(|| raw(plan.topic, &id, &terms, &payload));
        let json = json(plan.topic, &id, &terms, &payload);
        let (topic, sent_ms) = (plan.topic, shared.now_ms());
        let payload = payload.into_bytes();
        let message = Published { topic, payload, terms, sent_ms, ..Published::default() };
        shared.history().published.insert(id.clone(), message);
        Self { id, json, raw, renamed: 0 }
    }

    /// Gives the same message another id. It is as old as it was: it may stand under the first.
    pub(super) fn rename(&mut self, shared: &Shared) {
        self.renamed += 1;
        let id = format!("{}-again-{}", self.id, self.renamed);
        let mut history = shared.history();
        let before = history.published.get(&self.id).expect("it was entered before");
        let Published { topic, payload, terms, sent_ms, .. } = before.clone();
        let message = Published { topic, payload, terms, sent_ms, ..Published::default() };
        history.published.insert(id.clone(), message);
        drop(history);
        self.json["id"] = json!(id);
        if let Some(raw) = &mut self.raw {
            let header = raw.headers.iter_mut().find(|(name, _)| name == "sprawl-id");
            header.expect("each has its id").1.clone_from(&id);
        }
        self.id = id;
    }
}

fn payload(shared: &Shared, plan: &Publisher, dice: &mut Draw) -> String {
    let least = plan.payload_bytes_min as u64;
    let len = dice.log_range(least, plan.payload_bytes_max as u64) as usize;
    // A long payload repeats its beginning: random bytes cost time.
    let start = dice.bytes(len.min(4_096));
    let start: String = start.iter().map(|byte| char::from(b' ' + byte % 94)).collect();
    let mut payload = start.repeat(len / start.len());
    if shared.trace.take_tamper() {
        let first = payload.remove(0);
        payload.insert(0, if first == 'x' { 'y' } else { 'x' });
    }
    payload
}

fn terms(shared: &Shared, plan: &Publisher, dice: &mut Draw) -> Terms {
    let mix = &plan.mix;
    let keyed = dice.share(plan.keyed_percent);
    let delay_ms = if dice.share(mix.delay) { dice.log_range(10, 15_000) } else { 0 };
    let expected = dice.share(mix.expected).then(|| expected(shared, plan.topic));
    Terms {
        key: keyed.then(|| format!("k{}", dice.range(0, 9))),
        kind: dice.share(mix.kind).then(|| dice.pick(&["a", "b", "c"]).to_owned()),
        // What would expire before it is due is refused.
        ttl_ms: dice.share(mix.ttl).then(|| delay_ms + dice.log_range(100, 60_000)),
        delay_ms,
        priority: dice.share(mix.priority).then(|| dice.range(0, 9)),
        poison: dice.share(mix.poison),
        expected: expected.flatten(),
        number: None,
    }
}

/// Where the next message of a topic should stand, as far as its clients know.
fn expected(shared: &Shared, topic: u32) -> Option<u64> {
    let history = shared.history();
    history.ends.get(&topic).map(|last| last.next().0)
}

fn json(topic: u32, id: &str, terms: &Terms, payload: &str) -> Value {
    let mut json = json!({ "topic": topic_name(topic), "id": id, "payload": payload });
    let Terms { key, ttl_ms, delay_ms, priority, expected, number, .. } = terms;
    let fields = [
        ("producer", number.as_ref().map(|own| json!(own.producer))),
        ("sequence", number.as_ref().map(|own| json!(own.number))),
        ("key", key.as_ref().map(|key| json!(key))),
        ("ttl", ttl_ms.map(|ttl| json!(format!("{ttl}ms")))),
        ("delay", (*delay_ms > 0).then(|| json!(format!("{delay_ms}ms")))),
        ("priority", priority.map(|priority| json!(priority))),
        ("expected_offset", expected.map(|expected| json!(expected))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            json[name] = value;
        }
    }
    for (name, value) in own_headers(terms) {
        json["headers"][name] = json!(value);
    }
    json
}

/// The headers that travel with a message.
fn own_headers(terms: &Terms) -> Vec<(&'static str, String)> {
    let kind = terms.kind.clone().map(|kind| ("kind", kind));
    let poison = terms.poison.then(|| ("poison", "yes".to_owned()));
    kind.into_iter().chain(poison).collect()
}

fn raw(topic: u32, id: &str, terms: &Terms, payload: &str) -> Raw {
    let Terms { key, ttl_ms, delay_ms, priority, expected, number, .. } = terms;
    let fields = [
        ("sprawl-id", Some(id.to_owned())),
        ("sprawl-producer", number.as_ref().map(|own| own.producer.clone())),
        ("sprawl-sequence", number.as_ref().map(|own| own.number.to_string())),
        ("sprawl-key", key.clone()),
        ("sprawl-ttl", ttl_ms.map(|ttl| format!("{ttl}ms"))),
        ("sprawl-delay", (*delay_ms > 0).then(|| format!("{delay_ms}ms"))),
        ("sprawl-priority", priority.map(|priority| priority.to_string())),
        ("sprawl-expected-offset", expected.map(|expected| expected.to_string())),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let own = own_headers(terms).into_iter();
    let own = own.map(|(name, value)| (format!("sprawl-header-{name}"), value));
    Raw {
        path: format!("/topics/{}/messages", topic_name(topic)),
        headers: fields.chain(own).collect(),
        body: payload.to_owned().into(),
    }
}
