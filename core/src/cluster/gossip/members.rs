//! The members as whoever asks is shown them: immutable, and what of them to keep for a restart.

use core::net::SocketAddr;

use super::member::{Member, MemberState};
use crate::ids::{ClusterId, DiskId};
use crate::wire::{self, BadFrame};

/// How many addresses are kept for the next start.
pub const CONTACTS_MAX: usize = 64;

/// All members that a node knows, itself among them, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Members {
    /// The node that knows them.
    pub own: DiskId,
    /// The cluster that it belongs to or has heard of first.
    pub cluster: Option<ClusterId>,
    /// Ascending by identity.
    pub all: Vec<Member>,
}

impl Members {
    /// The member of this identity.
    #[must_use]
    pub fn find(&self, disk: DiskId) -> Option<&Member> {
        let at = self.all.binary_search_by_key(&disk, |member| member.disk).ok()?;
        Some(&self.all[at])
    }

    /// How many are in this state.
    #[must_use]
    pub fn count(&self, state: MemberState) -> usize {
        self.all.iter().filter(|member| member.state() == state).count()
    }

    /// Where to look for the cluster after a restart, in stored form: up to [`CONTACTS_MAX`]
    /// addresses of others, the live ones first.
    #[must_use]
    pub fn contacts(&self) -> Vec<u8> {
        let others = || self.all.iter().filter(|member| member.disk != self.own);
        let live = others().filter(|member| member.state().is_live());
        let rest = others().filter(|member| member.state() == MemberState::Failed);
        let all = live.chain(rest).map(|member| member.about.address);
        wire::encode(&all.take(CONTACTS_MAX).collect::<Vec<_>>())
    }
}

/// Reads what [`Members::contacts`] gave.
///
/// # Errors
///
/// [`BadFrame`] when it is something else; the node then has its seeds only.
pub fn read_contacts(stored: &[u8]) -> Result<Vec<SocketAddr>, BadFrame> {
    let mut all: Vec<SocketAddr> = wire::decode(stored)?;
    all.truncate(CONTACTS_MAX);
    Ok(all)
}
