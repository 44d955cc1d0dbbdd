//! Who subscribes, pulls through any node, and acknowledges, gives back or forgets; and at the end,
//! whether each subscription has had all that stands in its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprawl_core::broker::delivery::Delivered as Delivery;
use sprawl_core::broker::replica::{Body, Draft};
use sprawl_core::cluster::subscription::{DeliveryAsked, StartFrom};
use sprawl_core::cluster::topic::dead_letters;
use sprawl_core::ids::{Epoch, Offset, PartitionId, SubscriptionId, TopicName};
use sprawl_core::machine::{Broken, ControlRequest, ControlResponse, Request, Response, Verdict};
use sprawl_io::handle::NodeHandle;

use super::delivered::{Delivered, Pulled};
use super::reading::fetch;
use super::{ANSWER_WAIT, Mail, Place, topic};
use crate::cluster::machine::{Machine, Standing};
use crate::cluster::subscribers::ClusterSubscriber;
use crate::plan::Draw;

/// How long a pull waits for a message at most.
const WAIT_MS: u64 = 1_000;
/// How long a client waits after an answer that brings nothing.
const PAUSE: Duration = Duration::from_millis(200);
/// How many messages a client takes at once when it catches up.
const CATCH_UP: usize = 500;
/// How often a message is delivered where nobody says otherwise.
const MAX_DELIVER: u32 = 5;
/// How many dead letters are read at once.
const PAGE: usize = 500;
/// A run whose subscriptions were given less says nothing of them.
const DELIVERED_MIN: u64 = 10;

/// A message that stands in a dead-letter topic: of which subscription, and where it stood.
type Buried = BTreeSet<(String, Place)>;

/// All subscriptions of a run. A clone is the same ones.
#[derive(Clone)]
pub(in crate::cluster) struct Subscribers {
    mail: Mail,
    began: tokio::time::Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    all: BTreeMap<String, Delivered>,
    topics: BTreeMap<String, BTreeSet<TopicName>>,
    /// The epoch of each partition, and when it was last seen to change.
    led: BTreeMap<PartitionId, (Epoch, Option<u64>)>,
    counts: Counts,
    over: bool,
}

/// What subscriptions came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Subscriptions whose making was acknowledged.
    pub(crate) made: u64,
    /// Messages that came, those that came again, and acknowledgements that were taken.
    pub(crate) delivered: u64,
    pub(crate) repeated: u64,
    pub(crate) acked: u64,
    /// Messages given back, and dead letters.
    pub(crate) given_back: u64,
    pub(crate) buried: u64,
    /// Messages not received that need not be: a copy of their partition was taken on trust.
    pub(crate) excused: u64,
    /// Whether so little came that this says nothing.
    pub(crate) meagre: u64,
}

