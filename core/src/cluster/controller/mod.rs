//! The controller: what the node that leads the metadata decides, from sessions and registrations.
//!
//! It acts only while this node leads, has applied an entry of its term, and a majority of voters
//! has answered it within 600 ms: a leader that was cut off does not know who lives.

mod failover;
mod joining;
mod sessions;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use failover::{
    ASKED_MAX, BALANCE_AFTER, BALANCE_INTERVAL, COMPLAINTS_MAX, Failover, LOG_ENDS_WAIT,
    LOG_ENDS_WAIT_MAX, MOVES_MAX, REPLACE_AFTER, Remedy, SLOW_ELECTION_INTERVAL, SLOW_REST,
};
pub use joining::JOINS_MAX;
pub(super) use joining::{Asker, Outcome, already, is_registered};
pub use sessions::{LATENESS_MAX, SILENCE_MAX, STEADY_MIN};
pub use voters::{VOTERS_MAX, voters_wanted};

use self::joining::Joins;
use self::sessions::Sessions;
use self::voters::Peer;
use super::consensus::{RaftChange, RaftStatus};
use super::message::{ControlMessage, Heartbeat};
use super::metadata::{Change, FEATURE_LEVEL, Leaving, NODES_MAX, View};
use crate::ids::{Boot, ChangeIndex, DiskId, NodeId};
use crate::machine::{ControlEffect, Now, SessionStatus, Time, WallTime};
use crate::zoo::{Bug, planted};

/// How old a majority's answer may be for the controller to act.
pub const QUORUM_AGE_MAX: Duration = Duration::from_millis(600);
/// How often the controller looks at the sessions.
pub const TICK: Duration = Duration::from_millis(50);
/// For how long the first node that is due waits for others that fall silent with it, so that one
/// change names all: nodes that died together were last heard within one heartbeat's interval.
const GATHER: Duration = Duration::from_millis(200);
/// After what silence another node votes in the place of one.
pub const VOTER_LOST: Duration = Duration::from_secs(30);
/// How far behind the leader a learner may be to begin to vote, in entries.
const CATCH_UP_MAX: u64 = 100;
/// After what time what was decided and does not show is decided again.
const AGAIN: Duration = Duration::from_secs(1);
/// After what time a change of the Raft group that does not show is asked for again.
const RECONFIGURE_AGAIN: Duration = Duration::from_secs(5);

/// What was decided and does not show yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Decision {
    Fail(DiskId, Boot),
    Revive(DiskId, Boot),
    Retire(DiskId, Boot),
    Raise(u32),
}

/// The controller of this node, whether it leads or not: sessions are kept on every voter.
///
/// Invariants, checked by `check`: no more sessions, decisions under way and joins than there are
/// nodes to have them.
#[derive(Debug)]
pub(super) struct Controller {
    me: DiskId,
    status: RaftStatus,
    sessions: Sessions,
    joins: Joins,
    /// Whether heartbeats come here: this node votes.
    listens: bool,
    /// What was decided, and when to decide it again.
    decided: BTreeMap<Decision, Time>,
    /// Who leads partitions, and who holds them, when nodes fail.
    failover: Failover,
    /// A change of the Raft group that is under way, and when to ask for it again.
    reconfiguring: Option<(RaftStatus, Time)>,
}

impl Controller {
    pub(super) fn new(me: DiskId) -> Self {
        Self {
            me,
            status: RaftStatus::default(),
            sessions: Sessions::default(),
            joins: Joins::default(),
            listens: false,
            decided: BTreeMap::new(),
            failover: Failover::default(),
            reconfiguring: None,
        }
    }

    pub(super) fn failover(&mut self) -> &mut Failover {
        &mut self.failover
    }

    pub(super) fn status(&self) -> &RaftStatus {
        &self.status
    }

