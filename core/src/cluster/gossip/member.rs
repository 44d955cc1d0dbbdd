//! One member as a node knows it: who it is, which run of it, how it is, and since when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

use crate::ids::{Boot, DiskId, NUMBER_MAX};
use crate::machine::{Now, Time, WallTime};

/// The longest name of a node that is told to others, in bytes.
pub const MEMBER_NAME_BYTES_MAX: usize = 255;
/// The longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// How many changes of a member's state are remembered.
pub const HISTORY_MAX: usize = 16;
/// Of how many measurements a response time is the mean, about.
const RESPONSES: u32 = 8;

/// Which word of a node about itself is newer: first its run, then how often it has spoken up in
/// that run. So a restart overrides all that was said about earlier runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The run.
    pub boot: Boot,
    /// Only the node itself raises it, when others say that it is not well.
    pub counter: u64,
}

impl Incarnation {
    /// Whether a node could have come to it.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        self.counter < NUMBER_MAX
    }
}

/// What a node says of itself, the same for a whole run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Description {
    /// Its name, for people.
    pub name: String,
    /// Where it hears gossip and peers.
    pub address: SocketAddr,
    /// Where it serves clients.
    pub http: SocketAddr,
    /// What it shares a fate with; empty where nobody says.
    pub zone: String,
    /// How much it takes, relative to the others.
    pub capacity: u64,
    /// The newest version of the protocol between nodes that it speaks.
    pub version: u16,
}

impl Description {
    /// Whether it keeps within the bounds.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.name.len() <= MEMBER_NAME_BYTES_MAX && self.zone.len() <= ZONE_BYTES_MAX
    }
}

/// How much a node has to do, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Load {
    /// How much of what it can do it does, in thousandths.
    pub busy_permille: u16,
    /// How many bytes of publishes wait in it.
    pub waiting_bytes: u64,
}

/// How a member is. Of two that are said of one incarnation, the later in this list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It answers, as far as is known.
    Healthy,
    /// It did not answer somebody, and may yet object.
    Suspect,
    /// It did not object in time.
    Failed,
    /// It said that it leaves.
    Left,
}

impl MemberState {
    /// Whether the member is counted among the live.
    #[must_use]
    pub fn is_live(self) -> bool {
        match self {
            Self::Healthy | Self::Suspect => true,
            Self::Failed | Self::Left => false,
        }
    }
}

/// A change of a member's state, as this node came to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The new state.
    pub state: MemberState,
    /// The incarnation that it was said of.
    pub incarnation: Incarnation,
    /// When, on this node's monotone clock.
    pub since: Time,
    /// When, for people.
    pub wall: WallTime,
}

/// A member as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its identity.
    pub disk: DiskId,
    /// What it says of itself.
    pub about: Arc<Description>,
    /// The run that said so; the description of a newer run may not have come yet.
    pub described: Boot,
    /// How it is, which incarnation of it, and since when.
    pub now: Transition,
    /// What it was before, oldest first.
    pub history: Arc<VecDeque<Transition>>,
    /// How long it takes to answer a probe, smoothed; none before the first answer.
    pub response: Option<Duration>,
    /// How much it had to do when it was last heard.
    pub load: Load,
}

impl Member {
    /// A member that was not known before.
    pub(super) fn new(
        disk: DiskId,
        about: Description,
        incarnation: Incarnation,
        now: Now,
    ) -> Self {
        let (state, since, wall) = (MemberState::Healthy, now.since_start, now.wall);
        Self {
            disk,
            about: Arc::new(about),
            described: incarnation.boot,
            now: Transition { state, incarnation, since, wall },
            history: Arc::default(),
            response: None,
            load: Load::default(),
        }
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> MemberState {
        self.now.state
    }

    /// The incarnation that its state was said of.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.now.incarnation
    }

    /// Takes a new state, and remembers the old one.
    pub(super) fn become_(&mut self, state: MemberState, incarnation: Incarnation, now: Now) {
        let history = Arc::make_mut(&mut self.history);
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(self.now);
        self.now = Transition { state, incarnation, since: now.since_start, wall: now.wall };
    }

    /// Takes a measured response time into the mean.
    pub(super) fn answered_after(&mut self, time: Duration) {
        self.response = Some(match self.response {
            None => time,
            Some(mean) => (mean * (RESPONSES - 1) + time) / RESPONSES,
        });
    }
}

/// Something that became of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberEvent {
    /// Whom it is about.
    pub member: DiskId,
    /// Which incarnation of it.
    pub incarnation: Incarnation,
    /// What happened.
    pub kind: MemberEventKind,
}

/// What can become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberEventKind {
    /// It was not known before.
    Joined,
    /// It runs anew.
    Restarted,
    /// It did not answer somebody.
    Suspected,
    /// It objected to a suspicion, or to a verdict.
    Refuted,
    /// It did not object in time.
    Failed,
    /// It said that it leaves.
    Left,
}
