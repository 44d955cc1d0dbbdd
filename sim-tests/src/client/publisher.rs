//! A client that publishes, and tries again under the same ids until it knows.

mod letter;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sprawl_core::ids::Offset;

use super::{Answer, Http, Phase, Shared, back_off};
use crate::history::{CONFLICTS, Number, Published, REPEATED, SHED, Try};
use crate::invariants::{Tried, check_served};
use crate::plan::{Draw, Greedy, Publisher};
use letter::Letter;

/// How long a client goes on trying: well within the dedup window.
const RETRY_MS_MAX: u64 = 30_000;

/// The problems of a node that is asked for too much.
const SHEDDING: [&str; 2] = ["urn:sprawl:problem:over-share", "urn:sprawl:problem:overloaded"];

/// How several messages are sent at once.
#[derive(Clone, Copy, Debug)]
enum Form {
    Array,
    Lines,
}

/// A connection at work.
struct Working {
    shared: Shared,
    plan: Publisher,
    http: Http,
    /// When a request of this client was last left without an answer: it may wait there still.
    unanswered_ms: Option<u64>,
}

/// What an answer says of one message.
struct Told {
    outcome: Try,
    /// Whether there is no more to try.
    end: bool,
    /// Whether it was refused for load.
    shed: bool,
    /// When to try again at the earliest.
    after: Duration,
}

/// Publishes until the chaos is over.
pub(crate) async fn publish(shared: Shared, number: usize, plan: Publisher, mut dice: Draw) {
    tokio::time::sleep(Duration::from_millis(plan.at_ms)).await;
    let mut client = Working::new(shared.clone(), plan.clone());
    let mut next = 0u64;
    loop {
        let count = if plan.batch_max > 1 { dice.range(1, plan.batch_max) } else { 1 };
        let pause = dice.range(1, 2 * plan.pause_ms) * count;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if shared.phase() != Phase::Chaos {
            return;
        }
        let name = |message| {
            let producer = format!("producer-{number}");
            let own = plan.numbered.then_some(Number { producer, number: message });
            (format!("p{number}-{message}"), own)
        };
        let names = (next..next + count).map(name);
        let letters: Vec<Letter> =
            names.map(|name| Letter::draft(&shared, &plan, name, &mut dice)).collect();
        next += count;
        let form = if dice.share(plan.lines_percent) { Form::Lines } else { Form::Array };
        if dice.share(plan.twice_percent) {
            let mut other = Working::new(shared.clone(), plan.clone());
            let letters = letters.clone();
            let after = Duration::from_micros(dice.log_range(1, 50_000));
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                other.attempt(&letters, form, Duration::from_millis(other.plan.patience_ms)).await;
            });
        }
        let last = letters.last().cloned();
        client.persist(letters, form, &mut dice).await;
        if let Some(last) = last.filter(|_| dice.share(plan.again_percent)) {
            client.again(last, form, &mut dice).await;
        }
    }
}

/// Sends much at once, on many connections, now and then until the chaos is over.
pub(crate) async fn rush(shared: Shared, plan: Greedy, dice: impl Fn(u64) -> Draw) {
    let connection = |at| {
        let client = Working::new(shared.clone(), plan.publisher.clone());
        tokio::spawn(client.rush(at, plan.clone(), dice(at)))
    };
    let connections: Vec<_> = (0..plan.connections).map(connection).collect();
    for connection in connections {
        connection.await.expect("nobody kills a connection");
    }
}

impl Working {
    fn new(shared: Shared, plan: Publisher) -> Self {
        Self { shared, plan, http: Http::default(), unanswered_ms: None }
    }

    async fn rush(mut self, number: u64, plan: Greedy, mut dice: Draw) {
        for time in 1.. {
            let pause = (time * plan.every_ms).saturating_sub(self.shared.now_ms());
            tokio::time::sleep(Duration::from_millis(pause)).await;
            for message in 0..plan.messages {
                if self.shared.phase() != Phase::Chaos {
                    return;
                }
                let id = format!("g{number}-{time}-{message}");
                let letter = Letter::draft(&self.shared, &self.plan, (id, None), &mut dice);
                self.persist(vec![letter], Form::Array, &mut dice).await;
            }
        }
    }

    /// Sends a numbered message once more, some time after, under an id that nobody remembers.
    async fn again(&mut self, mut letter: Letter, form: Form, dice: &mut Draw) {
        tokio::time::sleep(Duration::from_millis(dice.log_range(1, 5_000))).await;
        letter.rename(&self.shared);
        self.attempt(&[letter], form, Duration::from_millis(self.plan.patience_ms)).await;
    }

