//! The database of a production node: one RocksDB, written by one task and synced by another.
//!
//! Column families: `log` (partition ‖ index, big-endian → entry), `state` (partition → state, and
//! behind it partition ‖ 0 → the highest epoch that was accepted), `metadata` (change → bytes, and
//! a cell for each value beside that log). A partition that has entries but no state yet has an
//! empty value in `state`, so that partitions are known without a look at their entries.

mod note;
mod opening;
mod read;
mod space;
mod tuning;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIterator, WriteBatch};
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::{ChangeIndex, EntryIndex, Epoch, NUMBER_MAX, Offset, PartitionId};
use sprawl_core::machine::WallTime;

use self::note::Note;
use self::tuning::{FAMILIES, LOG, METADATA, STATE, Sizes};
use super::{
    Batch, Cell, CommitError, MetadataWrite, OpenError, ReadError, ReadRange, Storage, Usage,
};

/// How the database is kept.
#[derive(Clone, Debug, Default)]
pub struct RocksOptions {
    /// Bytes that the database may take; without it, the whole disk.
    pub disk_max_bytes: Option<u64>,
}

/// What a write takes in RocksDB's batch beside its value: the key, and the lengths of both.
const WRITE_OVERHEAD: usize = 40;

/// An open database. Clones are handles to the same one; it is closed for all of them at once.
#[derive(Clone, Debug)]
pub struct RocksStorage {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: Box<Path>,
    disk_max_bytes: Option<u64>,
    sizes: Sizes,
    /// `None` when it is closed. Held for reading while the database is in use.
    open: RwLock<Option<Open>>,
    /// Why no more batch is taken, once one has failed.
    failed: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Open {
    db: DB,
    note: Note,
    /// The partitions that `state` has a value of.
    partitions: Mutex<BTreeSet<PartitionId>>,
}

impl RocksStorage {
    /// Opens the database in `path`, or makes an empty one.
    ///
    /// # Errors
    ///
    /// [`OpenError`] in one line. A damaged database is left as it was.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let disk = space::of_disk(path.parent().unwrap_or(path));
        let disk = disk.map_err(|error| OpenError::Failed(error.to_string()))?;
        let disk_max_bytes = options.disk_max_bytes;
        let sizes = Sizes::of(disk_max_bytes.map_or(disk.capacity, |max| max.min(disk.capacity)));
        let (db, note) = opening::open(path, sizes)?;
        let mut open = Open { db, note, partitions: Mutex::default() };
        let known = open.known().map_err(|error| OpenError::Failed(error.to_string()))?;
        open.partitions = Mutex::new(known);
        let (open, failed) = (RwLock::new(Some(open)), Mutex::default());
        let shared = Shared { path: path.into(), disk_max_bytes, sizes, open, failed };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs a read on a thread that may wait for the disk.
    async fn apart<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Open) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            let open = shared.open.read().unwrap_or_else(PoisonError::into_inner);
            read(open.as_ref().ok_or_else(|| ReadError::Failed(CLOSED.to_owned()))?)
        });
        done.await.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
    }
}

impl Shared {
    /// Whether a batch fits: what the buffers need when they are flushed stays free.
    fn check_room(&self, batch: &Batch) -> Result<(), CommitError> {
        let disk = space::of_disk(&self.path);
        let disk = disk.map_err(|error| CommitError::Failed(error.to_string()))?;
        // Once in the write-ahead log, once more when its buffer is flushed.
        let needed = self.sizes.reserve().saturating_add(2 * batch.bytes() as u64);
        if disk.capacity - disk.used < needed { Err(CommitError::NoSpace) } else { Ok(()) }
    }

    fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        // What only erases makes room, and a full disk is where that is wanted most.
        if batch.bytes() > 0 || batch.erased.is_empty() {
            self.check_room(batch)?;
        }
        self.unless_failed(|open| open.write(batch))
    }

    /// Does something to the open database, as long as nothing has failed.
    fn unless_failed(
        &self,
        work: impl FnOnce(&Open) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let reason = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &*reason() {
            return Err(CommitError::Failed(reason.clone()));
        }
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let result = work(open.as_ref().ok_or_else(|| CommitError::Failed(CLOSED.to_owned()))?);
        if let Err(CommitError::Failed(failed)) = &result {
            reason().get_or_insert_with(|| failed.clone());
        }
        result
    }
}

