//! A disk without room: nothing is half written, reads go on, and writes go on once there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use sprawl_core::ids::ChangeIndex;
use sprawl_io::data_dir::DataDir;
use sprawl_io::storage::rocks::{RocksOptions, RocksStorage};
use sprawl_io::storage::{Batch, CommitError, Disk, MetadataWrite, Storage};
use tempfile::TempDir;

use crate::folder;

const DISK_BYTES: usize = 64 << 20;
const BALLAST_BYTES: usize = 16 << 20;
const CHANGE_BYTES: usize = 64 << 10;

/// A small file system of its own, gone at the end of the test.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount() -> Option<Self> {
        let folder = folder::empty();
        let options = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|done| done.status.success()).then_some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the small disk is unmounted");
    }
}

/// Bytes that do not compress, other ones for each number.
fn change(number: u64) -> (ChangeIndex, Bytes) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..CHANGE_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    (ChangeIndex(number), words.collect())
}

fn batch(number: u64) -> Batch {
    let (index, bytes) = change(number);
    Batch { metadata: vec![MetadataWrite::Entry(index, bytes)], ..Batch::default() }
}

async fn open(path: &Path) -> RocksStorage {
    let dir = DataDir::open(path, RocksOptions::default()).expect("nobody else has it");
    dir.open().await.expect("the database opens")
}

/// Commits from `next` on until there is no room; says which one found none.
async fn fill(storage: &RocksStorage, mut next: u64) -> u64 {
    for _ in 0..2 * DISK_BYTES / CHANGE_BYTES {
        match storage.commit(&batch(next)).await {
            Ok(()) => next += 1,
            Err(CommitError::NoSpace) => return next,
            Err(CommitError::Failed(why)) => panic!("a full disk is not a failed one: {why}"),
        }
    }
    panic!("the disk takes more than its size");
}

/// The changes below `end` are there, and no other.
async fn holds(storage: &RocksStorage, end: u64) {
    let found = storage.changes(ChangeIndex(1), usize::MAX).await.expect("it reads");
    assert_eq!(found.len() as u64, end - 1);
    assert!(found.into_iter().zip(1..).all(|(found, number)| found == change(number)));
}

#[tokio::test]
async fn a_full_disk_refuses_whole_batches_and_takes_them_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: this process may not mount a file system");
        return;
    };
    let (data, ballast) = (disk.path("data"), disk.path("ballast"));
    fs::write(&ballast, vec![7; BALLAST_BYTES]).expect("there is room");
    let storage = open(&data).await;
    let first = fill(&storage, 1).await;
    let bytes = first as usize * CHANGE_BYTES;
    assert!(bytes > (DISK_BYTES - BALLAST_BYTES) / 3, "only {bytes} bytes fit");
    holds(&storage, first).await;
    let again = storage.commit(&batch(first)).await;
    assert!(matches!(again, Err(CommitError::NoSpace)), "{again:?}");
    holds(&storage, first).await;

    fs::remove_file(&ballast).expect("it was there");
    let second = fill(&storage, first).await;
    assert!(second > first, "nothing fits in the room that became free");
    holds(&storage, second).await;
    drop(storage);

    let storage = open(&data).await;
    holds(&storage, second).await;
    storage.close().await;
    let closed = storage.commit(&batch(second)).await;
    assert!(matches!(closed, Err(CommitError::Failed(_))), "{closed:?}");
    drop(storage);
    holds(&open(&data).await, second).await;
}

#[tokio::test]
async fn a_bound_counts_what_the_node_itself_takes() {
    let folder = folder::empty();
    let bound = 4 << 20;
    let options = RocksOptions { disk_max_bytes: Some(bound) };
    let dir = DataDir::open(folder.path(), options).expect("nobody else has it");
    let storage = dir.open().await.expect("the database opens");
    for number in 1..=128 {
        storage.commit(&batch(number)).await.expect("the disk itself has room");
    }
    let usage = storage.usage().await.expect("there is a disk");
    assert_eq!(usage.capacity, bound);
    assert!(usage.used >= 128 * CHANGE_BYTES as u64, "{usage:?}");
}