impl Subscribers {
    pub(in crate::cluster) fn new(mail: Mail, began: tokio::time::Instant) -> Self {
        Self { mail, began, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// What subscriptions came to; nothing where there are none.
    pub(in crate::cluster) fn counts(&self) -> Counts {
        let inner = self.lock();
        let sum = |of: fn(&Delivered) -> u64| inner.all.values().map(of).sum();
        let delivered = sum(|one| one.got.values().map(|got| got.count).sum());
        Counts {
            made: sum(|one| u64::from(one.before.is_some())),
            delivered,
            repeated: sum(|one| one.repeats),
            acked: sum(|one| one.acked),
            meagre: u64::from(!inner.all.is_empty() && delivered < DELIVERED_MIN),
            ..inner.counts
        }
    }

    /// Subscribes, and receives until the run is over.
    pub(in crate::cluster) async fn subscribe(
        self,
        number: usize,
        plan: ClusterSubscriber,
        dice: Draw,
    ) {
        tokio::time::sleep(Duration::from_millis(plan.at_ms)).await;
        let name = format!("s{number}");
        let max_deliver = u64::from(plan.max_deliver.unwrap_or(MAX_DELIVER));
        let delivered = Delivered { latest: plan.latest, max_deliver, ..Delivered::default() };
        {
            let topics = plan.topics.iter().map(|&number| topic(number)).collect();
            let mut inner = self.lock();
            inner.all.insert(name.clone(), delivered);
            inner.topics.insert(name.clone(), topics);
        }
        let id = name.parse().expect("a good name");
        let mut client = Client { all: self, name, id, plan, dice };
        client.begin().await;
        while !client.all.lock().over {
            let held = client.pull().await;
            match held.is_empty() {
                true => tokio::time::sleep(PAUSE).await,
                false => client.work(held).await,
            }
        }
    }

    /// How a partition is led, as of now.
    fn led(&self, partition: PartitionId, asked_ms: u64) -> Pulled {
        let (view, now_ms) = (self.mail.watch.newest(), self.now_ms());
        let epoch = view.partitions.get(&partition).map_or(Epoch(1), |known| known.epoch);
        let mut inner = self.lock();
        let first = (epoch, (epoch > Epoch(1)).then_some(now_ms));
        let known = inner.led.entry(partition).or_insert(first);
        if known.0 != epoch {
            *known = (epoch, Some(now_ms));
        }
        Pulled { asked_ms, epoch: epoch.0, led_since_ms: known.1 }
    }

    /// What is still owed to subscriptions of what was read back, each with its invariant. What
    /// depends on an entry that was acknowledged before it was synced is not, where a copy was
    /// taken on trust.
    fn owed(&self, buried: &Buried) -> Vec<(&'static str, String)> {
        let sent = self.mail.lock();
        let mut inner = self.lock();
        let (mut owed, mut excused) = (Vec::new(), 0);
        for (name, one) in &inner.all {
            let topics = &inner.topics[name];
            for ((topic, partition), messages) in &sent.found {
                if !topics.contains(topic) {
                    continue;
                }
                let trusted = sent.trusted.contains(&(topic.clone(), *partition));
                let trusted = trusted && sent.early.contains(topic);
                for (id, &offset) in messages {
                    let place = (topic.clone(), *partition, offset);
                    let Some(invariant) = one.owed(&place, id) else { continue };
                    let count = one.got.get(&(place.clone(), id.clone())).map_or(0, |g| g.count);
                    if buried.contains(&(name.clone(), place)) {
                        continue;
                    }
                    // Where the subscription begins was not synced.
                    if count == 0 && trusted {
                        excused += 1;
                        continue;
                    }
                    let detail = format!(
                        "{name}: {id} of '{topic}' {partition}/{offset} came {count} times"
                    );
                    owed.push((invariant, detail));
                }
            }
            if one.before.is_none() {
                owed.push(("GroupsDrain", format!("{name} was never made")));
            }
        }
        inner.counts.excused = excused;
        inner.counts.buried = buried.len() as u64;
        owed
    }

    /// Reads the dead letters, as far as they can be read now.
    async fn buried(&self, node: &NodeHandle) -> Buried {
        let topics: BTreeSet<_> = self.lock().topics.values().flatten().cloned().collect();
        let graves: BTreeSet<TopicName> = topics.iter().filter_map(dead_letters).collect();
        let mut buried = Buried::new();
        let view = node.view();
        for one in view.partitions.values().filter(|one| graves.contains(&one.topic)) {
            let mut from = Offset(0);
            loop {
                let ask = fetch(&one.topic, one.number, from, PAGE, Duration::ZERO);
                let answer = tokio::time::timeout(ANSWER_WAIT, node.request(ask)).await;
                let Ok(Response::Fetched { records, next, end, .. }) = answer else { break };
                buried.extend(records.iter().filter_map(letter));
                if next >= end {
                    break;
                }
                from = next;
            }
        }
        buried
    }

    /// Whether each subscription has had all; then, or where it is the last look, they end, and
    /// what is missing is a violation. One look decides: what is excused in it may come later.
    pub(in crate::cluster) async fn are_served(&self, node: &NodeHandle, is_last: bool) -> bool {
        let buried = self.buried(node).await;
        let owed = self.owed(&buried);
        let count = owed.len();
        self.lock().over = count == 0 || is_last;
        for (invariant, detail) in owed.into_iter().filter(|_| is_last) {
            let detail = format!("{detail} ({count} such)");
            self.mail.findings.violated(invariant, detail);
        }
        count == 0
    }
}

/// Of which subscription a dead letter is, and where its original stands.
fn letter(record: &sprawl_core::broker::replica::Record) -> Option<(String, Place)> {
    let Ok(Body::Message(Draft { envelope, .. })) = record.body() else { return None };
    let header = |name: &str| {
        let name = format!("Sprawl-Dead-{name}");
        let found = envelope.headers.iter().find(|(known, _)| *known == *name);
        found.map(|(_, value)| value.to_string())
    };
    let place = (
        header("Topic")?.parse().ok()?,
        header("Partition")?.parse().ok()?,
        Offset(header("Offset")?.parse().ok()?),
    );
    Some((header("Subscription")?, place))
}

/// A client at work.
struct Client {
    all: Subscribers,
    name: String,
    id: SubscriptionId,
    plan: ClusterSubscriber,
    dice: Draw,
}

impl Client {
    /// Whether all has healed: it catches up.
    fn is_calm(&self) -> bool {
        self.all.mail.crowd.is_closed()
    }

    /// Any machine that has not left.
    fn machine(&mut self) -> Option<(Machine, NodeHandle)> {
        let all = self.all.mail.crowd.all();
        let machine = all[self.dice.range(0, all.len() as u64 - 1) as usize].clone();
        let node = machine.handle()?;
        (machine.standing() != Standing::Gone).then_some((machine, node))
    }

    /// Subscribes, as often as it takes.
    async fn begin(&mut self) {
        while !self.all.lock().over {
            let Some((_, node)) = self.machine() else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let delivery = DeliveryAsked {
                ack_wait: Some(Duration::from_millis(self.plan.ack_wait_ms)),
                max_deliver: Some(self.plan.max_deliver.unwrap_or(MAX_DELIVER)),
                ..DeliveryAsked::default()
            };
            let request = ControlRequest::Subscribe {
                id: self.id.clone(),
                topics: self.plan.topics.iter().map(|&number| topic(number).into()).collect(),
                from: if self.plan.latest { StartFrom::Latest } else { StartFrom::Earliest },
                delivery,
            };
            let answered = tokio::time::timeout(ANSWER_WAIT, node.control(request)).await;
            if let Ok(ControlResponse::Subscribed { .. }) = answered {
                let before = Some(self.all.mail.lock().tried.clone());
                let mut inner = self.all.lock();
                inner.all.get_mut(&self.name).expect("it is there").before = before;
                return self.all.mail.watch.client(&format!("{}: subscribed", self.name));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node; one that nothing happens to answers.
    async fn ask(&mut self, request: Request) -> Option<Response> {
        let (machine, node) = self.machine()?;
        let touched = machine.touched();
        let answer = tokio::time::timeout(ANSWER_WAIT, node.request(request)).await;
        if answer.is_err() && machine.touched() == touched {
            let detail = format!("machine {} kept a subscriber waiting", machine.number);
            self.all.mail.findings.violated("EveryRequestResolves", detail);
        }
        answer.ok()
    }

    /// Takes what there is.
    async fn pull(&mut self) -> Vec<Delivery> {
        let count_max = if self.is_calm() { CATCH_UP } else { self.plan.max as usize };
        let wait = Duration::from_millis(self.dice.range(0, WAIT_MS));
        let subscription = self.id.clone();
        let asked_ms = self.all.now_ms();
        let answer = self.ask(Request::Pull { subscription, count_max, wait }).await;
        let Some(Response::Pulled(held)) = answer else { return Vec::new() };
        for one in &held {
            self.received(one, asked_ms);
        }
        held
    }

    /// NoPhantom, NoCorruptByteServed, CommittedIsImmutable, and what a subscription may be given.
    fn received(&self, one: &Delivery, asked_ms: u64) {
        let mail = &self.all.mail;
        let mut found = BTreeMap::new();
        mail.note(&one.record, &mut found);
        let pulled = self.all.led(one.token.partition, asked_ms);
        for (id, offset) in &found {
            if !mail.lock().tried.contains(id) {
                mail.findings.violated("NoPhantom", format!("{} was given {id}", self.name));
            }
            let (place, attempt) = ((one.topic.clone(), one.partition, *offset), one.token.attempt);
            mail.watch.client(&format!(
                "{}: {id} at {}/{offset}, attempt {attempt}",
                self.name, one.partition
            ));
            let mut inner = self.all.lock();
            let delivered = inner.all.get_mut(&self.name).expect("it is there");
            if let Err(Broken { invariant, detail }) = delivered.receive(place, id, pulled) {
                mail.findings.violated(invariant, format!("{}: {detail}", self.name));
            }
        }
        mail.sees(&one.topic, one.partition, found);
    }

    /// Does what it does with messages.
    async fn work(&mut self, held: Vec<Delivery>) {
        if self.is_calm() {
            return self.acknowledge(held).await;
        }
        if self.plan.work_ms > 0 {
            let work = Duration::from_millis(self.dice.range(0, self.plan.work_ms));
            tokio::time::sleep(work).await;
        }
        if self.dice.share(self.plan.forgets_percent) {
            return;
        }
        let (mut good, mut back) = (Vec::new(), Vec::new());
        for one in held {
            match self.dice.share(self.plan.nacks_percent) {
                true => back.push(one.token),
                false => good.push(one),
            }
        }
        self.acknowledge(good).await;
        if !back.is_empty() {
            let pause = self.plan.nack_delay_ms;
            let delay = (pause > 0).then(|| Duration::from_millis(self.dice.range(1, pause)));
            let verdict = Verdict::Nack { delay, dead_letter: false };
            let subscription = self.id.clone();
            let answer = self.ask(Request::Settle { subscription, tokens: back, verdict }).await;
            if let Some(Response::Settled { count, .. }) = answer {
                self.all.lock().counts.given_back += u64::from(count);
            }
        }
    }

    async fn acknowledge(&mut self, held: Vec<Delivery>) {
        if held.is_empty() {
            return;
        }
        let tokens = held.iter().map(|one| one.token).collect();
        let (subscription, verdict) = (self.id.clone(), Verdict::Ack);
        let answer = self.ask(Request::Settle { subscription, tokens, verdict }).await;
        let now_ms = self.all.now_ms();
        let is_unclear = matches!(answer, None | Some(Response::Unknown));
        let (at_ms, expired) = if let Some(Response::Settled { expired, .. }) = answer {
            (Some(now_ms), expired)
        } else if is_unclear {
            (None, Vec::new())
        } else {
            // Nothing was taken.
            return;
        };
        let (taken, of) = (at_ms.is_some(), held.len());
        self.all.mail.watch.client(&format!("{}: acknowledged {of}: {taken}", self.name));
        let mut inner = self.all.lock();
        let delivered = inner.all.get_mut(&self.name).expect("it is there");
        for one in held.iter().filter(|one| !expired.contains(&one.token)) {
            let Ok(Body::Message(Draft { envelope, .. })) = one.record.body() else { continue };
            let place = (one.topic.clone(), one.partition, one.record.header().offset);
            delivered.acknowledged(place, envelope.id.as_str(), at_ms);
        }
    }
}
