//! The simulated disk keeps the same laws as RocksDB.

use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_io::storage::contract::{Bench, check};

use super::SimDisk;
use crate::invariants::Findings;
use crate::plan::{DiskPace, Draw};

struct SimBench {
    disks: u64,
}

impl Bench for SimBench {
    type Disk = SimDisk;

    async fn fresh(&mut self) -> SimDisk {
        self.disks += 1;
        let pace = DiskPace { sync_us_min: 50, sync_us_max: 5_000, read_us_max: 500 };
        SimDisk::new(pace, Draw::new(self.disks, 0), Findings::default())
    }

    async fn restart(&mut self, disk: SimDisk) -> SimDisk {
        disk.abandon(false);
        disk
    }

    async fn lose_power(&mut self, disk: SimDisk) -> Option<SimDisk> {
        disk.abandon(true);
        Some(disk)
    }

    async fn damage(
        &mut self,
        disk: SimDisk,
        partition: PartitionId,
        index: EntryIndex,
    ) -> SimDisk {
        let place = (partition, index);
        let mut state = disk.lock();
        let stored = state.platters.log.get_mut(&place).expect("the entry was committed");
        let mut bytes = stored.to_vec();
        *bytes.last_mut().expect("an entry has bytes") ^= 1;
        *stored = bytes.into();
        drop(state);
        disk
    }
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    for seed in 0..20 {
        let runtime =
            madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.block_on(async { check(&mut SimBench { disks: seed * 1_000 }).await });
    }
}
