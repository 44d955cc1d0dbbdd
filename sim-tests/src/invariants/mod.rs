//! What must hold, one file each. Checkers observe: they change nothing that runs.
//!
//! A violation is noted, the first of each invariant, and the run goes on: so a run shows all that
//! a bug breaks.

mod at_least_once;
mod bounds_hold;
mod commit_never_regresses;
mod content;
mod dead_letters;
mod key_order;
mod light_load;
mod log;
mod max_deliveries;
mod messages;
mod no_expired_delivery;
mod not_before_delay;
mod nothing_unexpired_deleted;
mod number_stands_once;
mod only_wanted;
mod polls;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use at_least_once::check_subscriptions;
pub(crate) use bounds_hold::BoundsHold;
pub(crate) use commit_never_regresses::CommitNeverRegresses;
pub(crate) use content::check_seen;
pub(crate) use dead_letters::{Buried, DeadLetter, check_letter};
pub(crate) use key_order::{PullsUnderWay, check_order};
pub(crate) use light_load::{Tried, check_served};
pub(crate) use log::Log;
pub(crate) use max_deliveries::check_count;
pub(crate) use messages::{ReadBack, check_messages, check_published};
pub(crate) use no_expired_delivery::check_alive;
pub(crate) use not_before_delay::check_due;
pub(crate) use nothing_unexpired_deleted::check_removals;
pub(crate) use number_stands_once::check_numbers;
pub(crate) use only_wanted::check_wanted;
pub(crate) use polls::{Page, check_page, check_skipped, check_sought};

use crate::story::{Kind, Lane, Story};

/// Whether the invariant is about progress rather than safety.
pub(crate) fn is_liveness(name: &str) -> bool {
    [
        "WritableWithin",
        "GroupsDrain",
        "EveryRequestResolves",
        "ChangeKnownWithin",
        "FailureDetectedWithin",
        "LeaderWithin",
        "Converges",
        "ProposalsAgreed",
        "NoOscillation",
        "GoodputReturns",
        "ServesOnWithin",
        "ServesAgainWithin",
        "CopiesAreMade",
        "CopiesAreSpread",
    ]
    .contains(&name)
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
    story: Story,
}

impl Findings {
    /// Those that are told.
    pub(crate) fn telling(story: Story) -> Self {
        let findings = Self::default();
        let mut noted = findings.lock();
        (noted.log, noted.story) = (Log::telling(story.clone()), story);
        drop(noted);
        findings
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Noted> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a violation, if it is the first of its invariant.
    pub(crate) fn violated(&self, invariant: &'static str, detail: String) {
        let Noted { violations, story, .. } = &mut *self.lock();
        note(violations, story, invariant, detail);
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

/// Notes a violation, if it is the first of its invariant, and tells it.
fn note(
    violations: &mut BTreeMap<&'static str, String>,
    story: &Story,
    invariant: &'static str,
    detail: String,
) {
    if let Entry::Vacant(place) = violations.entry(invariant) {
        story.happens(Lane::World, Kind::Violation, None, || format!("{invariant}: {detail}"));
        place.insert(detail);
    }
}
