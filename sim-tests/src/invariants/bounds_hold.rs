//! BoundsHold: each machine keeps its own invariants and bounds, after every step.

use sprawl_core::machine::Machine;

use super::Findings;

/// Asks a machine after each of its steps.
pub(crate) struct BoundsHold;

impl BoundsHold {
    pub(crate) fn stepped<M: Machine>(machine: &M, findings: &Findings) {
        if let Err(broken) = machine.check() {
            findings.violated("BoundsHold", format!("{}: {}", broken.invariant, broken.detail));
        }
    }
}
