//! A shard that is asked for ten times what its disk takes, by clients who are not alike.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::ShardOptions;
use sprawl_core::broker::replica::{Submission, Terms};
use sprawl_core::ids::*;
use sprawl_core::machine::*;

use crate::world::{Disk, Node, Unsynced, draft, topic};

const PAYLOAD_BYTES: usize = 1_024;
/// What the disk takes, in messages a second, and what a sync of it costs beside.
const CAPACITY: u64 = 4_000;
const SYNC: Duration = Duration::from_millis(2);
const WAITING_BYTES: usize = 8 << 20;
const TICK: Duration = Duration::from_millis(1);

/// A disk with a speed.
struct SlowDisk {
    /// When what it writes is durable, and how many hand-ins that is.
    busy: Option<(Time, usize)>,
}

impl SlowDisk {
    fn work(&mut self, node: &mut Node) {
        if let Some((until, count)) = self.busy
            && until <= node.now.since_start
        {
            (0..count).for_each(|_| node.sync_one());
            self.busy = None;
        }
        if self.busy.is_none() && !node.unsynced.is_empty() {
            let (mut count, mut messages) = (0, 0);
            for one in &node.unsynced {
                if let Unsynced::Store(_, store) = one {
                    messages += store.records.len() as u64;
                }
                count += 1;
                if messages >= 2_000 {
                    break;
                }
            }
            let until = node.now.since_start + SYNC + per_second(messages);
            self.busy = Some((until, count));
        }
    }
}

fn per_second(messages: u64) -> Duration {
    Duration::from_micros(messages * 1_000_000 / CAPACITY)
}

/// A client that publishes at a rate whatever becomes of it.
#[derive(Default)]
struct Client {
    /// Messages a second.
    rate: u64,
    sent: u64,
    stored: u64,
    refused: u64,
    waits: Vec<Duration>,
    pauses: Vec<Duration>,
}

impl Client {
    fn at(rate: u64) -> Self {
        Self { rate, ..Self::default() }
    }
}

/// Lets clients publish for a while; each goes on under its own source.
struct Crowd {
    node: Node,
    disk: SlowDisk,
    clients: Vec<Client>,
    open: BTreeMap<RequestId, (usize, Time)>,
    most: u64,
    topics: fn(usize) -> TopicName,
}

impl Crowd {
    fn new(clients: Vec<Client>, topics: fn(usize) -> TopicName) -> Self {
        let options = ShardOptions { waiting_bytes: WAITING_BYTES, ..ShardOptions::default() };
        let mut node = Node::start_with(Disk::default(), options);
        node.publish("first");
        node.sync();
        let (disk, open) = (SlowDisk { busy: None }, BTreeMap::new());
        Self { node, disk, clients, open, most: 0, topics }
    }

    fn run(&mut self, span: Duration) {
        let end = self.node.now.since_start + span;
        let began = self.node.now.since_start;
        let before: Vec<u64> = self.clients.iter().map(|client| client.sent).collect();
        while self.node.now.since_start < end {
            self.node.pass(TICK);
            let passed = self.node.now.since_start.since(began).as_micros() as u64;
            for (at, before) in before.iter().enumerate() {
                let due = before + self.clients[at].rate * passed / 1_000_000;
                while self.clients[at].sent < due {
                    self.send(at);
                }
            }
            self.disk.work(&mut self.node);
            self.collect();
            let held = self.node.shards.iter().map(|shard| {
                let status = shard.status();
                status.in_flight_bytes + status.admission.waiting_bytes
            });
            self.most = self.most.max(held.max().unwrap_or_default());
        }
    }

    fn send(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.sent += 1;
        let mut draft = draft(&format!("{at}-{}", client.sent));
        draft.payload = Bytes::from(vec![0; PAYLOAD_BYTES]);
        let (source, terms) = (Source(at as u64 + 1), Terms::default());
        let submission = Submission { source, topic: (self.topics)(at), draft, terms };
        let id = self.node.request(Request::Publish(submission));
        self.open.insert(id, (at, self.node.now.since_start));
    }

    fn collect(&mut self) {
        let answers = std::mem::take(&mut self.node.answers);
        for (id, response) in answers {
            let Some((at, sent)) = self.open.remove(&id) else { continue };
            let client = &mut self.clients[at];
            match response {
                Response::Published { .. } => {
                    client.stored += 1;
                    client.waits.push(self.node.now.since_start.since(sent));
                }
                Response::Refused(
                    Refused::OverShare { retry_after } | Refused::Busy { retry_after },
                ) => {
                    client.refused += 1;
                    client.pauses.push(retry_after);
                }
                other => panic!("a publish ended with {other:?}"),
            }
        }
    }

    /// Until everybody has an answer.
    fn settle(&mut self) {
        self.clients.iter_mut().for_each(|client| client.rate = 0);
        self.run(Duration::from_secs(12));
        assert_eq!(self.open.len(), 0, "every publish has an answer");
    }
}

