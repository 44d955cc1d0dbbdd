//! What a node's disk does for it, and the contract that every implementation passes.

use std::future::Future;
use std::io;

use bytes::Bytes;
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::{ChangeIndex, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::{Store, Unreadable, WallTime};

pub mod contract;
#[cfg(not(madsim))]
pub mod rocks;

/// What one sync is to make durable: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Entries and states of partitions, in the order in which the shards asked.
    pub stores: Vec<Store>,
    /// Partitions to forget, after what is stored of them.
    pub erased: Vec<PartitionId>,
    /// What consensus on the metadata asks for, in its order.
    pub metadata: Vec<MetadataWrite>,
}

/// A step of the metadata log and of what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataWrite {
    /// An entry stands at this index.
    Entry(ChangeIndex, Bytes),
    /// The entries from this index on are gone.
    Truncate(ChangeIndex),
    /// The entries below this index are gone.
    Purge(ChangeIndex),
    /// A cell holds this, and not what it held.
    Cell(Cell, Bytes),
}

/// What stands beside the metadata log, each as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// Who this node is in the group that agrees.
    Membership,
    /// The newest vote.
    Vote,
    /// Up to where the log is known to be committed.
    Committed,
    /// Up to where the log was purged.
    Purged,
    /// The newest snapshot.
    Snapshot,
}

impl MetadataWrite {
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(_, bytes) | Self::Cell(_, bytes) => bytes.len(),
            Self::Truncate(_) | Self::Purge(_) => 0,
        }
    }
}

impl Batch {
    /// How many keys the batch touches, about.
    #[must_use]
    pub fn writes(&self) -> usize {
        let of = |store: &Store| store.records.len() + 3;
        self.stores.iter().map(of).sum::<usize>() + self.erased.len() + self.metadata.len()
    }

    /// How many bytes the batch holds, without keys.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let records = self.stores.iter().flat_map(|store| &store.records).map(Record::len);
        let states = self.stores.iter().filter_map(|store| store.checkpoint.as_ref());
        let metadata = self.metadata.iter().map(MetadataWrite::bytes);
        records.chain(states.map(|state| state.bytes.len())).chain(metadata).sum()
    }
}

/// Why a batch is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no room. Nothing of the batch was written; it may be committed again later.
    #[error("no space left on the disk")]
    NoSpace,
    /// The write or the sync failed. What is on the disk is unknown until the node has started
    /// anew and read it back; this storage takes nothing more.
    #[error("the disk failed: {0}")]
    Failed(String),
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An entry within the range is not what was written.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The disk could not be read at all.
    #[error("the disk failed: {0}")]
    Failed(String),
}

/// Which messages a read wants.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    /// Of which partition.
    pub partition: PartitionId,
    /// The first offset wanted; the read begins at the first message not below it.
    pub from: Offset,
    /// No entry below this index is there any more.
    pub first: EntryIndex,
    /// No entry at or above this index.
    pub below: EntryIndex,
    /// How many messages at most.
    pub count_max: usize,
    /// How many bytes at most, but always one message.
    pub bytes_max: usize,
}

/// How full the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use: of the configured bound by this node, else of the whole disk by anyone.
    pub used: u64,
    /// Bytes that there are.
    pub capacity: u64,
}

