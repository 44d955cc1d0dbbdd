//! What cannot be met, or so seldom that no sweep waits for it, each with the reason.

use super::Phase;

/// A class of faults, a phase, and why the one does not meet the other. No class stands for all.
const EXCUSES: [(Option<&str>, Phase, &str); 0] = [];

/// Why a fault of a class need not meet a phase, if there is a reason.
pub(crate) fn excuse(class: &str, phase: Phase) -> Option<&'static str> {
    let about = |of: &&(Option<&str>, Phase, &'static str)| {
        of.1 == phase && of.0.is_none_or(|name| name == class)
    };
    EXCUSES.iter().find(about).map(|(_, _, why)| *why)
}
