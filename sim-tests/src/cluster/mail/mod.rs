//! Who publishes, through any node, whoever leads the partition; and what became of every message.
//!
//! What was acknowledged is lost only where disks were destroyed, and all that counted: then nobody
//! leads the partition, and nobody expects its messages.

mod delivered;
mod reading;
mod subscribing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::{Draft, Envelope, Submission, Terms};
use sprawl_core::cluster::topic::{ConfigPatch, Durability};
use sprawl_core::ids::{Offset, Source, TopicName};
use sprawl_core::machine::{ControlRequest, ControlResponse, Response};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use reading::{fetch, standing};
pub(super) use subscribing::{Counts, Subscribers};

use super::crowd::Crowd;
use super::machine::Machine;
use super::watch::Watch;
use crate::invariants::Findings;
use crate::plan::Draw;

/// Over how many topics the messages are spread.
pub(super) const TOPICS: u64 = 6;
/// How many of these keep little, in clusters that grow old.
const AGED: u64 = 3;
/// How long it goes between two messages to each of those while the cluster grows old.
const AGING_PAUSE: Duration = Duration::from_secs(4);
/// The dice of whoever publishes then.
const AGING: u64 = 41_000;
/// The dice of whoever says which topics acknowledge early, and how long he waits between two
/// tries.
const EARLY: u64 = 42_000;
const EARLY_PAUSE: Duration = Duration::from_millis(200);
/// How many messages a batch has at most.
const BATCH_MAX: u64 = 8;
/// How often a message is tried at most, each time under its id.
const TRIES_MAX: usize = 4;
/// So many of a hundred messages or batches are tried once.
const ONCE_PERCENT: u64 = 50;
/// A request at a node that nothing happens to is answered in this time.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// The dice of whoever publishes to find out whether that can be done.
const PROBES: u64 = 40_000;

/// Where a message stands.
type Place = (TopicName, u32, Offset);

/// What became of all messages. A clone is the same one.
#[derive(Clone)]
pub(super) struct Mail {
    crowd: Crowd,
    findings: Findings,
    watch: Watch,
    /// Somebody was told that a message is stored which may not be synced.
    early: Arc<Notify>,
    inner: Arc<Mutex<Sent>>,
}

#[derive(Default)]
struct Sent {
    /// How many publishers have something under way.
    busy: usize,
    tried: BTreeSet<String>,
    /// Acknowledged, where, and when that was asked for.
    stored: BTreeMap<String, (Place, Instant)>,
    /// Refused at every try.
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// What readers have seen while all went on, and where.
    seen: BTreeMap<Place, String>,
    /// Read back at the end.
    read: u64,
    /// Acknowledged by a disk that is not there any more.
    lost: u64,
    /// Removed, because their topics keep little.
    removed: u64,
    /// Whether some topics do.
    aged: bool,
    /// Topics that acknowledge what is not synced.
    early: BTreeSet<TopicName>,
    /// Lost, because whoever had received it crashed before it was synced.
    forgotten: u64,
    /// How each partition read at the end, and those of which a copy was taken on trust.
    found: BTreeMap<(TopicName, u32), BTreeMap<String, Offset>>,
    trusted: BTreeSet<(TopicName, u32)>,
}

impl Sent {
    /// Whether a topic removes what is not among its newest.
    fn keeps_little(&self, of: &TopicName) -> bool {
        self.aged && (0..AGED).any(|number| topic(number) == *of)
    }
}

/// One message to every topic, each tried until it is acknowledged.
pub(super) struct Probe {
    begun: Instant,
    /// How long it took, for each that was.
    took: Mutex<Vec<Duration>>,
}

