//! A piece of news about a member, as nodes tell it one another.

use serde::{Deserialize, Serialize};

use super::member::{Description, Incarnation, Member, MemberState};
use crate::ids::DiskId;

/// How many accusers of a suspect are named: the first, and those whose confirmation counts.
pub(super) const ACCUSERS_MAX: usize = 4;
/// The bytes of news that every piece has, at most: identity, boot, counter, verdict, whether a
/// description follows.
const FIXED_BYTES_MAX: usize = 17 + 9 + 9 + 1 + 1;
/// The bytes of a description but for its texts, at most: addresses, capacity, version, lengths.
const ABOUT_BYTES_MAX: usize = 2 * 20 + 9 + 3 + 2 * 3;
/// The bytes of an accuser, at most.
const ACCUSER_BYTES_MAX: usize = 17;

/// How somebody says that a member is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// It answers.
    Healthy,
    /// These could not reach it.
    Suspect(Vec<DiskId>),
    /// It did not object in time.
    Failed,
    /// It leaves.
    Left,
}

impl Verdict {
    /// The state that it leads to.
    pub(super) fn state(&self) -> MemberState {
        match self {
            Self::Healthy => MemberState::Healthy,
            Self::Suspect(_) => MemberState::Suspect,
            Self::Failed => MemberState::Failed,
            Self::Left => MemberState::Left,
        }
    }
}

/// What is told about a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct News {
    /// Whom it is about.
    pub disk: DiskId,
    /// Which incarnation of it.
    pub incarnation: Incarnation,
    /// How it is.
    pub verdict: Verdict,
    /// What it says of itself, in the run that `incarnation` names; said with good news.
    pub about: Option<Description>,
}

impl News {
    /// What is known of a member; its accusers, if it is suspect, are handed in.
    pub(super) fn of(member: &Member, accusers: &[DiskId]) -> Self {
        let verdict = match member.state() {
            MemberState::Healthy => Verdict::Healthy,
            MemberState::Suspect => Verdict::Suspect(accusers.to_vec()),
            MemberState::Failed => Verdict::Failed,
            MemberState::Left => Verdict::Left,
        };
        let incarnation = member.incarnation();
        let current = member.described == incarnation.boot;
        let about = (current && member.state() == MemberState::Healthy)
            .then(|| Description::clone(&member.about));
        Self { disk: member.disk, incarnation, verdict, about }
    }

    /// The same with the member's description, for somebody who may not know it at all.
    pub(super) fn in_full(member: &Member, accusers: &[DiskId]) -> Self {
        let current = member.described == member.incarnation().boot;
        let about = current.then(|| Description::clone(&member.about));
        Self { about, ..Self::of(member, accusers) }
    }

    /// How many bytes it takes in a datagram, at most.
    pub(super) fn bytes_max(&self) -> usize {
        let about = self
            .about
            .as_ref()
            .map_or(0, |about| ABOUT_BYTES_MAX + about.name.len() + about.zone.len());
        let accusers = match &self.verdict {
            Verdict::Suspect(by) => 1 + by.len() * ACCUSER_BYTES_MAX,
            Verdict::Healthy | Verdict::Failed | Verdict::Left => 0,
        };
        FIXED_BYTES_MAX + about + accusers
    }

    /// Whether a node could have said it.
    pub(super) fn is_plausible(&self) -> bool {
        let few = match &self.verdict {
            Verdict::Suspect(by) => by.len() <= ACCUSERS_MAX,
            Verdict::Healthy | Verdict::Failed | Verdict::Left => true,
        };
        let about = self.about.as_ref().is_none_or(Description::is_plausible);
        few && about && self.incarnation.is_plausible()
    }
}
