//! What the simulator sees of the machines: each input and effect, with payload, goes into one
//! chain hash, and past the checkers.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprawl_core::broker::Shard;
use sprawl_core::broker::replica::{Draft, Submission};
use sprawl_core::cluster::Control;
use sprawl_core::cluster::gossip::Gossip;
use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{RequestId, ShardId, TopicName};
use sprawl_core::machine::{
    ControlEffect, ControlInput, GossipEffect, GossipInput, Now, Request, Response, ShardEffect,
    ShardInput,
};
use sprawl_io::trace::{Trace, TraceRaft};

use crate::chronicle::{Chronicle, elapsed};
use crate::coverage::{Coverage, Phase, Reached};
use crate::invariants::{BoundsHold, CommitNeverRegresses, Findings, PullsUnderWay};
use crate::story::{self, Kind, Lane, Story};
use crate::world::Watch;

/// The only node.
const NODE: Lane = Lane::Machine(0);

/// Watches the machines of a run.
#[derive(Clone)]
pub(crate) struct SimTrace {
    inner: Arc<Mutex<Watched>>,
}

struct Watched {
    chronicle: Chronicle,
    story: Story,
    coverage: Coverage,
    findings: Findings,
    commits: CommitNeverRegresses,
    view: Arc<View>,
    /// Publishes that wait for their answers, by the shard at whose door they came.
    publishes: BTreeMap<(ShardId, RequestId), (TopicName, Draft)>,
    pulls: PullsUnderWay,
    /// Turns one byte of one payload over in the hash: a run that is different on purpose.
    tamper: bool,
}

impl SimTrace {
    pub(crate) fn new(findings: Findings, Watch { log, story, ticks, tamper }: Watch) -> Self {
        let watched = Watched {
            chronicle: Chronicle::new(log, ticks),
            story,
            coverage: Coverage::default(),
            findings,
            commits: CommitNeverRegresses::default(),
            view: Arc::default(),
            publishes: BTreeMap::new(),
            pulls: PullsUnderWay::default(),
            tamper,
        };
        Self { inner: Arc::new(Mutex::new(watched)) }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a payload byte is to be changed on purpose; true once.
    pub(crate) fn take_tamper(&self) -> bool {
        std::mem::take(&mut self.lock().tamper)
    }

    /// Something that the world did: it is hashed, and printed in a short log.
    pub(crate) fn world(&self, event: &str) {
        let mut watched = self.lock();
        watched.chronicle.event(event);
        if watched.chronicle.is_short() {
            watched.chronicle.print("world", event);
        }
        watched.story.happens(Lane::World, Kind::Fault, None, || event.to_owned());
    }

    /// A fault of a class strikes.
    pub(crate) fn strikes(&self, class: &'static str) {
        self.lock().coverage.strikes(class, elapsed());
    }

    /// What faults have met.
    pub(crate) fn reached(&self) -> Reached {
        self.lock().coverage.reached()
    }

    /// The newest view that control has shown.
    pub(crate) fn view(&self) -> Arc<View> {
        self.lock().view.clone()
    }

    /// Something that a client saw: it is hashed.
    pub(crate) fn client(&self, event: &impl Hash) {
        self.lock().chronicle.event(event);
    }

    /// A process starts: what the former one had under way is gone.
    pub(crate) fn started(&self) {
        let mut watched = self.lock();
        watched.story.happens(NODE, Kind::Process, None, || "starts".to_owned());
        watched.coverage.passes(Phase::Start, elapsed());
        watched.commits.restarted();
        watched.publishes.clear();
        watched.pulls.restarted();
    }

    /// How often a pull of a subscription came to the node while it worked on another.
    pub(crate) fn overlaps(&self, subscription: &str) -> u64 {
        self.lock().pulls.overlaps(subscription)
    }

    /// A pull that has had no answer for so long, if there is one.
    pub(crate) fn stuck(&self, age: Duration) -> Option<String> {
        self.lock().pulls.stuck(elapsed().saturating_sub(age))
    }

    /// The chain hash so far, and over how many events.
    pub(crate) fn chain(&self) -> (u64, u64) {
        self.lock().chronicle.sum()
    }
}

impl Watched {
    /// Remembers what a client asks of a shard.
    fn asked(&mut self, id: (ShardId, RequestId), request: &Request) {
        match request {
            Request::Publish(Submission { topic, draft, .. }) => {
                self.publishes.insert(id, (topic.clone(), draft.clone()));
            }
            Request::Pull { subscription, .. } => {
                self.pulls.began(id, subscription.as_str(), elapsed());
            }
            Request::PublishBatch(..)
            | Request::Fetch { .. }
            | Request::Trim { .. }
            | Request::Settle { .. }
            | Request::Await { .. }
            | Request::Describe => {}
        }
    }