    /// Raft says how it stands.
    pub(super) fn raft(&mut self, status: RaftStatus, view: &View, now: Now) {
        let was_ready = self.status.is_leader_ready;
        let is_other_term = self.status.term != status.term;
        self.status = status;
        if !self.status.is_leader_ready || is_other_term || !was_ready {
            // What an earlier reign decided was agreed on or was lost.
            self.decided.clear();
            self.failover.clear();
            self.reconfiguring = None;
        }
        if !self.status.is_leader_ready {
            self.joins.clear();
        }
        self.listen(view, now);
    }

    /// Begins to keep sessions when this node becomes a voter, and ends with that.
    fn listen(&mut self, view: &View, now: Now) {
        let id = view.nodes.get(&self.me).map(|node| node.id);
        let votes = id.is_some_and(|id| self.status.voters.contains(&id));
        if votes && !self.listens {
            self.sessions.begin(view, now);
        }
        self.listens = votes;
    }

    /// The metadata have changed.
    pub(super) fn adopt(&mut self, view: &View, now: Now) {
        self.listen(view, now);
        self.sessions.meet(view, now);
    }

    /// This machine was woken so much too late.
    pub(super) fn was_late(&mut self, late: Duration, now: Now) {
        if late > LATENESS_MAX {
            self.sessions.set_back(late, now);
        }
    }

    /// A node lives.
    pub(super) fn hear(&mut self, from: (DiskId, Boot), beat: &Heartbeat, now: Now) -> bool {
        self.sessions.hear(from, beat.wall, beat.applied, now)
    }

    /// A run is about to end: it is not waited for until it is silent.
    pub(super) fn bid_farewell(&mut self, (disk, boot): (DiskId, Boot), now: Now) {
        if planted(Bug::FarewellUnheard) {
            return;
        }
        let is_known = self.sessions.end(disk, boot);
        let leads = self.status.is_leader_ready;
        if is_known && leads && self.once(Decision::Fail(disk, boot), now) {
            self.failover.fail([(disk, boot)]);
        }
    }

    /// Whether all others who are up have the metadata up to there.
    pub(super) fn others_have(&self, index: ChangeIndex, view: &View) -> bool {
        let is_up = |disk: &DiskId| view.nodes.get(disk).is_some_and(|node| node.down.is_none());
        let mut others = self.sessions.iter().filter(|(disk, _)| **disk != self.me && is_up(disk));
        others.all(|(_, session)| session.applied >= index)
    }

    /// Whether this node may decide for the cluster now.
    pub(super) fn acts(&self, view: &View, now: Now) -> bool {
        let me = view.nodes.get(&self.me).map(|node| node.id);
        // Heartbeats go to voters: a leader that has no vote any more hears nobody.
        let votes = me.is_none_or(|me| self.status.voters.contains(&me));
        let alone = self.status.voters.len() == 1;
        let acked = self.status.quorum_acked;
        let is_fresh = acked.is_some_and(|at| now.since_start.since(at) <= QUORUM_AGE_MAX);
        self.status.is_leader_ready && votes && (alone || is_fresh)
    }

    /// Looks at everything and decides what is due. `time` is cluster time.
    pub(super) fn decide(
        &mut self,
        view: &View,
        now: Now,
        time: WallTime,
        effects: &mut Vec<ControlEffect>,
    ) {
        self.decided.retain(|_, again| *again > now.since_start);
        self.joins.forget(now.since_start);
        if !self.acts(view, now) || !view.nodes.contains_key(&self.me) {
            return;
        }
        self.fail(view, now);
        self.fail_over(view, now, time, effects);
        self.revive(view, now, effects);
        self.retire(view, now, effects);
        self.raise(view, now, effects);
        self.reconfigure(view, now, effects);
    }

    /// Whether a decision is to be made now; it is noted as made.
    fn once(&mut self, decision: Decision, now: Now) -> bool {
        let is_new = !self.decided.contains_key(&decision);
        if is_new {
            self.decided.insert(decision, now.since_start + AGAIN);
        }
        is_new
    }

