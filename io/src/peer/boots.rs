//! The newest run that was heard of each data directory: an older one is a copy, or rolled back.

use std::collections::BTreeMap;

use sprawl_core::ids::{Boot, DiskId};

use super::{PeerIdentity, Refusal};

/// How many directories are remembered; the one not heard for longest is forgotten first.
pub(super) const BOOTS_MAX: usize = 4_096;

#[derive(Clone, Copy)]
struct Known {
    boot: Boot,
    run: u64,
    heard: u64,
}

/// The newest run of each directory.
#[derive(Default)]
pub(super) struct Boots {
    known: BTreeMap<DiskId, Known>,
    /// Counts what was heard.
    heard: u64,
}

impl Boots {
    /// Takes note of a run that has proved itself.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when a newer run of its directory is known, or another with the same boot
    /// number, which only a copy can have. What is remembered stays.
    pub(super) fn hear(&mut self, peer: &PeerIdentity) -> Result<(), Refusal> {
        let PeerIdentity { disk, boot, run, .. } = *peer;
        if let Some(known) = self.known.get(&disk) {
            if boot < known.boot {
                return Err(Refusal::StaleBoot { known: known.boot });
            }
            if boot == known.boot && run != known.run {
                return Err(Refusal::Twin);
            }
        }
        self.heard += 1;
        self.known.insert(disk, Known { boot, run, heard: self.heard });
        if self.known.len() > BOOTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.heard);
            let oldest = oldest.map(|(disk, _)| *disk);
            oldest.and_then(|disk| self.known.remove(&disk));
        }
        assert!(self.known.len() <= BOOTS_MAX, "{} directories remembered", self.known.len());
        Ok(())
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
        let mut boots = Boots::default();
        assert_eq!(boots.hear(&peer(1, 5, 50)), Ok(()));
        assert_eq!(boots.hear(&peer(1, 5, 50)), Ok(()));
        assert_eq!(boots.hear(&peer(1, 5, 51)), Err(Refusal::Twin));
        assert_eq!(boots.hear(&peer(1, 4, 40)), Err(Refusal::StaleBoot { known: Boot(5) }));
        assert_eq!(boots.hear(&peer(2, 4, 40)), Ok(()));
        assert_eq!(boots.hear(&peer(1, 6, 60)), Ok(()));
        assert_eq!(boots.hear(&peer(1, 5, 50)), Err(Refusal::StaleBoot { known: Boot(6) }));
    }

    #[test]
    fn the_one_not_heard_for_longest_is_forgotten() {
        let mut boots = Boots::default();
        for disk in 0..BOOTS_MAX as u128 {
            assert_eq!(boots.hear(&peer(disk, 9, 9)), Ok(()));
        }
        assert_eq!(boots.hear(&peer(0, 9, 9)), Ok(()));
        assert_eq!(boots.hear(&peer(u128::MAX, 1, 1)), Ok(()));
        assert_eq!(boots.hear(&peer(1, 1, 1)), Ok(()), "it was forgotten");
        assert!(boots.hear(&peer(0, 1, 1)).is_err(), "it was heard lately");
    }
}
