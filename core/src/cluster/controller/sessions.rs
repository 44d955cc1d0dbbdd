//! Who is heard: the ages by which a node is declared failed, at the controller itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::metadata::View;
use crate::ids::{Boot, ChangeIndex, DiskId};
use crate::machine::{Now, Time, WallTime};
use crate::zoo::{Bug, planted};

/// How long a node is silent when it counts as failed.
pub const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// How late this machine may be woken without doubting what it has not heard.
pub const LATENESS_MAX: Duration = Duration::from_millis(300);
/// For how long a node that was down must be heard before it counts as back.
pub const STEADY_MIN: Duration = Duration::from_secs(1);
/// How old its last word may be then: a leader that was just elected may have heard the last words
/// of a dead node later than the leader that declared it failed.
const FRESH_MAX: Duration = Duration::from_millis(600);

/// One node, as its heartbeats show it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The run that is registered.
    pub(super) boot: Boot,
    /// When it was last heard; at first, when it became known.
    heard: Time,
    /// Since when it has been heard without a silence; `None` when never.
    since: Option<Time>,
    /// How far it has applied the metadata.
    pub(super) applied: ChangeIndex,
    /// What its wall clock showed, and when, by the monotone clock of this node.
    pub(super) wall: Option<(WallTime, Time)>,
    /// Whether it said that it is about to end.
    ends: bool,
}

/// The sessions of all nodes.
///
/// Bounded by the nodes of the metadata: nobody else has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<DiskId, Session>,
}

/// The clock by which silence is measured: monotone, so that no clock on a wall makes nodes fail.
pub(super) fn clock(now: Now) -> Time {
    if planted(Bug::SessionsByTheWallClock) {
        return Time(now.wall.0.saturating_mul(1_000));
    }
    now.since_start
}

impl Sessions {
    /// The metadata name these nodes: newcomers are silent from now on, not since ever.
    pub(super) fn meet(&mut self, view: &View, now: Now) {
        self.sessions.retain(|disk, _| view.nodes.contains_key(disk));
        for (disk, node) in &view.nodes {
            let known = self.sessions.get(disk);
            if known.is_none_or(|session| session.boot < node.boot) {
                let (boot, heard, since) = (node.boot, clock(now), None);
                let (applied, wall, ends) = (ChangeIndex::default(), None, false);
                let session = Session { boot, heard, since, applied, wall, ends };
                self.sessions.insert(*disk, session);
            }
        }
    }

    /// From now on this node is one of those to whom heartbeats go: what was silent before was
    /// silent to others.
    pub(super) fn begin(&mut self, view: &View, now: Now) {
        self.sessions.clear();
        self.meet(view, now);
    }

    /// This machine was woken so much too late: what it did not hear may be waiting.
    pub(super) fn set_back(&mut self, late: Duration, now: Now) {
        for session in self.sessions.values_mut() {
            session.heard = (session.heard + late).min(clock(now)).max(session.heard);
        }
    }

    /// A heartbeat. Only the registered run counts: one that is not may be a copy's.
    pub(super) fn hear(
        &mut self,
        (disk, boot): (DiskId, Boot),
        wall: WallTime,
        applied: ChangeIndex,
        now: Now,
    ) -> bool {
        let at = clock(now);
        let Some(session) = self.sessions.get_mut(&disk).filter(|held| held.boot == boot) else {
            return false;
        };
        let broken = at.since(session.heard) >= SILENCE_MAX;
        let since = session.since.filter(|_| !broken).unwrap_or(at);
        let wall = Some((wall, now.since_start));
        let ends = session.ends;
        *session = Session { boot, heard: at, since: Some(since), applied, wall, ends };
        true
    }

    /// A run says that it is about to end; `false` for one that is not the registered one.
    pub(super) fn end(&mut self, disk: DiskId, boot: Boot) -> bool {
        let session = self.sessions.get_mut(&disk).filter(|session| session.boot == boot);
        session.map(|session| session.ends = true).is_some()
    }

    /// Whether a node's run has said that it is about to end.
    pub(super) fn has_ended(&self, disk: DiskId) -> bool {
        self.sessions.get(&disk).is_some_and(|session| session.ends)
    }

    /// For how long a node has been silent; `None` for one that the metadata do not name.
    pub(super) fn age(&self, disk: DiskId, now: Now) -> Option<Duration> {
        self.sessions.get(&disk).map(|session| clock(now).since(session.heard))
    }

    /// Whether a node has a session.
    pub(super) fn is_live(&self, disk: DiskId, now: Now) -> bool {
        self.age(disk, now).is_some_and(|age| age < SILENCE_MAX)
    }

    /// Whether this run has been heard for a while without a silence, and is now.
    pub(super) fn is_steady(&self, disk: DiskId, boot: Boot, now: Now) -> bool {
        let session = self.sessions.get(&disk).filter(|session| session.boot == boot);
        let session = session.filter(|session| !session.ends);
        // One that is heard once, or in bursts with silence between them, is not.
        let heard = session.and_then(|session| Some(session.heard.since(session.since?)));
        let is_fresh = self.age(disk, now).is_some_and(|age| age < FRESH_MAX);
        is_fresh && heard.is_some_and(|span| span >= STEADY_MIN)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DiskId, &Session)> {
        self.sessions.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}
