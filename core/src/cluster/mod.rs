//! Who there is and what they agree on: the control plane.

pub mod control;
pub mod metadata;

pub use control::Control;
