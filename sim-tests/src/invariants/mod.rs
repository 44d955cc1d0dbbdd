//! What must hold, one file each. Checkers observe: they change nothing that runs.
//!
//! A violation is noted, the first of each invariant, and the run goes on: so a run shows all that
//! a bug breaks.

mod bounds_hold;
mod commit_never_regresses;
mod content;
mod log;
mod messages;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use bounds_hold::BoundsHold;
pub(crate) use commit_never_regresses::CommitNeverRegresses;
pub(crate) use content::check_seen;
pub(crate) use log::Log;
pub(crate) use messages::{ReadBack, check_messages, check_published};

/// The invariants and what each says, for the docs and `--help`.
pub(crate) const ALL: &[(&str, &str)] = &[
    ("NothingAckedIsLost", "every acknowledged message is read back at its offset"),
    ("AckMeansDurable", "when a success leaves the node, its disk holds the message, synced"),
    ("EpochIndexNamesOneEntry", "an epoch and an index name one content, written anywhere, ever"),
    ("OffsetsDense", "the messages of a partition's log have the offsets 0, 1, 2, …"),
    ("NoDuplicateId", "a partition's log holds an id once"),
    ("AckBindsContent", "the entry at the acknowledged offset is the acknowledged message"),
    ("RefusedMeansAbsent", "a message whose every try was refused stands nowhere"),
    ("NoPhantom", "nobody reads a message that nobody published"),
    ("NoCorruptByteServed", "what is read is byte for byte what was published"),
    ("CommitNeverRegresses", "within a run of a process, a commit index does not fall"),
    ("AtLeastOnce", "every committed message comes to each subscription that is to have it"),
    ("SubscribedMeansFromHere", "what is published after the subscription's answer comes to it"),
    ("BoundsHold", "each machine keeps its own invariants and bounds, after every step"),
    ("NoPanic", "no machine and no driver panics"),
    ("WritableWithin", "after healing every partition takes a message again, within 15 s"),
    ("GroupsDrain", "after healing every subscription receives all that it is to, within 60 s"),
    ("EveryRequestResolves", "after healing each request is answered within 15 s"),
];

/// Whether the invariant is about progress rather than safety.
pub(crate) fn is_liveness(name: &str) -> bool {
    ["WritableWithin", "GroupsDrain", "EveryRequestResolves"].contains(&name)
}

/// What was found, and what checkers remember; shared by all that observe.
#[derive(Clone, Default)]
pub(crate) struct Findings {
    inner: Arc<Mutex<Noted>>,
}

/// What was found, and what checkers remember.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) violations: BTreeMap<&'static str, String>,
    pub(crate) log: Log,
}

impl Findings {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Noted> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a violation, if it is the first of its invariant.
    pub(crate) fn violated(&self, invariant: &'static str, detail: String) {
        self.lock().violations.entry(invariant).or_insert(detail);
    }

    /// The violations, those of the log among them.
    pub(crate) fn violations(&self) -> BTreeMap<&'static str, String> {
        let noted = self.lock();
        let mut all = noted.violations.clone();
        for (invariant, detail) in noted.log.violations() {
            all.entry(invariant).or_insert_with(|| detail.clone());
        }
        all
    }
}
