//! What simulation sees of a running machine. Production looks away at no cost.

use sprawl_core::machine::{Machine, Now};

/// Watches every step of a machine, before and after.
pub trait Trace<M: Machine>: Clone + Send + Sync + 'static {
    /// An input is about to be handled.
    fn input(&self, machine: &M, now: Now, input: &M::Input);

    /// It was handled; these are its effects, none performed yet.
    fn handled(&self, machine: &M, effects: &[M::Effect]);
}

/// Sees nothing.
#[derive(Clone, Copy, Debug)]
pub struct Untraced;

impl<M: Machine> Trace<M> for Untraced {
    #[inline]
    fn input(&self, _: &M, _: Now, _: &M::Input) {}
    #[inline]
    fn handled(&self, _: &M, _: &[M::Effect]) {}
}