/// A node's durable memory: partition logs and states, and the metadata log.
///
/// A batch is atomic and, once a [`sync`](Storage::sync) that began after it was written has
/// returned `Ok`, survives the loss of power. After a crash the disk holds every batch that was
/// synced and, of those written later, some first ones, each whole. Cloning gives another handle
/// to the same disk.
pub trait Storage: Clone + Send + Sync + 'static {
    /// Hands a batch to the disk, which may lose it until it is synced. Called by one task at a
    /// time, also while a sync is under way.
    ///
    /// # Errors
    ///
    /// [`CommitError`] says what then is on the disk.
    fn write(&self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Makes everything durable that was written before. Called by one task at a time.
    ///
    /// # Errors
    ///
    /// [`CommitError::Failed`].
    fn sync(&self) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Writes a batch and syncs it.
    ///
    /// # Errors
    ///
    /// Those of both.
    fn commit(&self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        async {
            self.write(batch).await?;
            self.sync().await
        }
    }

    /// Reads messages (notes are stepped over), each checked.
    ///
    /// A damaged entry ends the read before it; when it is the first, it is the error.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; never a wrong byte, and never fewer messages than there are without one of
    /// the bounds of `range` being reached. What is missing below `below`, at the end of the log
    /// too, is as bad as what is damaged.
    fn read(&self, range: ReadRange)
    -> impl Future<Output = Result<Vec<Record>, ReadError>> + Send;

    /// The offset of the first message, or of the message after the first note, that is not older
    /// than `at`, among the entries from `first` to before `below`; `None` when all are older.
    /// Times do not fall from one entry to the next.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    fn seek(
        &self,
        partition: PartitionId,
        at: WallTime,
        first: EntryIndex,
        below: EntryIndex,
    ) -> impl Future<Output = Result<Option<Offset>, ReadError>> + Send;

    /// The partitions of which anything is on the disk, ascending.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn partitions(&self) -> impl Future<Output = Result<Vec<PartitionId>, ReadError>> + Send;

    /// The newest state that was stored of a partition, as it was given.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn checkpoint(
        &self,
        partition: PartitionId,
    ) -> impl Future<Output = Result<Option<Bytes>, ReadError>> + Send;

    /// The highest epoch of a partition that was stored as accepted.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn accepted(
        &self,
        partition: PartitionId,
    ) -> impl Future<Output = Result<Option<Epoch>, ReadError>> + Send;

    /// Raw entries of a partition with their indexes, from `from` on, unchecked, about
    /// `bytes_max` of them but at least one; none when there are none. For recovery, which checks
    /// them itself.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unreadable`] when the disk does not give the first of them, and
    /// [`ReadError::Failed`].
    fn scan(
        &self,
        partition: PartitionId,
        from: EntryIndex,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<(EntryIndex, Bytes)>, ReadError>> + Send;

    /// The metadata log from `from` on, about `bytes_max` of it but at least one entry; none
    /// when there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn changes(
        &self,
        from: ChangeIndex,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<(ChangeIndex, Bytes)>, ReadError>> + Send;

    /// What a cell beside the metadata log holds.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn cell(&self, cell: Cell) -> impl Future<Output = Result<Option<Bytes>, ReadError>> + Send;

    /// How full the disk is.
    ///
    /// # Errors
    ///
    /// [`ReadError::Failed`].
    fn usage(&self) -> impl Future<Output = Result<Usage, ReadError>> + Send;

    /// Leaves the disk so that the next start has nothing to replay. Nothing is lost without it.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The few small files beside the database.
pub trait Files: Send + Sync + 'static {
    /// A file's content; `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// The disk's own.
    fn read(&self, name: &str) -> impl Future<Output = io::Result<Option<Vec<u8>>>> + Send;

    /// Puts `content` in the place of the file's former content: durable, and never a mixture,
    /// when it returns.
    ///
    /// # Errors
    ///
    /// The disk's own; the file then holds the former or the new content, whole.
    fn replace(&self, name: &str, content: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Whether there is a database beside the files, so that a missing file means damage.
    ///
    /// # Errors
    ///
    /// The disk's own.
    fn holds_data(&self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// A place where a node keeps itself: small files, and a database that opens after them.
pub trait Disk: Send + Sync + 'static {
    /// The database.
    type Storage: Storage;
    /// The small files.
    type Files: Files;

    /// The small files.
    fn files(&self) -> &Self::Files;

    /// Opens the database, or makes an empty one.
    ///
    /// # Errors
    ///
    /// [`OpenError`] in one line; nothing on the disk was changed for the worse.
    fn open(&self) -> impl Future<Output = Result<Self::Storage, OpenError>> + Send;
}

/// Why a database does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It ends before what is known to have been synced.
    #[error(
        "the database is damaged: it holds writes up to {found}, but {noted} were synced; \
         {} are missing. Restore the directory from a copy; nothing was changed", noted - found
    )]
    Truncated {
        /// The last write that it holds.
        found: u64,
        /// The last write that was noted as synced.
        noted: u64,
    },
    /// The database itself refuses.
    #[error("the database does not open: {0}")]
    Failed(String),
}
