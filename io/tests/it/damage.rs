//! A directory that is not as it was left: the node says so in one line, changes nothing, and
//! never takes a shorter log for the whole.

use std::fs::{self, OpenOptions};
use std::path::Path;

use sprawl_core::broker::replica::{Body, Draft, Envelope, Header, Record, Timing};
use sprawl_core::ids::{EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::{Store, WallTime};
use sprawl_io::data_dir::{self, DataDir, IDENTITY_FILE, IdentityError, Name};
use sprawl_io::storage::rocks::{RocksOptions, RocksStorage};
use sprawl_io::storage::{Batch, Disk, OpenError, ReadError, ReadRange, Storage};
use tempfile::TempDir;

use crate::folder;

const PARTITIONS: u64 = 3;
const COMMITS: u64 = 100;
/// How many places of a file are damaged, one after the other.
const PLACES: usize = 24;

fn message(partition: PartitionId, number: u64) -> Record {
    let id = format!("{partition}-{number}").parse().expect("an id");
    let envelope =
        Envelope { id, key: None, sequence: None, content_type: None, headers: Vec::new() };
    // Bytes that do not compress, so that the files are as large as what was written.
    let noise = (0..32).map(|word| (number * 31 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let payload: Vec<u8> = noise.flat_map(u64::to_le_bytes).collect();
    let body = Body::Message(Draft { envelope, payload: payload.into() });
    let (epoch, time) = (Epoch(1), WallTime(1));
    let (index, offset, is_message) = (EntryIndex(number + 1), Offset(number), true);
    let timing = Timing::default();
    Record::seal(partition, Header { epoch, index, offset, time, is_message, timing }, &body)
}

fn open_dir(path: &Path) -> DataDir {
    DataDir::open(path, RocksOptions::default()).expect("nobody else has it")
}

/// A directory with an identity, and a database that was written and not closed.
async fn written(path: &Path) -> RocksStorage {
    let dir = open_dir(path);
    enter(&dir).await.expect("a new node");
    let storage = dir.open().await.expect("an empty database");
    for number in 0..COMMITS {
        let store = |partition| {
            let partition = PartitionId(partition);
            let records = vec![message(partition, number)];
            Store { records, ..Store::of(partition) }
        };
        let stores = (1..=PARTITIONS).map(store).collect();
        storage.commit(&Batch { stores, ..Batch::default() }).await.expect("a commit");
    }
    storage
}

async fn enter(dir: &DataDir) -> Result<data_dir::Identity, IdentityError> {
    data_dir::enter(dir.files(), &Name::Default("node".to_owned()), 7).await
}

fn everything(partition: u64) -> ReadRange {
    let (partition, from, below) = (PartitionId(partition), Offset(0), EntryIndex(COMMITS + 1));
    let (first, count_max, bytes_max) = (EntryIndex(1), usize::MAX, usize::MAX);
    ReadRange { partition, from, first, below, count_max, bytes_max }
}

/// Everything that was committed is there.
async fn whole(path: &Path) {
    let storage = open_dir(path).open().await.expect("the database opens");
    for partition in 1..=PARTITIONS {
        let found = storage.read(everything(partition)).await.expect("it reads");
        assert_eq!(found.len() as u64, COMMITS, "partition {partition}");
    }
}

/// The directory is refused in one line, and is afterwards as it was before.
async fn refused(path: &Path, what: &str) -> OpenError {
    let dir = open_dir(path);
    let before = folder::content(path);
    let error = dir.open().await.err().unwrap_or_else(|| panic!("{what}: it opened"));
    assert!(!error.to_string().contains('\n'), "{what}: more than a line: {error}");
    let after = folder::content(path);
    let changed = after.iter().find(|(path, bytes)| before.get(*path) != Some(bytes));
    assert!(changed.is_none(), "{what}: {:?} was changed", changed.map(|(path, _)| path));
    assert_eq!(after.len(), before.len(), "{what}: a file is gone");
    error
}

/// What a killed process leaves of a directory with a database.
async fn killed() -> TempDir {
    let folder = folder::empty();
    let storage = written(folder.path()).await;
    let image = folder::image(folder.path());
    drop(storage);
    image
}

#[tokio::test]
async fn a_killed_process_leaves_everything_that_was_committed() {
    let image = killed().await;
    whole(image.path()).await;
    whole(image.path()).await;
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_the_log_is_noticed() {
    let image = killed().await;
    let log = folder::largest(image.path(), "log");
    let length = fs::metadata(&log).expect("it is there").len() as usize;
    for place in 0..PLACES {
        let copy = folder::image(image.path());
        let at = length * place / PLACES;
        folder::flip(&folder::largest(copy.path(), "log"), at);
        match refused(copy.path(), &format!("a flip at {at} of {length}")).await {
            OpenError::Truncated { found, noted } => assert!(found < noted, "{found} {noted}"),
            OpenError::Failed(why) => assert!(!why.is_empty(), "the database says why"),
        }
    }
    whole(image.path()).await;
}

#[tokio::test]
async fn a_log_that_was_cut_is_noticed() {
    let image = killed().await;
    let log = folder::largest(image.path(), "log");
    let length = fs::metadata(&log).expect("it is there").len();
    for place in 0..PLACES as u64 {
        let copy = folder::image(image.path());
        let file = OpenOptions::new().write(true).open(folder::largest(copy.path(), "log"));
        let keep = length * place / PLACES as u64;
        file.and_then(|file| file.set_len(keep)).expect("it is cut");
        let error = refused(copy.path(), &format!("cut at {keep} of {length}")).await;
        assert!(matches!(error, OpenError::Truncated { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_lost_file_is_never_an_empty_database() {
    let image = killed().await;
    let lost = |name: &str| {
        let copy = folder::image(image.path());
        let path = copy.path().join(name);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.expect("it was there");
        copy
    };
    for name in ["db", "db/CURRENT", "db.synced"] {
        refused(lost(name).path(), name).await;
    }
    let log = folder::largest(image.path(), "log");
    let log = log.strip_prefix(image.path()).expect("inside").to_owned();
    refused(lost(&log.to_string_lossy()).path(), "the log").await;
    let manifests = folder::content(&image.path().join("db")).into_keys();
    let manifest = manifests.map(|path| path.file_name().expect("a name").to_owned());
    let manifest = manifest.map(|name| name.to_string_lossy().into_owned());
    for name in manifest.filter(|name| name.starts_with("MANIFEST")) {
        refused(lost(&format!("db/{name}")).path(), &name).await;
    }

    let copy = lost(IDENTITY_FILE);
    let before = folder::content(copy.path());
    let entered = enter(&open_dir(copy.path())).await;
    assert!(matches!(entered, Err(IdentityError::Missing)), "{entered:?}");
    let mut after = folder::content(copy.path());
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before, "the directory is as it was");
}

#[tokio::test]
async fn a_damaged_note_of_the_last_sync_is_noticed() {
    let image = killed().await;
    let length = fs::metadata(image.path().join("db.synced")).expect("it is there").len();
    for at in 0..length as usize {
        let copy = folder::image(image.path());
        folder::flip(&copy.path().join("db.synced"), at);
        refused(copy.path(), &format!("a flip at {at} of the note")).await;
    }
}

/// A table is not read as a whole at the start; its blocks are checked when they are read.
#[tokio::test]
async fn a_flipped_bit_in_a_table_is_an_error_and_no_byte_of_it_is_served() {
    let folder = folder::empty();
    let storage = written(folder.path()).await;
    storage.close().await;
    drop(storage);
    let (mut refusals, mut served) = (0, 0);
    for place in 0..PLACES {
        let copy = folder::image(folder.path());
        let table = folder::largest(copy.path(), "sst");
        let length = fs::metadata(&table).expect("it is there").len() as usize;
        folder::flip(&table, length * place / PLACES);
        let storage = match open_dir(copy.path()).open().await {
            Ok(storage) => storage,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "more than a line: {error}");
                refusals += 1;
                continue;
            }
        };
        for partition in 1..=PARTITIONS {
            served += read_beside_damage(&storage, partition, &mut refusals).await;
        }
    }
    assert!(refusals >= PLACES, "only {refusals} of {PLACES} flips were noticed");
    assert!(served > 0, "what is not damaged is served");
}

/// Reads a partition message by message; what is served is what was written.
async fn read_beside_damage(storage: &RocksStorage, partition: u64, refusals: &mut usize) -> u64 {
    let mut served = 0;
    for number in 0..COMMITS {
        let range = ReadRange { from: Offset(number), count_max: 1, ..everything(partition) };
        match storage.read(range).await {
            Ok(found) => {
                let expected = message(PartitionId(partition), number);
                assert_eq!(found, [expected], "partition {partition}, message {number}");
                served += 1;
            }
            Err(ReadError::Unreadable(unreadable)) => {
                // Where a whole block is damaged, the first entry that may lie in it is named.
                assert_eq!(unreadable.partition, PartitionId(partition));
                let index = unreadable.index;
                assert!((1..=number + 1).contains(&index.0), "{unreadable} for {number}");
                assert!(!unreadable.to_string().contains('\n'), "more than a line");
                *refusals += 1;
            }
            Err(ReadError::Failed(why)) => panic!("the entry is not named: {why}"),
        }
    }
    served
}

/// The files of a new database appear one by one; the process may end between any two.
#[tokio::test]
async fn a_first_start_that_was_cut_short_starts_again() {
    let begun = folder::empty();
    enter(&open_dir(begun.path())).await.expect("a new node");

    let bare = folder::image(begun.path());
    fs::create_dir(bare.path().join("db")).expect("made");

    let without_current = folder::image(begun.path());
    drop(open_dir(begun.path()).open().await.expect("an empty database"));
    fs::create_dir(without_current.path().join("db")).expect("made");
    for name in ["db.synced", "db/IDENTITY"] {
        fs::copy(begun.path().join(name), without_current.path().join(name)).expect("copied");
    }

    let without_families = folder::image(without_current.path());
    let mut opts = rocksdb::Options::default();
    opts.create_if_missing(true);
    drop(rocksdb::DB::open(&opts, without_families.path().join("db")).expect("made"));

    for folder in [begun, bare, without_current, without_families] {
        enter(&open_dir(folder.path())).await.expect("the node that was begun");
        drop(written(folder.path()).await);
        whole(folder.path()).await;
    }
}
