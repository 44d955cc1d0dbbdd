//! Which node serves a request: a partition is served by its leader, and what concerns several
//! partitions by one node that leads all of them.

use core::net::SocketAddr;
use std::sync::Arc;

use super::{Partition, View};
use crate::ids::DiskId;
use crate::machine::Refused;

/// Which node leads some partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// The one that asks.
    Here,
    /// Another one, and all of them.
    There {
        /// What people call it.
        node: String,
        /// Where clients reach it.
        http: SocketAddr,
    },
    /// Not one node all of them.
    Spread,
}

impl View {
    /// Where these partitions are led, as seen from the node `me`.
    pub fn whereabouts<'a>(
        &self,
        me: DiskId,
        partitions: impl IntoIterator<Item = &'a Arc<Partition>>,
    ) -> Whereabouts {
        if self.nodes.len() <= 1 {
            return Whereabouts::Here;
        }
        let mut leaders = partitions.into_iter().map(|partition| partition.leader);
        let Some(first) = leaders.next() else {
            return Whereabouts::Here;
        };
        if leaders.any(|leader| leader != first) {
            return Whereabouts::Spread;
        }
        match self.nodes.get(&first).filter(|_| first != me) {
            Some(node) => Whereabouts::There { node: node.name.clone(), http: node.http },
            None => Whereabouts::Here,
        }
    }
}

impl Whereabouts {
    /// Why the node that asks does not serve it; `None` where it does.
    #[must_use]
    pub fn refused(self) -> Option<Refused> {
        match self {
            Self::Here => None,
            Self::There { node, http } => Some(Refused::Elsewhere { node, http }),
            Self::Spread => Some(Refused::Spread),
        }
    }
}
