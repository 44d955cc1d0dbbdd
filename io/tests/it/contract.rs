//! RocksDB keeps the laws that every storage keeps.

use sprawl_core::ids::{EntryIndex, PartitionId};
use sprawl_io::data_dir::DataDir;
use sprawl_io::storage::contract::{self, Bench};
use sprawl_io::storage::rocks::RocksOptions;
use tempfile::TempDir;

use crate::folder;

/// One directory at a time, each new disk in a new one.
struct Folders {
    current: TempDir,
}

impl Folders {
    fn open(&self) -> DataDir {
        DataDir::open(self.current.path(), RocksOptions::default()).expect("nobody else has it")
    }
}

impl Bench for Folders {
    type Disk = DataDir;

    async fn fresh(&mut self) -> DataDir {
        self.current = folder::empty();
        self.open()
    }

    async fn restart(&mut self, disk: DataDir) -> DataDir {
        drop(disk);
        self.open()
    }

    /// The operating system keeps what this process has written; the sync itself is watched from
    /// outside, under strace.
    async fn lose_power(&mut self, _: DataDir) -> Option<DataDir> {
        None
    }

    async fn damage(
        &mut self,
        disk: DataDir,
        partition: PartitionId,
        index: EntryIndex,
    ) -> DataDir {
        drop(disk);
        let families = ["default", "log", "state", "metadata"];
        let path = self.current.path().join("db");
        let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), path, families);
        let db = db.expect("the database opens");
        let log = db.cf_handle("log").expect("there is a log");
        let key = [partition.0.to_be_bytes(), index.0.to_be_bytes()].concat();
        let mut entry = db.get_cf(log, &key).expect("it reads").expect("it is there");
        let middle = entry.len() / 2;
        entry[middle] ^= 1 << 3;
        db.put_cf(log, key, entry).expect("it is written");
        drop(db);
        self.open()
    }
}

#[tokio::test]
async fn rocksdb_keeps_the_laws_of_storage() {
    contract::check(&mut Folders { current: folder::empty() }).await;
}
