//! Who votes: how many, from which zones, and the next single step towards that.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;

/// How many voters there are at most.
pub const VOTERS_MAX: usize = 11;

/// A node, as far as its vote is concerned.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) zone: String,
    /// It has a session.
    pub(super) is_live: bool,
    /// It has had none for so long that another is to vote in its place.
    pub(super) is_lost: bool,
    /// It is leaving, or was retired.
    pub(super) is_gone: bool,
    /// It has the log almost to its end.
    pub(super) is_caught_up: bool,
    pub(super) votes: bool,
    pub(super) leads: bool,
}

/// How many of `nodes` vote: so many that any third of them may die.
#[must_use]
pub fn voters_wanted(nodes: usize) -> usize {
    (2 * (nodes / 3) + 1).min(VOTERS_MAX)
}

/// The voters after the next step, of a cluster that counts `nodes`; `None` when all is well or
/// nothing can be done now. The old and the new voters both have a majority that lives, and
/// whoever begins to vote is caught up.
pub(super) fn next_voters(nodes: usize, peers: &[Peer]) -> Option<BTreeSet<NodeId>> {
    let ballot = Ballot { peers };
    let now: BTreeSet<NodeId> =
        peers.iter().filter(|peer| peer.votes).map(|peer| peer.id).collect();
    let wanted = voters_wanted(nodes);
    let resized = if now.len() > wanted {
        ballot.shrink(now.clone(), wanted)
    } else {
        ballot.grow(now.clone(), wanted)
    };
    let next = if resized == now {
        ballot.replace(&now).or_else(|| ballot.balance(&now))?
    } else {
        resized
    };
    (next != now && ballot.has_majority(&now) && ballot.has_majority(&next)).then_some(next)
}

struct Ballot<'a> {
    peers: &'a [Peer],
}

