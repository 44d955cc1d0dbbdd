//! The database of a production node: one RocksDB, written by one task, synced once a batch.
//!
//! Column families: `log` (partition ‖ index, big-endian → entry), `state` (partition → state),
//! `metadata` (change → bytes).

mod note;
mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, IteratorMode, Options, WriteBatch, WriteOptions,
};
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::{ChangeIndex, EntryIndex, PartitionId};

use self::note::Note;
use super::{Batch, CommitError, OpenError, ReadError, ReadRange, Storage, Usage};

const LOG: &str = "log";
const STATE: &str = "state";
const METADATA: &str = "metadata";

/// Write buffers of the log, as many as may be full at once.
const WRITE_BUFFERS: i32 = 4;
/// The size of one of them, where the disk is large enough.
const WRITE_BUFFER_BYTES: u64 = 64 << 20;
/// A write buffer takes at most this part of the disk.
const WRITE_BUFFER_SHARE: u64 = 128;
/// What is always left free on the disk, so that buffers can be flushed, where it is large enough.
const RESERVE_BYTES: u64 = 256 << 20;
/// The reserve takes at most this part of the disk.
const RESERVE_SHARE: u64 = 20;

/// How the database is kept.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Bytes that the database may take; without it, the whole disk.
    pub disk_max_bytes: Option<u64>,
    /// What recovery makes of a log that ends in something unreadable.
    pub recovery: DBRecoveryMode,
    /// How many log files are overwritten instead of made anew; 0 makes each anew.
    pub recycled_logs: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { disk_max_bytes: None, recovery: DBRecoveryMode::PointInTime, recycled_logs: 4 }
    }
}

/// An open database. Clones are handles to the same one.
#[derive(Clone)]
pub struct RocksStorage {
    db: Arc<DB>,
    note: Arc<Note>,
    path: Arc<Path>,
    disk_max_bytes: Option<u64>,
}

impl RocksStorage {
    /// Opens the database in `path`, or makes an empty one.
    ///
    /// An existing one is opened for reading first: if it ends before the last write that was
    /// noted as synced, it is left as it is.
    ///
    /// # Errors
    ///
    /// [`OpenError`] in one line.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let failed = |error: &dyn std::fmt::Display| OpenError::Failed(error.to_string());
        let capacity = disk_space(path.parent().unwrap_or(path)).map_err(|e| failed(&e))?.capacity;
        let opts = database_options(options);
        let families = || {
            [LOG, STATE, METADATA]
                .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, capacity)))
        };
        let note_path = path.with_extension("synced");
        let note = if path.join("CURRENT").exists() {
            let noted = Note::read(&note_path)?;
            let found = {
                let names = [LOG, STATE, METADATA];
                let read_only = DB::open_cf_for_read_only(&opts, path, names, false);
                read_only.map_err(|e| failed(&e))?.latest_sequence_number()
            };
            if found < noted {
                return Err(OpenError::Truncated { found, noted });
            }
            Note::open(&note_path)
        } else {
            Note::create(&note_path)
        };
        let note = note.map_err(|e| failed(&e))?;
        let mut opts = opts;
        opts.create_if_missing(true);
        opts.create_missing_column_families(true);
        let db = DB::open_cf_descriptors(&opts, path, families()).map_err(|e| failed(&e))?;
        note.write(db.latest_sequence_number()).map_err(|e| failed(&e))?;
        let disk_max_bytes = options.disk_max_bytes;
        Ok(Self { db: Arc::new(db), note: Arc::new(note), path: path.into(), disk_max_bytes })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("each family is opened with the database")
    }

    fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut write = WriteBatch::default();
        let (log, state) = (self.family(LOG), self.family(STATE));
        for append in &batch.appends {
            for record in &append.records {
                let key = log_key(append.partition, record.header().index);
                write.put_cf(log, key, record.bytes());
            }
            if let Some(checkpoint) = &append.checkpoint {
                write.put_cf(state, append.partition.0.to_be_bytes(), &checkpoint.bytes);
            }
        }
        for (index, bytes) in &batch.changes {
            write.put_cf(self.family(METADATA), index.0.to_be_bytes(), bytes);
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.write_opt(write, &synced).map_err(|error| {
            let reason = error.into_string();
            // RocksDB gives the system's error as text only.
            if reason.contains("No space left on device") {
                CommitError::NoSpace
            } else {
                CommitError::Failed(reason)
            }
        })?;
        let noted = self.note.write(self.db.latest_sequence_number());
        noted.map_err(|error| CommitError::Failed(format!("the note of the last sync: {error}")))
    }

    /// Runs a read on a thread that may wait for the disk.
    async fn apart<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let storage = self.clone();
        let done = tokio::task::spawn_blocking(move || read(&storage)).await;
        done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
    }

    /// The partitions in one family, by leaping from each to the next.
    fn partitions_in(&self, family: &str) -> Result<Vec<PartitionId>, ReadError> {
        let mut found = Vec::new();
        let mut iterator = self.db.raw_iterator_cf(self.family(family));
        iterator.seek_to_first();
        while let Some(partition) = iterator.key().and_then(|key| key.first_chunk::<8>()) {
            let partition = PartitionId(u64::from_be_bytes(*partition));
            found.push(partition);
            iterator.seek(partition.next().0.to_be_bytes());
        }
        iterator.status().map_err(|error| ReadError::Failed(error.into_string()))?;
        Ok(found)
    }

    /// Values from `start` to before `end`, about `bytes_max` of them, under the tails of their
    /// keys from `tail` on.
    fn range(
        &self,
        family: &str,
        (start, end): (&[u8], &[u8]),
        tail: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mode = IteratorMode::From(start, Direction::Forward);
        for item in self.db.iterator_cf(self.family(family), mode) {
            let (key, value) = item.map_err(|error| ReadError::Failed(error.into_string()))?;
            if &key[..] >= end || bytes >= bytes_max {
                break;
            }
            let number = key[tail..].first_chunk::<8>();
            let number = number.ok_or_else(|| ReadError::Failed("a key is too short".into()))?;
            bytes += value.len();
            found.push((u64::from_be_bytes(*number), Bytes::from(value.into_vec())));
        }
        Ok(found)
    }
}