impl Open {
    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("each family is opened with the database")
    }

    fn known(&self) -> Result<BTreeSet<PartitionId>, ReadError> {
        let mut found = BTreeSet::new();
        let mut iterator = self.db.raw_iterator_cf(self.family(STATE));
        iterator.seek_to_first();
        while let Some(number) = number_under(&iterator) {
            found.insert(PartitionId(number));
            iterator.next();
        }
        iterator.status().map_err(|error| ReadError::Failed(one_line(error)))?;
        Ok(found)
    }

    fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = BTreeSet::new();
        // A batch that outgrows its memory is copied.
        let room = batch.bytes() + WRITE_OVERHEAD * batch.writes();
        let mut write = WriteBatch::with_capacity_bytes(room);
        let (log, state) = (self.family(LOG), self.family(STATE));
        for store in &batch.stores {
            let partition = store.partition;
            if let Some(epoch) = store.accepted {
                write.put_cf(state, accepted_key(partition), epoch.0.to_be_bytes());
            }
            if let Some(last) = store.cut_after {
                let end = log_key(PartitionId(partition.0 + 1), EntryIndex(0));
                write.delete_range_cf(log, log_key(partition, last.next()), end);
            }
            for record in &store.records {
                write.put_cf(log, log_key(partition, record.header().index), record.bytes());
            }
            if let Some(checkpoint) = &store.checkpoint {
                write.put_cf(state, partition.0.to_be_bytes(), &checkpoint.bytes);
                fresh.insert(partition);
                if let Some(cut) = store.cut {
                    let from = log_key(partition, EntryIndex(0));
                    write.delete_range_cf(log, from, log_key(partition, cut));
                }
            } else if (!store.records.is_empty() || store.accepted.is_some())
                && !known.contains(&partition)
                && fresh.insert(partition)
            {
                write.put_cf(state, partition.0.to_be_bytes(), b"");
            }
        }
        for &partition in &batch.erased {
            let from = log_key(partition, EntryIndex(0));
            write.delete_range_cf(log, from, log_key(PartitionId(partition.0 + 1), EntryIndex(0)));
            write.delete_cf(state, partition.0.to_be_bytes());
            write.delete_cf(state, accepted_key(partition));
        }
        let metadata = self.family(METADATA);
        for step in &batch.metadata {
            match step {
                MetadataWrite::Entry(index, bytes) => {
                    write.put_cf(metadata, index.0.to_be_bytes(), bytes);
                }
                MetadataWrite::Truncate(from) => {
                    let end = (NUMBER_MAX + 1).to_be_bytes();
                    write.delete_range_cf(metadata, from.0.to_be_bytes(), end);
                }
                MetadataWrite::Purge(below) => {
                    write.delete_range_cf(metadata, [0; 8], below.0.to_be_bytes());
                }
                MetadataWrite::Cell(cell, bytes) => {
                    write.put_cf(metadata, cell_key(*cell), bytes);
                }
            }
        }
        if write.is_empty() {
            return Ok(());
        }
        self.db.write(write).map_err(commit_error)?;
        known.extend(fresh);
        for partition in &batch.erased {
            known.remove(partition);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), CommitError> {
        // What is written from here on may be synced, and is not noted.
        let written = self.db.latest_sequence_number();
        // A failed sync is no want of room: what of it is on the disk is unknown.
        self.db.flush_wal(true).map_err(|error| CommitError::Failed(one_line(error)))?;
        let noted = self.note.write(written);
        noted.map_err(|error| CommitError::Failed(format!("the note of the last sync: {error}")))
    }

    fn changes(
        &self,
        from: ChangeIndex,
        bytes_max: usize,
    ) -> Result<Vec<(ChangeIndex, Bytes)>, ReadError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut iterator = self.db.raw_iterator_cf(self.family(METADATA));
        iterator.seek(from.0.to_be_bytes());
        while let Some(number) = number_under(&iterator) {
            let value = iterator.value().unwrap_or_default();
            if bytes + value.len() > bytes_max && !found.is_empty() {
                break;
            }
            bytes += value.len();
            found.push((ChangeIndex(number), Bytes::copy_from_slice(value)));
            iterator.next();
        }
        iterator.status().map_err(|error| ReadError::Failed(one_line(error)))?;
        Ok(found)
    }

    /// Flushes everything and closes. The note is exact afterwards.
    fn close(self) {
        for name in FAMILIES {
            if let Err(error) = self.db.flush_cf(self.family(name)) {
                tracing::warn!(%error, "the database is left with its log to replay");
            }
        }
        self.db.cancel_all_background_work(true);
        if let Err(error) = self.note.sync() {
            tracing::warn!(%error, "the note of the last sync could not be synced");
        }
    }
}