    /// Tries until all is stored, or refused for good, or the time for it is over.
    async fn persist(&mut self, mut letters: Vec<Letter>, form: Form, dice: &mut Draw) {
        let began = self.shared.now_ms();
        for n in 0.. {
            // Now and then the client goes away in the middle, and comes back.
            let breaks = dice.share(self.plan.breaks_percent);
            let patience = if breaks { dice.log_range(1, 50) } else { self.plan.patience_ms };
            let told = self.attempt(&letters, form, Duration::from_millis(patience)).await;
            let mut ended = told.iter().map(|told| told.end);
            letters.retain(|_| ended.next() == Some(false));
            if letters.is_empty() || self.shared.now_ms() > began + RETRY_MS_MAX {
                return;
            }
            let after = told.iter().map(|told| told.after).max().unwrap_or_default();
            tokio::time::sleep(back_off(n).max(after)).await;
            if dice.share(self.plan.renames_percent) {
                letters.iter_mut().for_each(|letter| letter.rename(&self.shared));
            }
        }
    }

    /// Tries once; says of each message what it was told.
    async fn attempt(&mut self, letters: &[Letter], form: Form, patience: Duration) -> Vec<Told> {
        let shared = self.shared.clone();
        let note = |letter: &Letter, f: &dyn Fn(&mut Published)| {
            shared.history().published.get_mut(&letter.id).map(f).expect("it was entered before");
        };
        letters.iter().for_each(|letter| note(letter, &|message| message.open += 1));
        let (path, headers, body) = request(letters, form);
        let from_ms = shared.now_ms();
        let answer = self.http.ask("POST", &path, headers, body, patience).await;
        let to_ms = shared.now_ms();
        let numbered = self.plan.numbered;
        let told: Vec<Told> = (0..letters.len()).map(|at| told(&answer, at, numbered)).collect();
        for (letter, Told { outcome, .. }) in letters.iter().zip(&told) {
            shared.trace.client(&(&letter.id, outcome));
            note(letter, &|message| {
                message.open -= 1;
                message.tries.push(outcome.clone());
                if matches!(outcome, Try::Acknowledged { .. }) {
                    message.known(to_ms);
                }
            });
        }
        let shed = told.iter().any(|told| told.shed);
        let tried = Tried { from_ms, to_ms, unanswered_ms: self.unanswered_ms, shed };
        if self.plan.light {
            check_served(&letters[0].id, tried, &shared.findings);
        }
        if matches!(answer, Answer::None) {
            self.unanswered_ms = Some(to_ms);
        }
        letters.iter().zip(&told).for_each(|(letter, told)| told.note(&shared, letter));
        told
    }
}

impl Told {
    /// Whether it says that the message had been stored before.
    fn is_repeat(&self) -> bool {
        match self.outcome {
            Try::Acknowledged { duplicate, .. } => duplicate,
            Try::Repeats { .. } => true,
            Try::Refused | Try::Unknown => false,
        }
    }

    /// Notes what else was told.
    fn note(&self, shared: &Shared, letter: &Letter) {
        let mut history = shared.history();
        history.count(SHED, u64::from(self.shed));
        match &self.outcome {
            Try::Acknowledged { offset, .. } | Try::Repeats { offset, .. } => {
                shared.acknowledge(self.is_repeat());
                history.count(REPEATED, u64::from(matches!(self.outcome, Try::Repeats { .. })));
                let topic = history.published.get(&letter.id).map_or(0, |message| message.topic);
                let last = history.ends.entry(topic).or_default();
                *last = (*last).max(*offset);
            }
            Try::Refused if self.end => history.count(CONFLICTS, 1),
            Try::Refused | Try::Unknown => {}
        }
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

/// What an answer says of the message at a place of the request; anything unclear is unknown. A
/// repeat of a number may stand under another id.
fn told(answer: &Answer, at: usize, numbered: bool) -> Told {
    let unknown = Told { outcome: Try::Unknown, end: false, shed: false, after: Duration::ZERO };
    let Answer::Came(_, whole) = answer else {
        return unknown;
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
                let outcome = match duplicate && numbered {
                    true => Try::Repeats { partition, offset },
                    false => Try::Acknowledged { partition, offset, duplicate },
                };
                Told { outcome, end: true, ..unknown }
            }
            _ => unknown,
        },
        Some("no") => {
            let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
            let shed = SHEDDING.contains(&kind);
            let after = number("retry_after").filter(|_| shed).unwrap_or(0);
            // The next offset is not what the message expects, and will not be again.
            let end = number("status") == Some(409);
            Told { outcome: Try::Refused, end, shed, after: Duration::from_secs(after) }
        }
        // The producer has gone on: nobody will know.
        _ => Told { end: number("status") == Some(409), ..unknown },
    }
}
