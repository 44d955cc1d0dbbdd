//! PlacementAgrees, ReplicasSpread and BoundedLoad: what a simulated cluster's placements must be.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::{Candidate, Candidates, OWNERS_MAX};
use crate::cluster::metadata::View;
use crate::ids::{ChangeIndex, DiskId};
use crate::machine::{Broken, Digest};

/// How many versions of the metadata are kept for comparison with slower nodes.
const VERSIONS_MAX: usize = 10_000;
/// How many keys are asked for at each version.
const KEYS: u64 = 4;

/// Watches what nodes make of the same metadata.
#[derive(Clone, Debug, Default)]
pub struct PlacementWatch {
    seen: BTreeMap<ChangeIndex, u64>,
    /// How often two nodes were compared.
    pub compared: u64,
}

impl PlacementWatch {
    /// A node shows a view: what it has placed in it, and where it would place something now.
    ///
    /// # Errors
    ///
    /// PlacementAgrees, when another node made something else of the same metadata;
    /// ReplicasSpread, when owners share a zone while another zone has a node to spare;
    /// BoundedLoad, when a node is chosen above its bound while another is not.
    pub fn shown(&mut self, view: &View) -> Result<(), Broken> {
        let mut hash = Digest::default();
        for partition in view.partitions.values() {
            (partition.id, &partition.replicas, partition.leader).hash(&mut hash);
        }
        let before = Candidates::of(view);
        for key in 0..KEYS {
            let mut candidates = before.clone();
            let owners = candidates.choose(view.version.0 ^ key << 60, OWNERS_MAX);
            owners.hash(&mut hash);
            check_spread(&before, &owners)?;
            check_load(&before, &owners)?;
        }
        let found = hash.finish();
        let known = *self.seen.entry(view.version).or_insert(found);
        self.compared += 1;
        if self.seen.len() > VERSIONS_MAX {
            self.seen.pop_first();
        }
        if known == found {
            return Ok(());
        }
        let detail = format!("two nodes place differently by the view of change {}", view.version);
        Err(Broken { invariant: "PlacementAgrees", detail })
    }
}

/// No zone has two owners more than another one with a node to spare.
fn check_spread(nodes: &Candidates, owners: &[DiskId]) -> Result<(), Broken> {
    match nodes.neglected(owners) {
        Some((zone, used, most)) => {
            let detail = format!("{used} of {owners:?} in zone '{zone}', {most} in another");
            Err(Broken { invariant: "ReplicasSpread", detail })
        }
        None => Ok(()),
    }
}

/// Whoever is chosen above its bound is chosen because its zone has no other below.
fn check_load(before: &Candidates, owners: &[DiskId]) -> Result<(), Broken> {
    let held: u64 = before.nodes().iter().map(|node| node.held).sum();
    let total = held + owners.len() as u64;
    let is_over = |node: &&Candidate| node.held + 1 > before.load_max(node.weight, total);
    let chosen = |node: &&Candidate| owners.contains(&node.disk);
    for over in before.nodes().iter().filter(chosen).filter(is_over) {
        let room = before
            .nodes()
            .iter()
            .find(|node| node.zone == over.zone && !chosen(node) && !is_over(node));
        if let Some(room) = room {
            let detail = format!("{} was chosen and not {}", over.disk, room.disk);
            return Err(Broken { invariant: "BoundedLoad", detail });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(disk: u128, zone: &str, held: u64) -> Candidate {
        Candidate { disk: DiskId(disk), zone: zone.to_owned(), weight: 100, held }
    }

    #[test]
    fn owners_that_share_a_zone_without_need_are_noticed() {
        let nodes = Candidates::new(vec![node(1, "a", 0), node(2, "a", 0), node(3, "b", 0)]);
        let check = |owners: &[u128]| {
            let owners: Vec<DiskId> = owners.iter().copied().map(DiskId).collect();
            check_spread(&nodes, &owners).is_ok()
        };
        assert!(check(&[1, 3]) && check(&[1, 2, 3]) && check(&[2]));
        assert!(!check(&[1, 2]));
    }

    #[test]
    fn an_owner_above_its_bound_is_noticed() {
        let full = Candidates::new(vec![node(1, "a", 30), node(2, "a", 10), node(3, "b", 10)]);
        assert!(check_load(&full, &[DiskId(2)]).is_ok());
        let found = check_load(&full, &[DiskId(1)]);
        assert_eq!(found.map_err(|broken| broken.invariant), Err("BoundedLoad"));
        let alone = Candidates::new(vec![node(1, "a", 30), node(3, "b", 10)]);
        assert!(check_load(&alone, &[DiskId(1), DiskId(3)]).is_ok());
    }
}