impl Ballot<'_> {
    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        let live = self.peers.iter().filter(|peer| peer.is_live && voters.contains(&peer.id));
        live.count() * 2 > voters.len()
    }

    fn zones(&self, voters: &BTreeSet<NodeId>) -> BTreeMap<&str, usize> {
        let mut zones = BTreeMap::new();
        for peer in self.peers {
            let votes = usize::from(voters.contains(&peer.id));
            *zones.entry(&*peer.zone).or_default() += votes;
        }
        zones
    }

    /// Who may begin to vote.
    fn candidates(&self, voters: &BTreeSet<NodeId>) -> Vec<&Peer> {
        let fits = |peer: &&Peer| {
            peer.is_live && peer.is_caught_up && !peer.is_gone && !voters.contains(&peer.id)
        };
        self.peers.iter().filter(fits).collect()
    }

    /// Of those, the one whose zone has the fewest voters.
    fn best(&self, voters: &BTreeSet<NodeId>) -> Option<&Peer> {
        let zones = self.zones(voters);
        let candidates = self.candidates(voters).into_iter();
        candidates.min_by_key(|peer| (zones[&*peer.zone], peer.id))
    }

    /// The voter that is missed least: gone, lost, silent, or one of many in its zone.
    fn worst(&self, voters: &BTreeSet<NodeId>) -> Option<&Peer> {
        let zones = self.zones(voters);
        let voting = self.peers.iter().filter(|peer| voters.contains(&peer.id));
        voting.max_by_key(|peer| {
            let crowd = zones[&*peer.zone];
            (peer.is_gone, peer.is_lost, !peer.is_live, !peer.leads, crowd, peer.id)
        })
    }

    fn shrink(&self, mut voters: BTreeSet<NodeId>, wanted: usize) -> BTreeSet<NodeId> {
        while voters.len() > wanted {
            let Some(worst) = self.worst(&voters) else { break };
            voters.remove(&worst.id);
        }
        voters
    }

    /// As many more as there are, to an odd number.
    fn grow(&self, mut voters: BTreeSet<NodeId>, wanted: usize) -> BTreeSet<NodeId> {
        let most = wanted.min(voters.len() + self.candidates(&voters).len());
        let size = most - usize::from(most.is_multiple_of(2));
        while voters.len() < size {
            let Some(best) = self.best(&voters) else { break };
            voters.insert(best.id);
        }
        voters
    }

    /// One voter that is gone or lost, for one that is there.
    fn replace(&self, voters: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
        let worst = self.worst(voters).filter(|worst| worst.is_gone || worst.is_lost)?.id;
        self.exchange(voters, worst)
    }

    fn exchange(&self, voters: &BTreeSet<NodeId>, out: NodeId) -> Option<BTreeSet<NodeId>> {
        let mut next = voters.clone();
        next.remove(&out);
        let best = self.best(&next).filter(|best| best.id != out)?.id;
        next.insert(best);
        Some(next)
    }

    /// One voter of the zone with most, for one of a zone that has two fewer.
    fn balance(&self, voters: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
        let zones = self.zones(voters);
        let least = self.candidates(voters).into_iter().map(|peer| zones[&*peer.zone]).min()?;
        let crowded = |peer: &&Peer| voters.contains(&peer.id) && zones[&*peer.zone] >= least + 2;
        let giver = self.peers.iter().filter(crowded);
        let out = giver.max_by_key(|peer| (zones[&*peer.zone], !peer.leads, peer.id))?.id;
        self.exchange(voters, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64, zone: &str, votes: bool) -> Peer {
        let zone = zone.to_owned();
        let (id, leads) = (NodeId(id), id == 0);
        let (is_lost, is_gone) = (false, false);
        Peer { id, zone, is_live: true, is_lost, is_gone, is_caught_up: true, votes, leads }
    }

    fn next(peers: &[Peer]) -> Option<Vec<u64>> {
        let nodes = peers.iter().filter(|peer| !peer.is_gone).count();
        next_voters(nodes, peers).map(|next| next.iter().map(|id| id.0).collect())
    }

    #[test]
    fn the_number_follows_the_nodes() {
        let wanted: Vec<usize> = (1..=16).map(voters_wanted).collect();
        assert_eq!(wanted, [1, 1, 3, 3, 3, 5, 5, 5, 7, 7, 7, 9, 9, 9, 11, 11]);
        assert_eq!(voters_wanted(1_000), 11);
    }

    #[test]
    fn two_begin_to_vote_at_once_and_only_when_both_are_caught_up() {
        let mut peers = [peer(0, "", true), peer(1, "", false), peer(2, "", false)];
        assert_eq!(next(&peers[..2]), None, "of two nodes one votes");
        assert_eq!(next(&peers), Some(vec![0, 1, 2]));
        peers[1].is_caught_up = false;
        assert_eq!(next(&peers), None);
        peers[1].is_caught_up = true;
        peers[2].is_live = false;
        assert_eq!(next(&peers), None);
    }

    #[test]
    fn a_lost_voter_is_replaced_one_for_one_and_the_number_stays() {
        let mut peers: Vec<Peer> = (0..4).map(|id| peer(id, "", id < 3)).collect();
        peers[1].is_live = false;
        assert_eq!(next(&peers), None, "silent, and not lost yet");
        peers[1].is_lost = true;
        assert_eq!(next(&peers), Some(vec![0, 2, 3]));
        peers[3].is_caught_up = false;
        assert_eq!(next(&peers), None, "nobody is there in its place");
        peers[3].is_caught_up = true;
        peers[2].is_live = false;
        assert_eq!(next(&peers), None, "no majority of the old voters lives");
    }

    #[test]
    fn the_number_falls_when_nodes_leave() {
        let mut peers: Vec<Peer> = (0..3).map(|id| peer(id, "", true)).collect();
        peers[1].is_gone = true;
        assert_eq!(next(&peers), Some(vec![0]));
        let mut four: Vec<Peer> = (0..4).map(|id| peer(id, "", id < 3)).collect();
        four[0].is_gone = true;
        assert_eq!(next(&four), Some(vec![1, 2, 3]), "the leader leaves");
    }

    #[test]
    fn zones_share_the_votes() {
        let zones = ["a", "a", "a", "b", "c"];
        let peers: Vec<Peer> = (0..5).zip(zones).map(|(id, zone)| peer(id, zone, id < 3)).collect();
        assert_eq!(next(&peers), Some(vec![0, 1, 3]));
        let peers: Vec<Peer> =
            (0..5).zip(zones).map(|(id, zone)| peer(id, zone, [0, 1, 3].contains(&id))).collect();
        assert_eq!(next(&peers), Some(vec![0, 3, 4]));
        let peers: Vec<Peer> =
            (0..5).zip(zones).map(|(id, zone)| peer(id, zone, [0, 3, 4].contains(&id))).collect();
        assert_eq!(next(&peers), None);
        // Nine nodes in three zones of three: seven voters, at most three of a zone.
        let mut nine: Vec<Peer> =
            (0..9).map(|id| peer(id, ["a", "b", "c"][id as usize % 3], id == 0)).collect();
        let seven = next(&nine).expect("a step");
        nine.iter_mut().for_each(|peer| peer.votes = seven.contains(&peer.id.0));
        for zone in ["a", "b", "c"] {
            let votes = nine.iter().filter(|peer| peer.zone == zone && peer.votes).count();
            assert!((2..=3).contains(&votes), "{votes} of 7 in zone {zone}");
        }
        assert_eq!(next(&nine), None);
    }
}
