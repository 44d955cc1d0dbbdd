//! Who publishes, through any node, whoever leads the partition; and whether all that was
//! acknowledged is read back through any node at the end.
//!
//! What was acknowledged is lost only where disks were destroyed, and all that counted: then nobody
//! leads the partition, and nobody expects its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::{Body, Draft, Envelope, Submission, Terms};
use sprawl_core::cluster::metadata::Partition;
use sprawl_core::cluster::topic::ConfigPatch;
use sprawl_core::ids::{Offset, Source, TopicName};
use sprawl_core::machine::{
    ControlRequest, ControlResponse, FetchFrom, PartitionStatus, Refused, Request, Response,
};
use sprawl_io::handle::NodeHandle;

use super::crowd::Crowd;
use super::machine::Machine;
use super::watch::Watch;
use crate::invariants::Findings;
use crate::plan::Draw;

/// Over how many topics the messages are spread.
const TOPICS: u64 = 6;
/// How many of these keep little, in clusters that grow old.
const AGED: u64 = 3;
/// How long it goes between two messages to each of those while the cluster grows old.
const AGING_PAUSE: Duration = Duration::from_secs(4);
/// The dice of whoever publishes then.
const AGING: u64 = 41_000;
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
/// How many messages are read at once.
const PAGE: usize = 500;

/// Where a message stands.
type Place = (TopicName, u32, Offset);

/// What became of all messages. A clone is the same one.
#[derive(Clone)]
pub(super) struct Mail {
    crowd: Crowd,
    findings: Findings,
    watch: Watch,
    inner: Arc<Mutex<Sent>>,
}

#[derive(Default)]
struct Sent {
    /// How many publishers have something under way.
    busy: usize,
    tried: BTreeSet<String>,
    /// Acknowledged, and where.
    stored: BTreeMap<String, Place>,
    /// Refused at every try.
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// Read back at the end.
    read: u64,
    /// Acknowledged by a disk that is not there any more.
    lost: u64,
    /// Removed, because their topics keep little.
    removed: u64,
    /// Whether some topics do.
    aged: bool,
}

/// How a partition reads at one node.
type Found = BTreeMap<String, Offset>;

