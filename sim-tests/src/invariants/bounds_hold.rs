//! BoundsHold: each machine keeps its own invariants and bounds, after every step; and each version
//! of the metadata, when it is first shown.

use sprawl_core::cluster::metadata::View;
use sprawl_core::machine::Machine;

use super::Findings;

/// Asks a machine after each of its steps.
pub(crate) struct BoundsHold;

impl BoundsHold {
    pub(crate) fn stepped<M: Machine>(machine: &M, findings: &Findings) {
        if let Err(broken) = machine.check() {
            let of_hops = broken.invariant == "HopBound";
            let invariant = if of_hops { "HopBound" } else { "BoundsHold" };
            findings.violated(invariant, format!("{}: {}", broken.invariant, broken.detail));
        }
    }

    /// Asks a version of the metadata. It takes time that grows with all topics, and nodes that
    /// show the same version are compared.
    pub(crate) fn shown(view: &View, findings: &Findings) {
        if let Err(broken) = view.check() {
            findings.violated("BoundsHold", format!("view {}: {broken}", view.version));
        }
    }
}