impl Storage for RocksStorage {
    /// Blocks the thread: it is the writer's own, and has nothing else to do.
    async fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        self.shared.write(batch)
    }

    /// Blocks the thread: it is the syncer's own.
    async fn sync(&self) -> Result<(), CommitError> {
        self.shared.unless_failed(Open::sync)
    }

    async fn read(&self, range: ReadRange) -> Result<Vec<Record>, ReadError> {
        self.apart(move |open| read::messages(&open.db, open.family(LOG), range)).await
    }

    async fn seek(
        &self,
        partition: PartitionId,
        at: WallTime,
        first: EntryIndex,
        below: EntryIndex,
    ) -> Result<Option<Offset>, ReadError> {
        let bounds = (first, below);
        self.apart(move |open| read::seek(&open.db, open.family(LOG), partition, at, bounds)).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, ReadError> {
        self.apart(|open| {
            let known = open.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(known.iter().copied().collect())
        })
        .await
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Bytes>, ReadError> {
        self.apart(move |open| {
            let value = open.db.get_cf(open.family(STATE), partition.0.to_be_bytes());
            let value = value.map_err(|error| ReadError::Failed(one_line(error)))?;
            Ok(value.filter(|value| !value.is_empty()).map(Bytes::from))
        })
        .await
    }

    async fn accepted(&self, partition: PartitionId) -> Result<Option<Epoch>, ReadError> {
        self.apart(move |open| {
            let value = open.db.get_cf(open.family(STATE), accepted_key(partition));
            let value = value.map_err(|error| ReadError::Failed(one_line(error)))?;
            let Some(value) = value else { return Ok(None) };
            let damaged = || ReadError::Failed(format!("the epoch of partition {partition}"));
            let number = value.try_into().map_err(|_| damaged())?;
            Ok(Some(Epoch(u64::from_be_bytes(number))))
        })
        .await
    }

    async fn scan(
        &self,
        partition: PartitionId,
        from: EntryIndex,
        bytes_max: usize,
    ) -> Result<Vec<(EntryIndex, Bytes)>, ReadError> {
        let place = (partition, from);
        self.apart(move |open| read::scan(&open.db, open.family(LOG), place, bytes_max)).await
    }

    async fn changes(
        &self,
        from: ChangeIndex,
        bytes_max: usize,
    ) -> Result<Vec<(ChangeIndex, Bytes)>, ReadError> {
        self.apart(move |open| open.changes(from, bytes_max)).await
    }

    async fn cell(&self, cell: Cell) -> Result<Option<Bytes>, ReadError> {
        self.apart(move |open| {
            let value = open.db.get_cf(open.family(METADATA), cell_key(cell));
            let value = value.map_err(|error| ReadError::Failed(one_line(error)))?;
            Ok(value.map(Bytes::from))
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, ReadError> {
        let (path, max) = (self.shared.path.clone(), self.shared.disk_max_bytes);
        self.apart(move |_| {
            let failed = |error: std::io::Error| ReadError::Failed(error.to_string());
            let disk = space::of_disk(&path).map_err(failed)?;
            let Some(capacity) = max else {
                return Ok(disk);
            };
            let used = space::of_folder(&path).map_err(failed)?;
            Ok(space::fuller(disk, Usage { used, capacity }))
        })
        .await
    }

    async fn close(&self) {
        let mut open = self.shared.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.take() {
            open.close();
        }
    }
}

const CLOSED: &str = "the database is closed";

/// The big-endian number that the key under an iterator is.
fn number_under(iterator: &DBRawIterator<'_>) -> Option<u64> {
    Some(u64::from_be_bytes(*iterator.key()?.first_chunk()?))
}

/// The key of a cell: behind all indexes, and shorter than one.
fn cell_key(cell: Cell) -> [u8; 2] {
    let number = match cell {
        Cell::Membership => 0,
        Cell::Vote => 1,
        Cell::Committed => 2,
        Cell::Purged => 3,
        Cell::Snapshot => 4,
    };
    [0xff, number]
}

/// The key of the epoch that a partition has accepted: right behind that of its state.
fn accepted_key(partition: PartitionId) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&partition.0.to_be_bytes());
    key
}

fn log_key(partition: PartitionId, index: EntryIndex) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&partition.0.to_be_bytes());
    key[8..].copy_from_slice(&index.0.to_be_bytes());
    key
}

/// What a failed write means. RocksDB gives the system's error as text only; when it found no
/// room, it has kept nothing of the batch and takes writes again once there is room.
fn commit_error(error: rocksdb::Error) -> CommitError {
    let reason = one_line(error);
    if reason.contains("No space left on device") {
        CommitError::NoSpace
    } else {
        CommitError::Failed(reason)
    }
}

/// What RocksDB says, in one line.
fn one_line(error: rocksdb::Error) -> String {
    error.into_string().replace('\n', " ")
}
