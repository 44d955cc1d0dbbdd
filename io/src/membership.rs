//! Who lives, as gossip shows it to whoever serves clients.

use std::collections::VecDeque;
use std::sync::Arc;

use sprawl_core::cluster::gossip::{GossipCounters, MemberEvent, Members};
use sprawl_core::machine::WallTime;

/// How many events are remembered.
pub const EVENTS_MAX: usize = 256;

/// The members at one moment, and how it came to that. Measured figures (response times, loads,
/// counters) are as of the last change or a few seconds old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The members.
    pub members: Arc<Members>,
    /// What became of members, oldest first, at most [`EVENTS_MAX`], each with the time on this
    /// node's wall clock at which it came to know it.
    pub events: Arc<VecDeque<(WallTime, MemberEvent)>>,
    /// What the gossip has counted since the start.
    pub counters: GossipCounters,
    /// How many steps slower than a healthy node this one probes.
    pub slowness: u32,
}

impl Membership {
    /// Before gossip has said anything.
    pub(crate) fn nobody(members: Members) -> Self {
        Self {
            members: Arc::new(members),
            events: Arc::default(),
            counters: GossipCounters::default(),
            slowness: 0,
        }
    }
}
