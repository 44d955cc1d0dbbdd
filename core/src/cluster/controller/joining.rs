//! Registrations, as the leader judges them: who may join, who may come back, who is a copy.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Controller;
use crate::cluster::message::{JoinRefused, Joined, MemberAddress};
use crate::cluster::metadata::{Change, Registration, Unfit, View};
use crate::ids::{Boot, ClusterId, DiskId};
use crate::machine::{ControlEffect, Now, Time};

/// How many registrations are under way at most.
pub const JOINS_MAX: usize = 1_000;
/// How long the answer to a registration is owed; then its node has asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Who is told what became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Asker {
    /// This node asked for itself.
    Me,
    /// The node, or whoever handed its question on, and the run of it that did.
    Other(DiskId, Boot),
}

/// What became of a registration.
#[derive(Debug)]
pub(in crate::cluster) enum Outcome {
    Joined(Joined),
    Refused(JoinRefused),
    /// Nothing: it cannot be judged now, and is to be asked again.
    Later,
}

#[derive(Debug)]
struct Join {
    said: Registration,
    asker: Asker,
    /// When to forget it.
    until: Time,
}

/// The registrations that were proposed and are not decided.
#[derive(Debug, Default)]
pub(super) struct Joins {
    waiting: BTreeMap<DiskId, Join>,
}

impl Joins {
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn forget(&mut self, now: Time) {
        self.waiting.retain(|_, join| join.until > now);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Controller {
    /// A run asks to be registered. The verdict, where it is known at once; else it comes from
    /// [`Controller::settled`].
    pub(in crate::cluster) fn join(
        &mut self,
        said: &Registration,
        cluster: Option<ClusterId>,
        asker: Asker,
        (view, now, time): (&View, Now, Option<u64>),
        effects: &mut Vec<ControlEffect>,
    ) -> Option<Outcome> {
        if let Some(joined) = already(view, said, time) {
            return Some(joined);
        }
        if let (Some(theirs), Some(ours)) = (cluster, view.cluster)
            && theirs != ours
        {
            return Some(Outcome::Refused(JoinRefused::OtherCluster(theirs, ours)));
        }
        // Nobody looks around for a node that is alone.
        self.joins.forget(now.since_start);
        let waits = self.joins.waiting.get(&said.disk);
        if waits.is_some_and(|join| join.said == *said) {
            return None;
        }
        // The first identity to register has the Raft id of the founder, so nobody else may be the
        // first; who asks is taken when it asks again.
        if view.nodes.is_empty() && !matches!(asker, Asker::Me) {
            return Some(Outcome::Later);
        }
        let unfit = view.unfit(said);
        let mut replaced = None;
        match unfit {
            None => {}
            Some(Unfit::Unfounded) => return Some(Outcome::Later),
            Some(Unfit::Name(other)) if !self.lives(other, now) => {
                replaced = view.nodes.get(&other).map(|node| (other, node.boot));
            }
            Some(unfit) => return refused(view, said, &unfit).map(Outcome::Refused),
        }
        if let Some(copied) = self.copied(view, said, now) {
            return Some(Outcome::Refused(copied));
        }
        if self.joins.waiting.len() >= JOINS_MAX {
            return Some(Outcome::Later);
        }
        let by = said.clone();
        let is_known = view.nodes.contains_key(&said.disk);
        let changes = match replaced {
            // It takes another one's name, and there is one node less.
            Some((disk, boot)) if is_known => {
                vec![Change::Retire { disk, boot }, Change::Register(by)]
            }
            Some((disk, boot)) => vec![Change::Replace { disk, boot, by }],
            None => vec![Change::Register(by)],
        };
        effects.extend(changes.into_iter().map(ControlEffect::Decide));
        let until = now.since_start + ANSWER_WAIT;
        self.joins.waiting.insert(said.disk, Join { said: said.clone(), asker, until });
        None
    }

    /// What a newer view has decided about those who wait.
    pub(in crate::cluster) fn settled(
        &mut self,
        view: &View,
        time: Option<u64>,
    ) -> Vec<(DiskId, Boot, Asker, Outcome)> {
        let mut settled = Vec::new();
        self.joins.waiting.retain(|disk, join| {
            let verdict = already(view, &join.said, time).or_else(|| {
                // A name that is still taken may be about to become free.
                let unfit = view.unfit(&join.said);
                let unfit = unfit.filter(|unfit| !matches!(unfit, Unfit::Name(_)));
                unfit.and_then(|unfit| refused(view, &join.said, &unfit)).map(Outcome::Refused)
            });
            match verdict {
                None => true,
                Some(verdict) => {
                    settled.push((*disk, join.said.boot, join.asker, verdict));
                    false
                }
            }
        });
        settled
    }

    /// Whether somebody else lives under this identity: the former run, at another address.
    fn copied(&self, view: &View, said: &Registration, now: Now) -> Option<JoinRefused> {
        let node = view.nodes.get(&said.disk)?;
        let lives = said.disk != self.me && self.lives(said.disk, now);
        (lives && node.address != said.address).then_some(JoinRefused::Copied(node.address))
    }

    fn lives(&self, disk: DiskId, now: Now) -> bool {
        disk == self.me || self.sessions.is_live(disk, now)
    }
}

/// What a run is told that has registered; whoever knows it may tell.
pub(in crate::cluster) fn already(
    view: &View,
    said: &Registration,
    time: Option<u64>,
) -> Option<Outcome> {
    is_registered(view, said).then(|| joined(view, said, time))
}

/// Whether the metadata know this very run.
pub(in crate::cluster) fn is_registered(view: &View, said: &Registration) -> bool {
    let node = view.nodes.get(&said.disk);
    node.is_some_and(|node| node.boot == said.boot && node.run == said.run)
}

fn joined(view: &View, said: &Registration, time: Option<u64>) -> Outcome {
    let address = |(disk, node): (&DiskId, &std::sync::Arc<crate::cluster::metadata::Node>)| {
        MemberAddress { node: node.id, disk: *disk, address: node.address }
    };
    Outcome::Joined(Joined {
        node: view.nodes[&said.disk].id,
        cluster: view.cluster.expect("nobody registers before the cluster is founded"),
        index: view.version,
        time,
        members: view.nodes.iter().map(address).collect(),
    })
}

/// What the node is told; nothing while the cluster is not founded.
fn refused(view: &View, said: &Registration, unfit: &Unfit) -> Option<JoinRefused> {
    Some(match unfit {
        Unfit::Unfounded => return None,
        Unfit::Retired => JoinRefused::Retired,
        Unfit::Boot(known) => JoinRefused::OldBoot { asked: said.boot, known: *known },
        Unfit::Name(other) => {
            JoinRefused::NameTaken(said.name.clone(), view.nodes.get(other)?.address)
        }
        Unfit::Full => JoinRefused::Full,
        Unfit::Level(level) => JoinRefused::Level(*level),
        Unfit::Range => JoinRefused::Range,
    })
}
