//! Who reads: while all goes on, and everything at the end. What was once read stays where it was
//! read, and what was acknowledged is read back, through any node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sprawl_core::broker::replica::{Body, Draft, Record};
use sprawl_core::cluster::metadata::Partition;
use sprawl_core::ids::{Offset, TopicName};
use sprawl_core::machine::{FetchFrom, PartitionStatus, Refused, Request, Response};
use sprawl_io::handle::NodeHandle;
use tokio::time::Instant;

use super::{ANSWER_WAIT, Mail, TOPICS, topic};
use crate::cluster::machine::Machine;
use crate::plan::Draw;

/// How many messages are read at once while all goes on, and how long is waited for the first.
const GLANCE: usize = 20;
const LISTENS_MS: u64 = 500;
/// How many messages are read at once at the end.
const PAGE: usize = 500;

/// How a partition reads at one node.
type Found = BTreeMap<String, Offset>;

impl Mail {
    /// Reads while all goes on, each topic from where it was, or from before that.
    pub(in crate::cluster) async fn observe(self, pause_ms: u64, mut dice: Draw) {
        let mut next: BTreeMap<TopicName, Offset> = BTreeMap::new();
        loop {
            tokio::time::sleep(Duration::from_millis(dice.range(1, pause_ms * 2))).await;
            if self.crowd.is_closed() {
                return;
            }
            let topic = topic(dice.range(0, TOPICS - 1));
            let known = next.get(&topic).copied().unwrap_or_default();
            let from = if dice.percent(20) { Offset(dice.range(0, known.0)) } else { known };
            let wait = Duration::from_millis(dice.range(0, LISTENS_MS));
            let node = self.crowd.pick(&mut dice).and_then(|machine| machine.handle());
            let Some(node) = node else { continue };
            let request = fetch(&topic, 0, from, GLANCE, wait);
            let answer = tokio::time::timeout(ANSWER_WAIT, node.request(request)).await;
            let Ok(Response::Fetched { records, partition, next: behind, .. }) = answer else {
                continue;
            };
            let mut found = Found::new();
            records.iter().for_each(|record| self.note(record, &mut found));
            self.sees(&topic, partition, found);
            next.insert(topic, behind.max(known));
        }
    }

    /// CommittedIsImmutable: what is read at a place is what was read there before.
    pub(super) fn sees(&self, topic: &TopicName, partition: u32, found: Found) {
        let mut sent = self.lock();
        for (id, offset) in found {
            let place = (topic.clone(), partition, offset);
            let known = sent.seen.entry(place).or_insert_with(|| id.clone());
            if *known != id {
                let detail = format!("'{topic}' read {known} at {offset}, and {id} later");
                self.findings.violated("CommittedIsImmutable", detail);
            }
        }
    }

