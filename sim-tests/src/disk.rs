//! A simulated disk: what was synced stays, what was not may not, and it breaks when told to.
//!
//! It outlives the processes that use it. Each process opens it anew; what a dead one still has
//! under way never arrives.

mod atlas;
#[cfg(test)]
mod contract;
mod faults;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sprawl_core::broker::replica::{Record, Recovery, Replica};
use sprawl_core::ids::{ChangeIndex, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::{Unreadable, WallTime};
use sprawl_io::storage::{
    Batch, Cell, CommitError, Disk, Files, MetadataWrite, OpenError, ReadError, ReadRange, Storage,
    Usage,
};

pub(crate) use atlas::Atlas;

use crate::invariants::Findings;
use crate::plan::{DiskPace, Draw};

/// What the platters hold.
#[derive(Clone, Default)]
pub(crate) struct Platters {
    files: BTreeMap<String, Vec<u8>>,
    pub(crate) log: BTreeMap<(PartitionId, EntryIndex), Bytes>,
    states: BTreeMap<PartitionId, Bytes>,
    /// The highest epoch that was accepted.
    accepted: BTreeMap<PartitionId, Epoch>,
    /// Partitions whose log does not begin at its first entry any more.
    cut: BTreeSet<PartitionId>,
    /// How often a log gave way to a state that begins later.
    installed: u64,
    changes: BTreeMap<ChangeIndex, Bytes>,
    cells: BTreeMap<Cell, Bytes>,
    /// Written by the process that runs, and not yet synced; in order.
    unsynced: VecDeque<Batch>,
}

/// A disk with its faults, shared by the world and the process that has it open.
pub(crate) struct State {
    pub(crate) platters: Platters,
    pub(crate) atlas: Atlas,
    pub(crate) findings: Findings,
    /// Whether others hold copies of its partitions: what it holds may be cut, and by itself says
    /// nothing.
    is_one_of_many: bool,
    /// Who is told of each step of the metadata log, when it is written and when it is synced.
    witness: Option<Witness>,
    pace: DiskPace,
    dice: Draw,
    /// Which process has it open; an older one's writes and answers are lost.
    opened: u64,
    pub(crate) full: bool,
    pub(crate) fail_next_sync: bool,
    pub(crate) stalled_until: Option<tokio::time::Instant>,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The disk may lose it.
    Written,
    /// It stays.
    Synced,
}

type Witness = Arc<dyn Fn(Moment, &MetadataWrite) + Send + Sync>;

/// A handle to the disk of one node.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// The disk as one process has opened it.
#[derive(Clone)]
pub(crate) struct SimStorage {
    disk: SimDisk,
    opened: u64,
}

impl SimDisk {
    pub(crate) fn new(pace: DiskPace, dice: Draw, findings: Findings) -> Self {
        let state = State {
            platters: Platters::default(),
            atlas: Atlas::default(),
            findings,
            is_one_of_many: false,
            witness: None,
            pace,
            dice,
            opened: 0,
            full: false,
            fail_next_sync: false,
            stalled_until: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Others hold copies of its partitions.
    pub(crate) fn one_of_many(self) -> Self {
        self.lock().is_one_of_many = true;
        self
    }

    /// Has somebody told of each step of the metadata log.
    pub(crate) fn witnessed(
        self,
        witness: impl Fn(Moment, &MetadataWrite) + Send + Sync + 'static,
    ) -> Self {
        self.lock().witness = Some(Arc::new(witness));
        self
    }

    /// What is synced, as a copy of the directory that is made now would have it.
    pub(crate) fn image(&self) -> Platters {
        let platters = self.lock().platters.clone();
        Platters { unsynced: VecDeque::new(), ..platters }
    }

    /// The last synced entry of a partition's log; `None` where it has none.
    pub(crate) fn log_end(&self, partition: PartitionId) -> Option<EntryIndex> {
        let state = self.lock();
        let all = (partition, EntryIndex(0))..=(partition, EntryIndex(u64::MAX));
        state.platters.log.range(all).next_back().map(|(&(_, index), _)| index)
    }

    /// A synced entry of a partition's log, if it is there.
    pub(crate) fn entry(&self, partition: PartitionId, at: EntryIndex) -> Option<Bytes> {
        self.lock().platters.log.get(&(partition, at)).cloned()
    }

    /// What a start would find of a partition whose log has lost its beginning; nothing of others.
    pub(crate) fn cut_partition(&self, partition: PartitionId) -> Option<Replica> {
        let state = self.lock();
        state.platters.cut.contains(&partition).then_some(())?;
        let stored = state.platters.states.get(&partition);
        let mut recovery = Recovery::begin(partition, stored.map(|bytes| &bytes[..]));
        let all = (partition, recovery.from())..=(partition, EntryIndex(u64::MAX));
        let mut log = state.platters.log.range(all);
        while log.next().is_some_and(|(&(_, at), bytes)| recovery.feed(at, bytes.clone())) {}
        Some(recovery.finish())
    }

    /// How often a log on it gave way to a state that begins later.
    pub(crate) fn installed(&self) -> u64 {
        self.lock().platters.installed
    }

    /// Puts an image in the place of what it holds. Its process must be dead.
    pub(crate) fn restore(&self, image: Platters) {
        self.lock().platters = image;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as the disk takes for something of at most `us_max` microseconds.
    async fn take_time(&self, (us_min, us_max): (u64, u64)) {
        let span = Duration::from_micros(self.lock().dice.range(us_min, us_max));
        tokio::time::sleep(span).await;
        loop {
            let until = self.lock().stalled_until;
            match until {
                Some(until) if until > tokio::time::Instant::now() => {
                    tokio::time::sleep_until(until).await;
                }
                Some(_) | None => return,
            }
        }
    }
}

impl SimStorage {
    /// Returns if the process that asks is alive; the answers to a dead one never come.
    async fn alive(&self) {
        if self.disk.lock().opened != self.opened {
            std::future::pending::<()>().await;
        }
    }

    async fn read_time(&self) {
        let us_max = self.disk.lock().pace.read_us_max;
        self.disk.take_time((20, us_max)).await;
    }
}

impl Storage for SimStorage {
    async fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        self.alive().await;
        let mut state = self.disk.lock();
        if state.full {
            return Err(CommitError::NoSpace);
        }
        state.written(batch);
        state.platters.unsynced.push_back(batch.clone());
        Ok(())
    }

    async fn sync(&self) -> Result<(), CommitError> {
        self.alive().await;
        let (written, pace) = {
            let state = self.disk.lock();
            (state.platters.unsynced.len(), (state.pace.sync_us_min, state.pace.sync_us_max))
        };
        self.disk.take_time(pace).await;
        self.alive().await;
        let mut state = self.disk.lock();
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(CommitError::Failed("input/output error".to_owned()));
        }
        for _ in 0..written {
            let batch = state.platters.unsynced.pop_front().expect("it was written before");
            state.settle(&batch);
        }
        Ok(())
    }

    async fn read(&self, range: ReadRange) -> Result<Vec<Record>, ReadError> {
        self.read_time().await;
        self.alive().await;
        let state = self.disk.lock();
        Ok(state.platters.messages(range)?)
    }

    async fn seek(
        &self,
        partition: PartitionId,
        at: WallTime,
        first: EntryIndex,
        below: EntryIndex,
    ) -> Result<Option<Offset>, ReadError> {
        self.read_time().await;
        self.alive().await;
        let state = self.disk.lock();
        let (mut low, mut high, mut found) = (first.0, below.0, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = state.platters.entry(partition, EntryIndex(middle))?;
            if record.header().time < at {
                low = middle + 1;
            } else {
                high = middle;
                found = Some(record.header().offset);
            }
        }
        Ok(found)
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, ReadError> {
        self.alive().await;
        let state = self.disk.lock();
        let logs = state.platters.log.keys().map(|&(partition, _)| partition);
        let others = state.platters.states.keys().chain(state.platters.accepted.keys()).copied();
        let mut all: Vec<_> = logs.chain(others).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<Option<Bytes>, ReadError> {
        self.read_time().await;
        self.alive().await;
        Ok(self.disk.lock().platters.states.get(&partition).cloned())
    }

    async fn accepted(&self, partition: PartitionId) -> Result<Option<Epoch>, ReadError> {
        self.read_time().await;
        self.alive().await;
        Ok(self.disk.lock().platters.accepted.get(&partition).copied())
    }

    async fn scan(
        &self,
        partition: PartitionId,
        from: EntryIndex,
        bytes_max: usize,
    ) -> Result<Vec<(EntryIndex, Bytes)>, ReadError> {
        self.read_time().await;
        self.alive().await;
        let state = self.disk.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        let all = (partition, from)..=(partition, EntryIndex(u64::MAX));
        for (&(_, index), record) in state.platters.log.range(all) {
            if bytes >= bytes_max && !found.is_empty() {
                break;
            }
            bytes += record.len();
            found.push((index, record.clone()));
        }
        Ok(found)
    }

    async fn changes(
        &self,
        from: ChangeIndex,
        bytes_max: usize,
    ) -> Result<Vec<(ChangeIndex, Bytes)>, ReadError> {
        self.read_time().await;
        self.alive().await;
        let state = self.disk.lock();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (&index, change) in state.platters.changes.range(from..) {
            if bytes >= bytes_max && !found.is_empty() {
                break;
            }
            bytes += change.len();
            found.push((index, change.clone()));
        }
        Ok(found)
    }

    async fn cell(&self, cell: Cell) -> Result<Option<Bytes>, ReadError> {
        self.read_time().await;
        self.alive().await;
        Ok(self.disk.lock().platters.cells.get(&cell).cloned())
    }

    async fn usage(&self) -> Result<Usage, ReadError> {
        self.alive().await;
        let full = self.disk.lock().full;
        Ok(Usage { used: if full { 100 } else { 10 }, capacity: 100 })
    }

    async fn close(&self) {}
}

impl Platters {
    /// Whether a node has never had this directory.
    pub(crate) fn are_new(&self) -> bool {
        self.files.is_empty()
    }

    /// Messages of a range, each checked; damage before the first wanted one does not matter, and
    /// what is missing is as bad as what is damaged.
    fn messages(&self, range: ReadRange) -> Result<Vec<Record>, Unreadable> {
        let ReadRange { partition, from, first: lowest, below, count_max, bytes_max } = range;
        let (mut found, mut bytes, mut damage) = (Vec::<Record>::new(), 0, None);
        let first = self.log.range((partition, lowest)..).next();
        let Some(first) = first.map(|(&(at, index), _)| (at, index)) else {
            return Ok(found);
        };
        if first.0 != partition {
            return Ok(found);
        }
        // An entry's index is above its offset: the one at `from` + 1 is not past the wanted one.
        let mut index = first.1.max(EntryIndex(from.0.saturating_add(1)).min(below));
        while index < below && found.len() < count_max {
            match self.entry(partition, index) {
                Ok(record) => {
                    let header = *record.header();
                    if header.offset <= from {
                        damage = None;
                    }
                    if damage.is_some() {
                        break;
                    }
                    if header.is_message && header.offset >= from {
                        bytes += record.len();
                        if bytes > bytes_max && !found.is_empty() {
                            break;
                        }
                        found.push(record);
                    }
                }
                Err(_) if !found.is_empty() => break,
                Err(unreadable) => {
                    damage.get_or_insert(unreadable);
                }
            }
            index = index.next();
        }
        match damage {
            Some(damage) if found.is_empty() => Err(damage),
            Some(_) | None => Ok(found),
        }
    }

    fn entry(&self, partition: PartitionId, index: EntryIndex) -> Result<Record, Unreadable> {
        let unreadable = |reason: String| Unreadable { partition, index, reason };
        let stored = self.log.get(&(partition, index));
        let stored = stored.ok_or_else(|| unreadable("the entry is missing".to_owned()))?;
        let record = Record::open(partition, stored.clone())
            .map_err(|error| unreadable(error.to_string()))?;
        if record.header().index != index {
            let found = record.header().index;
            return Err(unreadable(format!("entry {found} lies in its place")));
        }
        Ok(record)
    }
}

impl Files for SimDisk {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lock().platters.files.get(name).cloned())
    }

    async fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.lock().platters.files.insert(name.to_owned(), content.to_vec());
        Ok(())
    }

    async fn holds_data(&self) -> io::Result<bool> {
        let platters = &self.lock().platters;
        Ok(!platters.changes.is_empty() || !platters.cells.is_empty())
    }
}

impl Disk for SimDisk {
    type Storage = SimStorage;
    type Files = SimDisk;

    fn files(&self) -> &SimDisk {
        self
    }

    async fn open(&self) -> Result<SimStorage, OpenError> {
        let mut state = self.lock();
        state.opened += 1;
        Ok(SimStorage { disk: self.clone(), opened: state.opened })
    }
}
