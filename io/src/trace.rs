//! What simulation sees of a running node. Production looks away at no cost.

use std::fmt;
use std::sync::Arc;

use sprawl_core::cluster::raft::RaftEvent;
use sprawl_core::ids::NodeId;
use sprawl_core::machine::{Machine, Now};

/// Watches every step of a machine, before and after.
pub trait Trace<M: Machine>: Clone + Send + Sync + 'static {
    /// An input is about to be handled.
    fn input(&self, machine: &M, now: Now, input: &M::Input);

    /// It was handled; these are its effects, none performed yet.
    fn handled(&self, machine: &M, effects: &[M::Effect]);
}

/// Watches the node's member of the metadata's group.
pub trait TraceRaft {
    /// Who is told what the member stores and applies; nobody, where nobody asks.
    fn raft(&self) -> Observer {
        Observer::default()
    }
}

/// Who is told what the node's member of the metadata's group stores and applies.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(NodeId, RaftEvent) + Send + Sync>>);

impl Observer {
    /// One that is told what which member does, when it does it.
    pub fn new(tell: impl Fn(NodeId, RaftEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_somebody(&self) -> bool {
        self.0.is_some()
    }

    /// Tells that a member did something, if anybody wants to know.
    pub(crate) fn tell(&self, member: NodeId, event: impl FnOnce() -> RaftEvent) {
        if let Some(tell) = &self.0 {
            tell(member, event());
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer(somebody)" } else { "Observer(nobody)" })
    }
}

/// Sees nothing.
#[derive(Clone, Copy, Debug)]
pub struct Untraced;

impl TraceRaft for Untraced {}

impl<M: Machine> Trace<M> for Untraced {
    #[inline]
    fn input(&self, _: &M, _: Now, _: &M::Input) {}
    #[inline]
    fn handled(&self, _: &M, _: &[M::Effect]) {}
}
