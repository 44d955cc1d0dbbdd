//! The runs that the metadata have registered: what a caller is to this node is judged by them, and
//! by nothing that callers say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sprawl_core::cluster::metadata::View;
use sprawl_core::ids::{Boot, DiskId};

use super::{Peer, PeerIdentity, Refusal};

/// What this node's metadata say of runs.
///
/// Bounded by the nodes of the metadata, and by the identities that these remember as retired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The registered run of each directory: its boot number, and the random number that tells it
    /// from a copy's.
    pub registered: BTreeMap<DiskId, (Boot, u64)>,
    /// Where each is reached, as it said when it registered.
    pub addresses: BTreeMap<DiskId, SocketAddr>,
    /// The directories that never come back.
    pub retired: BTreeSet<DiskId>,
}

impl Runs {
    /// What a view says, unless it is this.
    pub(crate) fn other(&self, view: &View) -> Option<Self> {
        let runs = || view.nodes.iter().map(|(disk, node)| (*disk, (node.boot, node.run)));
        let same = self.registered.iter().map(|(disk, run)| (*disk, *run)).eq(runs())
            // Identities are only ever added to the retired ones.
            && self.retired.len() == view.retired.len();
        let other = || Self {
            registered: runs().collect(),
            addresses: view.nodes.iter().map(|(disk, node)| (*disk, node.address)).collect(),
            retired: view.retired.keys().copied().collect(),
        };
        (!same).then(other)
    }

    /// Where a peer is reached: one that may have moved, where its identity has registered.
    pub(super) fn whereabouts(&self, peer: Peer) -> Peer {
        let known = peer.disk.filter(|_| peer.moves).and_then(|disk| self.addresses.get(&disk));
        Peer { address: known.copied().unwrap_or(peer.address), ..peer }
    }

    /// Whether this very run is the registered one.
    pub(super) fn is_registered(&self, peer: &PeerIdentity) -> bool {
        self.registered.get(&peer.disk) == Some(&(peer.boot, peer.run))
    }

    /// Whether a run may be talked to. A newer one than the registered one may: it has to say so
    /// to be registered.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when a newer run of its directory has registered, or another one with the
    /// same boot number, which only a copy can have.
    pub(super) fn judge(&self, peer: &PeerIdentity) -> Result<(), Refusal> {
        match self.registered.get(&peer.disk) {
            Some(&(known, _)) if peer.boot < known => Err(Refusal::StaleBoot { known }),
            Some(&(known, run)) if peer.boot == known && peer.run != run => Err(Refusal::Twin),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(disk: u128, boot: u64, run: u64) -> PeerIdentity {
        let (address, name) = (([127, 0, 0, 1], 1).into(), String::new());
        PeerIdentity { disk: DiskId(disk), boot: Boot(boot), run, address, name, cluster: None }
    }

    #[test]
    fn an_older_run_and_a_twin_are_refused() {
        let runs = Runs { registered: [(DiskId(1), (Boot(5), 50))].into(), ..Runs::default() };
        assert_eq!(runs.judge(&peer(1, 5, 50)), Ok(()));
        assert_eq!(runs.judge(&peer(1, 5, 51)), Err(Refusal::Twin));
        assert_eq!(runs.judge(&peer(1, 4, 40)), Err(Refusal::StaleBoot { known: Boot(5) }));
        assert_eq!(runs.judge(&peer(2, 4, 40)), Ok(()), "nobody has registered it");
        assert!(runs.is_registered(&peer(1, 5, 50)));
        assert!(!runs.is_registered(&peer(1, 5, 51)) && !runs.is_registered(&peer(2, 4, 40)));
    }

    #[test]
    fn who_may_have_moved_is_reached_where_it_has_registered_and_a_copy_where_it_is() {
        let [old, new] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let runs = Runs { addresses: [(DiskId(1), new)].into(), ..Runs::default() };
        let exact = Peer::from((old, DiskId(1)));
        assert_eq!(runs.whereabouts(exact).address, old);
        assert_eq!(runs.whereabouts(Peer { moves: true, ..exact }).address, new);
        let unknown = Peer { disk: Some(DiskId(2)), moves: true, ..exact };
        assert_eq!(runs.whereabouts(unknown).address, old);
    }

    #[test]
    fn what_a_newer_run_says_of_itself_changes_nothing() {
        let runs = Runs { registered: [(DiskId(1), (Boot(5), 50))].into(), ..Runs::default() };
        assert_eq!(runs.judge(&peer(1, 6, 60)), Ok(()), "it may ask to be registered");
        assert!(!runs.is_registered(&peer(1, 6, 60)));
        assert_eq!(runs.judge(&peer(1, 5, 50)), Ok(()), "the registered one stays it");
    }
}