impl Storage for RocksStorage {
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        let space = disk_space(&self.path).map_err(|e| CommitError::Failed(e.to_string()))?;
        let reserve = RESERVE_BYTES.min(space.capacity / RESERVE_SHARE);
        if space.capacity - space.used < reserve + 2 * batch.bytes() as u64 {
            return Err(CommitError::NoSpace);
        }
        self.write(batch)
    }

    async fn read(&self, range: ReadRange) -> Result<Vec<Record>, ReadError> {
        self.apart(move |storage| read::messages(&storage.db, storage.family(LOG), range)).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, ReadError> {
        self.apart(|storage| {
            let mut found = storage.partitions_in(LOG)?;
            found.extend(storage.partitions_in(STATE)?);
            found.sort();
            found.dedup();
            Ok(found)
        })
        .await
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Bytes>, ReadError> {
        let value = self.db.get_cf(self.family(STATE), partition.0.to_be_bytes());
        let value = value.map_err(|error| ReadError::Failed(error.into_string()))?;
        Ok(value.map(Bytes::from))
    }

    async fn scan(
        &self,
        partition: PartitionId,
        from: EntryIndex,
        bytes_max: usize,
    ) -> Result<Vec<(EntryIndex, Bytes)>, ReadError> {
        self.apart(move |storage| {
            let start = log_key(partition, from);
            let end = log_key(partition, EntryIndex(u64::MAX));
            let found = storage.range(LOG, (&start, &end), 8, bytes_max)?;
            Ok(found.into_iter().map(|(index, bytes)| (EntryIndex(index), bytes)).collect())
        })
        .await
    }

    async fn changes(
        &self,
        from: ChangeIndex,
        bytes_max: usize,
    ) -> Result<Vec<(ChangeIndex, Bytes)>, ReadError> {
        self.apart(move |storage| {
            let (start, end) = (from.0.to_be_bytes(), u64::MAX.to_be_bytes());
            let found = storage.range(METADATA, (&start, &end), 0, bytes_max)?;
            Ok(found.into_iter().map(|(index, bytes)| (ChangeIndex(index), bytes)).collect())
        })
        .await
    }

    async fn usage(&self) -> Result<Usage, ReadError> {
        let failed = |error: std::io::Error| ReadError::Failed(error.to_string());
        let disk = disk_space(&self.path).map_err(failed)?;
        let Some(capacity) = self.disk_max_bytes else {
            return Ok(disk);
        };
        let own = Usage { used: folder_bytes(&self.path).map_err(failed)?, capacity };
        let fuller = |a: Usage, b: Usage| {
            u128::from(a.used) * u128::from(b.capacity) > u128::from(b.used) * u128::from(a.capacity)
        };
        Ok(if fuller(disk, own) { disk } else { own })
    }

    async fn close(&self) {
        for name in [LOG, STATE, METADATA] {
            if let Err(error) = self.db.flush_cf(self.family(name)) {
                tracing::warn!(%error, "the database is left with its log to replay");
            }
        }
        self.db.cancel_all_background_work(true);
        self.note.close();
    }
}

fn log_key(partition: PartitionId, index: EntryIndex) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&partition.0.to_be_bytes());
    key[8..].copy_from_slice(&index.0.to_be_bytes());
    key
}

fn database_options(options: &RocksOptions) -> Options {
    let mut opts = Options::default();
    opts.set_wal_recovery_mode(options.recovery);
    opts.set_recycle_log_file_num(options.recycled_logs);
    opts.set_track_and_verify_wals_in_manifest(true);
    opts.set_max_total_wal_size(256 << 20);
    opts.set_max_background_jobs(2);
    opts.set_bytes_per_sync(1 << 20);
    opts.set_wal_bytes_per_sync(1 << 20);
    opts.set_paranoid_checks(true);
    // The database's own log says what it did; a few files of it are enough.
    opts.set_keep_log_file_num(3);
    opts.set_max_log_file_size(4 << 20);
    opts
}

fn family_options(name: &str, capacity: u64) -> Options {
    let mut opts = Options::default();
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(64 << 10);
    blocks.set_format_version(5);
    opts.set_block_based_table_factory(&blocks);
    opts.set_compression_type(DBCompressionType::Lz4);
    let bytes = WRITE_BUFFER_BYTES.min(capacity / WRITE_BUFFER_SHARE).max(1 << 20);
    if name == LOG {
        opts.set_write_buffer_size(bytes as usize);
        opts.set_max_write_buffer_number(WRITE_BUFFERS);
    } else {
        opts.set_write_buffer_size((bytes as usize / 8).max(1 << 20));
    }
    opts
}

/// How full the disk under `path` is.
fn disk_space(path: &Path) -> std::io::Result<Usage> {
    let found = rustix::fs::statvfs(path)?;
    let capacity = found.f_blocks * found.f_frsize;
    // What only the superuser may still use counts as used.
    let free = found.f_bavail * found.f_frsize;
    Ok(Usage { used: capacity.saturating_sub(free), capacity })
}

/// The bytes of a folder's files.
fn folder_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(PathBuf::from(path))? {
        match entry?.metadata() {
            Ok(metadata) => bytes += metadata.len(),
            // A file that was deleted meanwhile takes no room.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