    /// Finds whoever has been silent for too long, to be declared failed all in one change.
    fn fail(&mut self, view: &View, now: Now) {
        let up = view.nodes.iter().filter(|(disk, node)| node.down.is_none() && **disk != self.me);
        let aged = up.filter_map(|(disk, node)| {
            let decision = Decision::Fail(*disk, node.boot);
            let age = self.sessions.age(*disk, now)?;
            (!self.decided.contains_key(&decision)).then_some((*disk, node.boot, age))
        });
        let silent: Vec<(DiskId, Boot, Duration)> =
            aged.filter(|(_, _, age)| *age >= SILENCE_MAX - GATHER).collect();
        let due: Vec<(DiskId, Boot)> = silent
            .iter()
            .filter(|(_, _, age)| *age >= SILENCE_MAX)
            .map(|(disk, boot, _)| (*disk, *boot))
            .collect();
        let oldest = silent.iter().map(|(_, _, age)| *age).max().unwrap_or_default();
        if due.is_empty() || due.len() < silent.len() && oldest < SILENCE_MAX + GATHER {
            return;
        }
        for &(disk, boot) in &due {
            self.once(Decision::Fail(disk, boot), now);
        }
        self.failover.fail(due);
    }

    /// Declares them failed, and decides what becomes of their partitions.
    fn fail_over(
        &mut self,
        view: &View,
        now: Now,
        time: WallTime,
        effects: &mut Vec<ControlEffect>,
    ) {
        let mut remedies = Vec::new();
        self.failover.decide(view, now.since_start, time, &mut remedies);
        let asker = self.me;
        effects.extend(remedies.into_iter().map(|remedy| match remedy {
            Remedy::Decide(change) => ControlEffect::Decide(change),
            Remedy::Ask { to, ask } if to == asker => ControlEffect::AskShards { asker, ask },
            Remedy::Ask { to, ask } => {
                ControlEffect::Send { to, run: None, message: ControlMessage::AskLogEnds(ask) }
            }
        }));
    }

    fn revive(&mut self, view: &View, now: Now, effects: &mut Vec<ControlEffect>) {
        let down = view.nodes.iter().filter(|(_, node)| node.down.is_some());
        let back = |(disk, boot): &(DiskId, Boot)| {
            let is_here = *disk == self.me && !self.sessions.has_ended(*disk);
            is_here || self.sessions.is_steady(*disk, *boot, now)
        };
        let mut nodes: Vec<(DiskId, Boot)> =
            down.map(|(disk, node)| (*disk, node.boot)).filter(back).collect();
        nodes.retain(|&(disk, boot)| self.once(Decision::Revive(disk, boot), now));
        if !nodes.is_empty() {
            effects.push(ControlEffect::Decide(Change::Revive { nodes }));
        }
    }

    /// Retires whoever is to leave and is missed no more: it does not vote, and holds nothing or
    /// need not.
    fn retire(&mut self, view: &View, now: Now, effects: &mut Vec<ControlEffect>) {
        for (&disk, node) in &view.nodes {
            let may_go = node.leaving.is_some_and(|how| match how {
                Leaving::Empty => view.partitions_held(disk) == 0,
                Leaving::AtOnce => true,
            });
            let votes = self.status.voters.contains(&node.id);
            if may_go && !votes && self.once(Decision::Retire(disk, node.boot), now) {
                effects.push(ControlEffect::Decide(Change::Retire { disk, boot: node.boot }));
            }
        }
    }

    fn raise(&mut self, view: &View, now: Now, effects: &mut Vec<ControlEffect>) {
        let common = view.nodes.values().map(|node| node.level).min().unwrap_or(0);
        let level = common.min(FEATURE_LEVEL);
        if level > view.level && self.once(Decision::Raise(level), now) {
            effects.push(ControlEffect::Decide(Change::Raise { level }));
        }
    }