    /// Reads everything back, each partition through two nodes, and judges it; but for topics of
    /// which every copy was destroyed.
    pub(in crate::cluster) async fn judge(
        &self,
        live: &[(Machine, NodeHandle)],
        gone: &BTreeSet<TopicName>,
        limit: Duration,
    ) {
        while self.lock().busy > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let Some((_, any)) = live.first() else { return };
        let view = any.view();
        let mut found: BTreeMap<(TopicName, u32), Found> = BTreeMap::new();
        let mut trusted = BTreeMap::new();
        for (turn, partition) in view.partitions.values().enumerate() {
            if !partition.topic.as_str().starts_with("mail.") || gone.contains(&partition.topic) {
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
            if !self.may_follow(&partition.topic, &reads[0], &reads[1]) {
                let detail = format!("'{}' reads otherwise through another node", partition.topic);
                self.findings.violated("NothingAckedIsLost", detail);
            }
            let place = (partition.topic.clone(), partition.number);
            trusted.extend(self.watch.trusted(partition.id).map(|at| (place.clone(), at)));
            found.insert(place, reads.swap_remove(0));
        }
        self.compare(&found, &trusted, gone);
        let mut sent = self.lock();
        (sent.found, sent.trusted) = (found, trusted.into_keys().collect());
    }

    /// Whether a topic that was read like this may be read like that a moment later: where it keeps
    /// little, it may have lost its beginning meanwhile.
    fn may_follow(&self, topic: &TopicName, before: &Found, after: &Found) -> bool {
        let first = after.values().min().filter(|_| self.lock().keeps_little(topic));
        let is_kept = |at: &Offset| first.is_none_or(|first| at >= first);
        before.iter().filter(|(_, at)| is_kept(at)).eq(after)
    }

    /// The history against what was read. What was acknowledged early, and asked for before a copy
    /// was taken on trust, may be lost.
    fn compare(
        &self,
        found: &BTreeMap<(TopicName, u32), Found>,
        trusted: &BTreeMap<(TopicName, u32), Instant>,
        gone: &BTreeSet<TopicName>,
    ) {
        let mut sent = self.lock();
        let violated = |invariant, detail| self.findings.violated(invariant, detail);
        let (mut read, mut lost, mut removed, mut forgotten) = (0, 0, 0, 0);
        for (id, ((topic, number, offset), asked)) in &sent.stored {
            let place = (topic.clone(), *number);
            let is_trusted = || trusted.get(&place).is_some_and(|at| asked < at);
            match found.get(&place) {
                None if gone.contains(topic) => lost += 1,
                None => violated("NothingAckedIsLost", format!("{id}: there is no '{topic}'")),
                Some(messages) if messages.get(id) == Some(offset) => read += 1,
                // The newest ones stay.
                Some(messages)
                    if sent.keeps_little(topic)
                        && messages.values().min().is_some_and(|first| offset < first) =>
                {
                    removed += 1;
                }
                Some(_) if sent.early.contains(topic) && is_trusted() => forgotten += 1,
                Some(messages) => {
                    let stands = messages.get(id);
                    let detail = format!("{id} was stored in '{topic}' at {offset}: {stands:?}");
                    violated("NothingAckedIsLost", detail);
                }
            }
        }
        for ((topic, number, offset), id) in &sent.seen {
            let Some(messages) = found.get(&(topic.clone(), *number)) else {
                if !gone.contains(topic) {
                    let detail = format!("{id} was read in '{topic}', which is not there");
                    violated("NothingObservedIsLost", detail);
                }
                continue;
            };
            let first = messages.values().min();
            let is_removed = sent.keeps_little(topic) && first.is_some_and(|first| offset < first);
            if messages.get(id) != Some(offset) && !is_removed {
                let detail = format!("{id} was read in '{topic}' at {offset}, and is not there");
                violated("NothingObservedIsLost", detail);
            }
        }
        for id in found.values().flat_map(BTreeMap::keys) {
            if sent.refused.contains(id) {
                violated("RefusedMeansAbsent", format!("{id} was refused and stands"));
            } else if !sent.tried.contains(id) {
                violated("NoPhantom", format!("nobody published {id}"));
            }
        }
        (sent.read, sent.lost, sent.removed, sent.forgotten) = (read, lost, removed, forgotten);
    }

    /// A partition's messages, read through a node; nothing when that does not answer in time.
    async fn read(
        &self,
        node: &NodeHandle,
        topic: &TopicName,
        partition: u32,
        limit: Duration,
    ) -> Option<Found> {
        let began = Instant::now();
        let (mut all, mut from) = (Found::new(), Offset(0));
        while began.elapsed() < limit {
            let request = fetch(topic, partition, from, PAGE, Duration::ZERO);
            match tokio::time::timeout(limit, node.request(request)).await {
                Ok(Response::Fetched { records, next, end, .. }) => {
                    for record in records {
                        self.note(&record, &mut all);
                    }
                    from = next;
                    if next >= end {
                        self.are_dense(topic, &all);
                        return Some(all);
                    }
                }
                // It becomes ready, or the limit speaks.
                Ok(
                    Response::Refused(
                        Refused::NotReady | Refused::NoTopic(_) | Refused::Damaged(_),
                    )
                    | Response::Unknown,
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

    /// OffsetsDense: between the first and the last message none is left out.
    fn are_dense(&self, topic: &TopicName, all: &Found) {
        let mut offsets: Vec<Offset> = all.values().copied().collect();
        offsets.sort();
        let next = |at: &Offset| Offset(at.0 + 1);
        if let Some(pair) = offsets.windows(2).find(|pair| pair[1] != next(&pair[0])) {
            let detail = format!("'{topic}' has nothing between {} and {}", pair[0], pair[1]);
            self.findings.violated("OffsetsDense", detail);
        }
    }

    pub(super) fn note(&self, record: &Record, all: &mut Found) {
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

/// A question for messages of a partition, from this one on.
pub(in crate::cluster) fn fetch(
    topic: &TopicName,
    partition: u32,
    from: Offset,
    count_max: usize,
    wait: Duration,
) -> Request {
    let (topic, from) = (topic.clone(), FetchFrom::Offset(from));
    Request::Fetch { topic, partition, from, count_max, wait }
}

/// How a partition stands, in the metadata and at its replicas.
pub(in crate::cluster) async fn standing(
    live: &[(Machine, NodeHandle)],
    partition: &Partition,
) -> String {
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
