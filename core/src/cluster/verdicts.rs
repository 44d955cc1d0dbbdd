//! What gossip says of nodes: it steers whom to ask, and declares nobody failed.

use std::collections::BTreeMap;

use crate::ids::DiskId;

/// What gossip says of a node. It steers whom to ask, and declares nobody failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It answers.
    Live,
    /// It does not, and may be slow.
    Suspect,
    /// It does not.
    Failed,
}

/// What gossip says of the nodes that it knows; at most `NODES_MAX` of them are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdicts(pub BTreeMap<DiskId, Verdict>);