impl Probe {
    fn lock(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it took until all were acknowledged, if they are.
    pub(super) fn took(&self) -> Option<Duration> {
        let took = self.lock();
        (took.len() as u64 == TOPICS).then(|| took.iter().copied().max().unwrap_or_default())
    }
}

impl Mail {
    pub(super) fn new(crowd: Crowd, findings: Findings, watch: Watch) -> Self {
        Self { crowd, findings, watch, early: Arc::default(), inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages were read while all went on.
    pub(super) fn observed(&self) -> u64 {
        self.lock().seen.len() as u64
    }

    /// How many messages were acknowledged, read back, and lost with their disks.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let sent = self.lock();
        (sent.stored.len() as u64, sent.read, sent.lost)
    }

    /// How many acknowledged messages were removed, and lost before they were synced.
    pub(super) fn removed(&self) -> (u64, u64) {
        let sent = self.lock();
        (sent.removed, sent.forgotten)
    }

    /// Has some topics keep little, and publishes to them for a while.
    pub(super) async fn grow_old(self, age: Duration, seed: u64) {
        let mut dice = Draw::new(seed, AGING);
        let began = Instant::now();
        self.lock().aged = true;
        let keep_little = ConfigPatch { retention_bytes: Some(Some(1)), ..ConfigPatch::default() };
        let mut wanted: BTreeSet<TopicName> = (0..AGED).map(topic).collect();
        for number in 0_u64.. {
            tokio::time::sleep(AGING_PAUSE).await;
            if began.elapsed() >= age {
                return;
            }
            let Some(machine) = self.crowd.pick(&mut dice) else { continue };
            configure(&machine, &mut wanted, &keep_little).await;
            let ids = (0..AGED).map(|at| (format!("old-{number}-{at}"), topic(at)));
            let (mut open, mut doubtful): (Vec<_>, _) = (ids.collect(), BTreeSet::new());
            self.lock().tried.extend(open.iter().map(|(id, _)| id.clone()));
            self.attempt(&machine, AGING, &mut open, &mut doubtful).await;
            self.lock().unknown.append(&mut doubtful);
        }
    }

    /// Whether a topic acknowledges what is not synced.
    pub(super) fn is_early(&self, topic: &TopicName) -> bool {
        self.lock().early.contains(topic)
    }

    /// Comes to an end when the next message is acknowledged by a topic that does so early.
    pub(super) fn answered_early(&self) -> impl Future<Output = ()> + Send + 'static {
        self.early.clone().notified_owned()
    }

    /// Has so many topics acknowledge what their replicas have received, synced or not.
    pub(super) async fn acknowledge_early(self, count: u64, seed: u64) {
        let mut dice = Draw::new(seed, EARLY);
        let durability = Some(Durability::Replicated);
        let early = ConfigPatch { durability, ..ConfigPatch::default() };
        let mut wanted: BTreeSet<TopicName> = (TOPICS - count..TOPICS).map(topic).collect();
        self.lock().early.clone_from(&wanted);
        while !wanted.is_empty() && !self.crowd.is_closed() {
            if let Some(machine) = self.crowd.pick(&mut dice) {
                configure(&machine, &mut wanted, &early).await;
            }
            tokio::time::sleep(EARLY_PAUSE).await;
        }
    }

    /// Publishes until all is closed.
    pub(super) async fn publish(self, client: u64, pause_ms: u64, mut dice: Draw) {
        for number in 0_u64.. {
            tokio::time::sleep(Duration::from_millis(dice.range(1, pause_ms * 2))).await;
            if self.crowd.is_closed() {
                return;
            }
            let count = if dice.percent(30) { dice.range(2, BATCH_MAX) } else { 1 };
            let ids = (0..count).map(|at| format!("c{client}-{number}-{at}"));
            let mut open: Vec<(String, TopicName)> =
                ids.map(|id| (id, topic(dice.range(0, TOPICS - 1)))).collect();
            self.begins(&open);
            // What is refused at the only try was refused for good.
            let tries = if dice.percent(ONCE_PERCENT) { 1 } else { TRIES_MAX };
            let mut doubtful = BTreeSet::new();
            for _ in 0..tries {
                let Some(machine) = self.crowd.pick(&mut dice) else { break };
                self.attempt(&machine, client, &mut open, &mut doubtful).await;
                if open.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(dice.range(10, 500))).await;
            }
            self.gives_up(open, &doubtful);
        }
    }

    /// Somebody begins to try these.
    pub(super) fn begins(&self, open: &[(String, TopicName)]) {
        let mut sent = self.lock();
        sent.busy += 1;
        sent.tried.extend(open.iter().map(|(id, _)| id.clone()));
    }