fn percentile(waits: &mut [Duration], percent: usize) -> Duration {
    waits.sort_unstable();
    waits[(waits.len() - 1) * percent / 100]
}

#[test]
fn a_greedy_client_takes_nothing_from_polite_ones() {
    let span = Duration::from_secs(20);
    let share = CAPACITY / 5;
    let mut clients = vec![Client::at(10 * CAPACITY)];
    clients.extend((0..4).map(|_| Client::at(share)));
    let mut crowd = Crowd::new(clients, |_| topic());
    crowd.run(span);
    crowd.settle();
    let stored: u64 = crowd.clients.iter().map(|client| client.stored).sum();
    let goodput = stored * 100 / (CAPACITY * span.as_secs());
    println!("goodput {goodput} % of the disk's speed, {} bytes held at most", crowd.most);
    assert!(goodput >= 90, "{goodput} %");
    for client in &mut crowd.clients[1..] {
        let served = client.stored * 100 / client.sent;
        let p99 = percentile(&mut client.waits, 99);
        println!("a polite client: {served} % stored, p99 {} ms", p99.as_millis());
        assert!(served >= 90, "{served} %");
        assert!(p99 < Duration::from_secs(1), "{p99:?}");
    }
    let greedy = &mut crowd.clients[0];
    assert!(greedy.refused > greedy.stored, "{} {}", greedy.refused, greedy.stored);
    assert!(greedy.stored >= share * span.as_secs() * 9 / 10, "{}", greedy.stored);
    let bound = (WAITING_BYTES + (4 << 20)) as u64;
    assert!(crowd.most <= bound, "{} bytes, the bound is {bound}", crowd.most);
}

#[test]
fn a_refused_client_is_told_when_there_is_room() {
    let mut crowd = Crowd::new(vec![Client::at(10 * CAPACITY)], |_| topic());
    crowd.run(Duration::from_secs(10));
    let backlog = crowd.node.shards.iter().map(|shard| shard.status().admission.waiting_bytes);
    let drains = per_second(backlog.max().expect("a shard") / PAYLOAD_BYTES as u64);
    let told = *crowd.clients[0].pauses.last().expect("it was refused");
    println!("told to come back after {told:?}; what waits is stored in {drains:?}");
    assert!(told > drains / 2 && told < drains * 2, "{told:?} for {drains:?}");
    crowd.settle();
}

#[test]
fn a_light_load_is_never_refused_however_slow_the_disk() {
    let light = (0..20).map(|_| Client::at(CAPACITY / 50)).collect();
    let mut crowd = Crowd::new(light, |at| format!("light.{at}").parse().expect("a name"));
    crowd.run(Duration::from_secs(20));
    crowd.settle();
    let refused: u64 = crowd.clients.iter().map(|client| client.refused).sum();
    assert_eq!(refused, 0);
}

#[test]
fn a_light_client_is_not_refused_beside_greedy_ones() {
    let mut clients: Vec<Client> = (0..5).map(|_| Client::at(2 * CAPACITY)).collect();
    clients.push(Client::at(20));
    let mut crowd = Crowd::new(clients, |at| format!("topic.{at}").parse().expect("a name"));
    crowd.run(Duration::from_secs(10));
    crowd.settle();
    let light = crowd.clients.last_mut().expect("it is there");
    assert_eq!(light.refused, 0);
    let p99 = percentile(&mut light.waits, 99);
    println!("a light client among five greedy ones: p99 {} ms", p99.as_millis());
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
}

#[test]
fn a_burst_that_fits_is_not_refused_on_a_guess() {
    let mut node = Node::start_with(Disk::default(), ShardOptions::default());
    node.publish("first");
    node.sync();
    let mut asked = Vec::new();
    for number in 0..2_000 {
        let mut draft = draft(&format!("{number}"));
        draft.payload = Bytes::from(vec![0; 10 * PAYLOAD_BYTES]);
        let submission =
            Submission { source: Source(1), topic: topic(), draft, terms: Terms::default() };
        asked.push(node.request(Request::Publish(submission)));
    }
    node.sync();
    for id in asked {
        let answer = node.answers.remove(&id);
        assert!(matches!(answer, Some(Response::Published { .. })), "{answer:?}");
    }
}

#[test]
fn the_load_is_told_on_the_topic_of_events() {
    let mut crowd = Crowd::new(vec![Client::at(10 * CAPACITY)], |_| topic());
    crowd.run(Duration::from_secs(5));
    crowd.settle();
    let events: TopicName = "_events".parse().expect("a name");
    let mut told = VecDeque::new();
    for bytes in crowd.node.disk.logs.values().flatten() {
        let text = String::from_utf8_lossy(bytes);
        if let Some(at) = text.find("{\"event\":\"load\"") {
            told.push_back(text[at..].to_owned());
        }
    }
    println!("{events}: {told:?}");
    let high = told.iter().any(|event| event.contains("\"level\":\"high\""));
    let calm = told.iter().any(|event| event.contains("\"level\":\"calm\""));
    assert!(high && calm, "{told:?}");
}
