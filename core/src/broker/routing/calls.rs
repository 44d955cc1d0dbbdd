//! What nodes ask one another for their clients, and what they answer.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::dht::Route;
use crate::ids::{Epoch, PartitionId, TopicName};
use crate::machine::{Request, Response};
use crate::zoo::{Bug, planted};

/// How often a request is handed from node to node at most: its time to live in hops.
pub const HOPS_MAX: u8 = 3;
/// How many partitions one request may be about, and how many routes one answer tells.
pub const ROUTES_TOLD_MAX: usize = 10_000;

/// What a node asks of another one.
#[derive(Clone, Debug, Hash)]
pub struct Ask {
    /// How often it was handed on.
    pub hops: Hops,
    /// For how long whoever asks waits for the answer, counted from the arrival.
    pub lasts: Duration,
    /// The partitions that it is about, ascending, and the reigns in which whoever asks believes
    /// the asked one to lead them; none for what names no partition.
    pub believed: Vec<(PartitionId, Epoch)>,
    /// The request.
    pub request: Arc<Request>,
}

/// What a node answers another one.
#[derive(Clone, Debug, Hash)]
pub struct Answer {
    /// Who leads partitions that the asked one does not lead, or not in the reign that was named.
    pub routes: Vec<Told>,
    /// What became of the request.
    pub response: Response,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { routes: Vec::new(), response }
    }
}

/// A route with the name and number of its partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Told {
    /// The topic.
    pub topic: TopicName,
    /// The number of the partition within the topic.
    pub number: u32,
    /// Who leads it, as of which reign.
    pub route: Route,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallFailed {
    /// It certainly did not arrive, and will not.
    NotDelivered,
    /// It may have arrived, and may have had its effect.
    Unknown,
}

/// How often a request may be handed on, and how often it was.
///
/// HopBound: what is left and what was taken are [`HOPS_MAX`] together, wherever a request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hops {
    /// How often it may still be.
    pub left: u8,
    /// How often it was.
    pub taken: u8,
}

impl Hops {
    /// A client's request, at the node that it came to.
    pub const NONE: Self = Self { left: HOPS_MAX, taken: 0 };

    /// After one more; `None` when there was none left.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let counted = self.taken == 0 || !planted(Bug::HopsCountedAtTheOriginOnly);
        let left = self.left.checked_sub(1)?;
        let left = if counted { left } else { self.left };
        Some(Self { left, taken: self.taken.saturating_add(1) })
    }

    /// Whether each was counted.
    #[must_use]
    pub fn hold(self) -> bool {
        u16::from(self.left) + u16::from(self.taken) == u16::from(HOPS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_come_to_an_end() {
        let all: Vec<Hops> = std::iter::successors(Some(Hops::NONE), |hops| hops.next()).collect();
        assert_eq!(all.len(), usize::from(HOPS_MAX) + 1);
        assert!(all.iter().all(|hops| hops.hold()), "{all:?}");
    }
}