impl Mail {
    pub(super) fn new(crowd: Crowd, findings: Findings, watch: Watch) -> Self {
        Self { crowd, findings, watch, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages were acknowledged, read back, and lost with their disks.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let sent = self.lock();
        (sent.stored.len() as u64, sent.read, sent.lost)
    }

    /// How many acknowledged messages were removed.
    pub(super) fn removed(&self) -> u64 {
        self.lock().removed
    }

    /// Has some topics keep little, and publishes to them for a while.
    pub(super) async fn grow_old(self, age: Duration, seed: u64) {
        let mut dice = Draw::new(seed, AGING);
        let began = tokio::time::Instant::now();
        self.lock().aged = true;
        let keep_little = ConfigPatch { retention_bytes: Some(Some(1)), ..ConfigPatch::default() };
        let mut wanted: BTreeSet<u64> = (0..AGED).collect();
        for number in 0_u64.. {
            tokio::time::sleep(AGING_PAUSE).await;
            if began.elapsed() >= age {
                return;
            }
            let Some(machine) = self.crowd.pick(&mut dice) else { continue };
            if let Some(node) = machine.handle() {
                for at in wanted.clone() {
                    let (name, patch) = (topic(at), keep_little.clone());
                    let ask = ControlRequest::ConfigureTopic { name, patch, reset: false };
                    let asked = tokio::time::timeout(ANSWER_WAIT, node.control(ask)).await;
                    if matches!(asked, Ok(ControlResponse::Done)) {
                        wanted.remove(&at);
                    }
                }
            }
            let ids = (0..AGED).map(|at| (format!("old-{number}-{at}"), topic(at)));
            let (mut open, mut doubtful): (Vec<_>, _) = (ids.collect(), BTreeSet::new());
            self.lock().tried.extend(open.iter().map(|(id, _)| id.clone()));
            self.attempt(&machine, AGING, &mut open, &mut doubtful).await;
            self.lock().unknown.append(&mut doubtful);
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
            {
                let mut sent = self.lock();
                sent.busy += 1;
                sent.tried.extend(open.iter().map(|(id, _)| id.clone()));
            }
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
            let mut sent = self.lock();
            sent.busy -= 1;
            for (id, _) in open {
                let _ = match doubtful.contains(&id) {
                    true => sent.unknown.insert(id),
                    false => sent.refused.insert(id),
                };
            }
        }
    }

    /// Tries what is open once more; what is acknowledged is not open any more.
    async fn attempt(
        &self,
        machine: &Machine,
        client: u64,
        open: &mut Vec<(String, TopicName)>,
        doubtful: &mut BTreeSet<String>,
    ) {
        let Some(node) = machine.handle() else { return };
        let touched = machine.touched();
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
                    sent.stored.insert(id, (topic, partition, offset));
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

    /// Publishes to every topic until that is acknowledged, through whichever machine is picked;
    /// says how many topics are left.
    pub(super) fn probe(&self, name: &'static str, seed: u64) -> Arc<AtomicU64> {
        let left = Arc::new(AtomicU64::new(TOPICS));
        for number in 0..TOPICS {
            let (mail, left) = (self.clone(), left.clone());
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
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        left
    }

    /// Reads everything back, each partition through two nodes, and judges it.
    pub(super) async fn judge(&self, live: &[(Machine, NodeHandle)], limit: Duration) {
        while self.lock().busy > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let Some((_, any)) = live.first() else { return };
        let view = any.view();
        let disks: BTreeSet<_> = live.iter().map(|(_, node)| node.identity().disk).collect();
        let mut found: BTreeMap<(TopicName, u32), Found> = BTreeMap::new();
        for (turn, partition) in view.partitions.values().enumerate() {
            let is_left = partition.members().any(|disk| disks.contains(&disk));
            if !partition.topic.as_str().starts_with("mail.") || !is_left {
                continue;
            }
            let mut reads = Vec::new();
            for (machine, node) in [&live[turn % live.len()], &live[(turn + 1) % live.len()]] {
                let read = self.read(node, &partition.topic, partition.number, limit).await;
                let Some(read) = read else {
                    let (topic, number) = (&partition.topic, machine.number);
                    let stands = standing(live, partition).await;
                    let detail =
                        format!("'{topic}' is not read through machine {number}: {stands}");
                    return self.findings.violated("EveryRequestResolves", detail);
                };
                reads.push(read);
            }
            if reads[0] != reads[1] {
                let detail = format!("'{}' reads otherwise through another node", partition.topic);
                self.findings.violated("NothingAckedIsLost", detail);
            }
            found.insert((partition.topic.clone(), partition.number), reads.swap_remove(0));
        }
        self.compare(&found);
    }

    /// The history against what was read.
    fn compare(&self, found: &BTreeMap<(TopicName, u32), Found>) {
        let mut sent = self.lock();
        let violated = |invariant, detail| self.findings.violated(invariant, detail);
        let (mut read, mut lost, mut removed) = (0, 0, 0);
        let aged: BTreeSet<TopicName> = (0..AGED).filter(|_| sent.aged).map(topic).collect();
        for (id, (topic, number, offset)) in &sent.stored {
            match found.get(&(topic.clone(), *number)) {
                None => lost += 1,
                Some(messages) if messages.get(id) == Some(offset) => read += 1,
                // The newest ones stay.
                Some(messages)
                    if aged.contains(topic)
                        && messages.values().min().is_some_and(|first| offset < first) =>
                {
                    removed += 1;
                }
                Some(messages) => {
                    let stands = messages.get(id);
                    let detail = format!("{id} was stored in '{topic}' at {offset}: {stands:?}");
                    violated("NothingAckedIsLost", detail);
                }
            }
        }
        for id in found.values().flat_map(BTreeMap::keys) {
            if sent.refused.contains(id) {
                violated("RefusedMeansAbsent", format!("{id} was refused and stands"));
            } else if !sent.tried.contains(id) {
                violated("NoPhantom", format!("nobody published {id}"));
            }
        }
        if lost > 0 && self.watch.wipes() == 0 {
            violated("NothingAckedIsLost", format!("{lost} messages, and every disk is there"));
        }
        (sent.read, sent.lost, sent.removed) = (read, lost, removed);
    }

    /// A partition's messages, read through a node; nothing when that does not answer in time.
    async fn read(
        &self,
        node: &NodeHandle,
        topic: &TopicName,
        partition: u32,
        limit: Duration,
    ) -> Option<Found> {
        let began = tokio::time::Instant::now();
        let (mut all, mut from) = (Found::new(), Offset(0));
        while began.elapsed() < limit {
            let request = Request::Fetch {
                topic: topic.clone(),
                partition,
                from: FetchFrom::Offset(from),
                count_max: PAGE,
                wait: Duration::ZERO,
            };
            match tokio::time::timeout(limit, node.request(request)).await {
                Ok(Response::Fetched { records, next, end, .. }) => {
                    for record in records {
                        self.note(&record, &mut all);
                    }
                    from = next;
                    if next >= end {
                        return Some(all);
                    }
                }
                // It becomes ready, or the limit speaks.
                Ok(
                    Response::Refused(Refused::NotReady | Refused::NoTopic(_)) | Response::Unknown,
                ) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(
                    Response::Refused(_)
                    | Response::Published { .. }
                    | Response::Batch(_)
                    | Response::Trimmed { .. }
                    | Response::Pulled(_)
                    | Response::Settled { .. }
                    | Response::Available(_)
                    | Response::Described(_),
                )
                | Err(_) => return None,
            }
        }
        None
    }

    fn note(&self, record: &sprawl_core::broker::replica::Record, all: &mut Found) {
        let offset = record.header().offset;
        let Ok(Body::Message(Draft { envelope, payload })) = record.body() else {
            return self.findings.violated("NoPhantom", format!("no message is at {offset}"));
        };
        let id = envelope.id.as_str().to_owned();
        if payload != id.as_bytes() {
            self.findings.violated("NoCorruptByteServed", format!("{id} at {offset}"));
        }
        if let Some(first) = all.insert(id.clone(), offset) {
            self.findings.violated("NoDuplicateId", format!("{id} is at {first} and {offset}"));
        }
    }
}

/// How a partition stands, in the metadata and at its replicas.
pub(super) async fn standing(live: &[(Machine, NodeHandle)], partition: &Partition) -> String {
    let Partition { id, epoch, version, leader, replicas, in_sync, frozen, .. } = partition;
    let mut text = format!(
        "partition {id}, epoch {epoch}, version {version}, leader {leader}, replicas {replicas:?}, \
         in sync {in_sync:?}, frozen {frozen}"
    );
    for (machine, node) in live {
        let status = node.describe().await.unwrap_or_default();
        let held = status.iter().flat_map(|shard| &shard.partitions);
        for held in held.filter(|held| held.partition == *id) {
            let (number, disk) = (machine.number, node.identity().disk);
            let PartitionStatus { epoch, serving, persisted, commit, followers, .. } = held;
            text += &format!(
                "; machine {number} is {disk}: epoch {epoch}, serving {serving}, commit {commit} \
                 of {persisted}, {followers:?}"
            );
        }
    }
    text
}

fn topic(number: u64) -> TopicName {
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