    /// Looks at a shard's answers before they leave.
    fn answers(&mut self, shard: ShardId, effects: &[ShardEffect]) {
        for effect in effects {
            let ShardEffect::Reply { id, response } = effect else {
                continue;
            };
            self.pulls.ended((shard, *id));
            let Some((topic, message)) = self.publishes.remove(&(shard, *id)) else {
                continue;
            };
            if let Response::Published { partition, offset, .. } = response
                && let Some(found) = self.view.partition_number(&topic, *partition)
            {
                let log = &mut self.findings.lock().log;
                log.acknowledged(found.id, *offset, &message);
            }
        }
    }
}

impl TraceRaft for SimTrace {}

impl Trace<Shard> for SimTrace {
    fn input(&self, shard: &Shard, now: Now, input: &ShardInput) {
        let mut watched = self.lock();
        watched.chronicle.event((shard.id(), now, input));
        if let ShardInput::Requested { id, request } = input {
            watched.asked((shard.id(), *id), request);
        }
        if let Some(phase) = Phase::of_input(input) {
            watched.coverage.passes(phase, elapsed());
        }
        story::shard_takes(&watched.story, NODE, input);
        if watched.chronicle.is_full() {
            watched.chronicle.print(&format!("shard {}", shard.id().0), &format!("<- {input:?}"));
        }
    }

    fn handled(&self, shard: &Shard, effects: &[ShardEffect]) {
        let mut watched = self.lock();
        watched.chronicle.event(effects);
        watched.answers(shard.id(), effects);
        let Watched { coverage, view, .. } = &mut *watched;
        for effect in effects {
            Phase::of_effect(effect, view, |phase| coverage.passes(phase, elapsed()));
        }
        story::shard_does(&watched.story, NODE, effects);
        let findings = watched.findings.clone();
        watched.commits.stepped(&shard.status(), &findings);
        BoundsHold::stepped(shard, &watched.findings);
        if watched.chronicle.is_full() {
            for effect in effects {
                watched
                    .chronicle
                    .print(&format!("shard {}", shard.id().0), &format!("-> {effect:?}"));
            }
        }
    }
}

impl Trace<Gossip> for SimTrace {
    fn input(&self, _: &Gossip, now: Now, input: &GossipInput) {
        self.lock().chronicle.event((now, input));
    }

    fn handled(&self, gossip: &Gossip, effects: &[GossipEffect]) {
        let mut watched = self.lock();
        watched.chronicle.event(effects);
        BoundsHold::stepped(gossip, &watched.findings);
    }
}

impl Trace<Control> for SimTrace {
    fn input(&self, _: &Control, now: Now, input: &ControlInput) {
        let mut watched = self.lock();
        watched.chronicle.event((now, input));
        if watched.chronicle.is_short() {
            watched.chronicle.print("control", &format!("<- {input:?}"));
        }
    }

    fn handled(&self, control: &Control, effects: &[ControlEffect]) {
        let mut watched = self.lock();
        watched.chronicle.event(effects);
        for effect in effects {
            if let ControlEffect::Show(view) = effect {
                BoundsHold::shown(view, &watched.findings);
                watched.view = view.clone();
            }
        }
        BoundsHold::stepped(control, &watched.findings);
    }
}