    /// Brings the Raft group nearer to what it should be, by one step.
    fn reconfigure(&mut self, view: &View, now: Now, effects: &mut Vec<ControlEffect>) {
        if let Some((before, again)) = &self.reconfiguring {
            let same = before.voters == self.status.voters
                && before.learners.keys().eq(self.status.learners.keys());
            if same && *again > now.since_start {
                return;
            }
        }
        self.reconfiguring = None;
        if self.status.is_joint {
            return;
        }
        let change = self.admit(view).or_else(|| self.dismiss(view));
        let change = change.or_else(|| self.elect_voters(view, now).map(RaftChange::Voters));
        if let Some(change) = change {
            self.reconfiguring = Some((self.status.clone(), now.since_start + RECONFIGURE_AGAIN));
            effects.push(ControlEffect::Reconfigure(change));
        }
    }

    fn has(&self, id: NodeId) -> bool {
        self.status.voters.contains(&id) || self.status.learners.contains_key(&id)
    }

    /// A node that has registered and does not receive the log.
    fn admit(&self, view: &View) -> Option<RaftChange> {
        let (disk, node) = view.nodes.iter().find(|(_, node)| !self.has(node.id))?;
        Some(RaftChange::AddLearner { node: node.id, disk: *disk, address: node.address })
    }

    /// A learner that is no node of the cluster.
    fn dismiss(&self, view: &View) -> Option<RaftChange> {
        let is_node = |id: &NodeId| view.disk_of(*id).is_some_and(|d| view.nodes.contains_key(&d));
        let stranger = self.status.learners.keys().find(|id| !is_node(id));
        stranger.map(|id| RaftChange::Remove(*id))
    }

    fn elect_voters(&self, view: &View, now: Now) -> Option<BTreeSet<NodeId>> {
        let end = self.status.applied.0;
        let nodes = view.nodes.iter().map(|(disk, node)| {
            let is_me = *disk == self.me;
            let age = self.sessions.age(*disk, now).unwrap_or_default();
            let matched = self.status.learners.get(&node.id);
            Peer {
                id: node.id,
                zone: node.zone.clone(),
                is_live: is_me || self.sessions.is_live(*disk, now),
                is_lost: !is_me && age >= VOTER_LOST,
                is_gone: node.leaving.is_some(),
                is_caught_up: self.sessions.is_steady(*disk, node.boot, now)
                    && matched.is_some_and(|at| *at > 0 && at.saturating_add(CATCH_UP_MAX) >= end),
                votes: self.status.voters.contains(&node.id),
                leads: is_me,
            }
        });
        let retired = view.retired.values().filter(|old| self.status.voters.contains(&old.id));
        let retired: Vec<Peer> = retired
            .map(|old| Peer {
                id: old.id,
                zone: old.zone.clone(),
                is_live: false,
                is_lost: true,
                is_gone: true,
                is_caught_up: false,
                votes: true,
                leads: false,
            })
            .collect();
        // A replaced node counts until its successor has its vote: the number does not fall.
        let staying = view.nodes.values().filter(|node| node.leaving.is_none()).count();
        let counted = staying + retired.len();
        let peers: Vec<Peer> = nodes.chain(retired).collect();
        voters::next_voters(counted, &peers)
    }

    /// The sessions, for people.
    pub(super) fn shown(&self, now: Now) -> Vec<SessionStatus> {
        let sessions = self.sessions.iter().filter(|_| self.listens);
        let shown = sessions.map(|(disk, session)| SessionStatus {
            disk: *disk,
            boot: session.boot,
            silent: self.sessions.age(*disk, now).unwrap_or_default(),
            applied: session.applied,
            wall: session.wall,
        });
        shown.collect()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let bounds = [
            ("sessions", self.sessions.len(), NODES_MAX),
            ("decisions under way", self.decided.len(), 4 * NODES_MAX),
            ("joins under way", self.joins.len(), JOINS_MAX),
        ];
        match bounds.iter().find(|(_, len, max)| len > max) {
            Some((what, len, max)) => Err(format!("{len} {what}, the bound is {max}")),
            None => self.failover.check(),
        }
    }
}