    /// He tries no more; what is still open was refused each time, or is doubtful.
    pub(super) fn gives_up(&self, open: Vec<(String, TopicName)>, doubtful: &BTreeSet<String>) {
        let mut sent = self.lock();
        sent.busy -= 1;
        for (id, _) in open {
            let _ = match doubtful.contains(&id) {
                true => sent.unknown.insert(id),
                false => sent.refused.insert(id),
            };
        }
    }

    /// Tries what is open once more; what is acknowledged is not open any more.
    pub(super) async fn attempt(
        &self,
        machine: &Machine,
        client: u64,
        open: &mut Vec<(String, TopicName)>,
        doubtful: &mut BTreeSet<String>,
    ) {
        let Some(node) = machine.handle() else { return };
        let (touched, asked) = (machine.touched(), Instant::now());
        let items = open.iter().map(|(id, topic)| submission(client, id, topic));
        let answered = node.publish_batch(items.collect());
        let outcomes = match tokio::time::timeout(ANSWER_WAIT, answered).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                if machine.touched() == touched {
                    let detail = format!("machine {} kept a publisher waiting", machine.number);
                    self.findings.violated("EveryRequestResolves", detail);
                }
                vec![Response::Unknown; open.len()]
            }
        };
        let number = machine.number;
        let mut sent = self.lock();
        for ((id, topic), outcome) in std::mem::take(open).into_iter().zip(outcomes) {
            match outcome {
                Response::Published { partition, offset, .. } => {
                    self.watch.client(&format!("machine {number}: {id} at {partition}/{offset}"));
                    if sent.early.contains(&topic) {
                        self.early.notify_waiters();
                    }
                    sent.stored.insert(id, ((topic, partition, offset), asked));
                }
                Response::Refused(_) => open.push((id, topic)),
                Response::Unknown
                | Response::Batch(_)
                | Response::Fetched { .. }
                | Response::Trimmed { .. }
                | Response::Pulled(_)
                | Response::Settled { .. }
                | Response::Available(_)
                | Response::Described(_) => {
                    doubtful.insert(id.clone());
                    open.push((id, topic));
                }
            }
        }
    }

    /// Publishes to every topic until that is acknowledged, through whichever machine is picked.
    pub(super) fn probe(&self, name: &'static str, seed: u64) -> Arc<Probe> {
        let probe = Arc::new(Probe { begun: Instant::now(), took: Mutex::default() });
        for number in 0..TOPICS {
            let (mail, probe) = (self.clone(), probe.clone());
            let mut dice = Draw::new(seed, PROBES + number);
            tokio::spawn(async move {
                let mut open = vec![(format!("{name}-{number}"), topic(number))];
                mail.lock().tried.insert(open[0].0.clone());
                let mut doubtful = BTreeSet::new();
                while !open.is_empty() {
                    let all = mail.crowd.all();
                    let machine = &all[dice.range(0, all.len() as u64 - 1) as usize];
                    mail.attempt(machine, PROBES, &mut open, &mut doubtful).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                probe.lock().push(probe.begun.elapsed());
            });
        }
        probe
    }
}

/// Has topics kept in another way; those that are, are not wanted any more.
async fn configure(machine: &Machine, wanted: &mut BTreeSet<TopicName>, patch: &ConfigPatch) {
    let Some(node) = machine.handle() else { return };
    for name in wanted.clone() {
        let (topic, patch) = (name.clone(), patch.clone());
        let ask = ControlRequest::ConfigureTopic { name: topic, patch, reset: false };
        let asked = tokio::time::timeout(ANSWER_WAIT, node.control(ask)).await;
        if matches!(asked, Ok(ControlResponse::Done)) {
            wanted.remove(&name);
        }
    }
}

/// One of the topics that are published to.
pub(super) fn topic(number: u64) -> TopicName {
    format!("mail.{number}").parse().expect("a good name")
}

fn submission(client: u64, id: &str, topic: &TopicName) -> Submission {
    let envelope = Envelope {
        id: id.parse().expect("a good id"),
        key: None,
        sequence: None,
        content_type: None,
        headers: Vec::new(),
    };
    let payload = Bytes::copy_from_slice(id.as_bytes());
    let (source, draft) = (Source(client), Draft { envelope, payload });
    Submission { source, topic: topic.clone(), draft, terms: Terms::default() }
}
