//! A disk that is memory: it keeps what a node needs while it runs, and never fails; and sockets
//! that reach nobody.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sprawl_core::broker::replica::Record;
use sprawl_core::ids::{ChangeIndex, EntryIndex, Epoch, Offset, PartitionId};
use sprawl_core::machine::WallTime;
use sprawl_io::peer::{Halves, Sockets};
use sprawl_io::storage::{
    Batch, Cell, CommitError, Disk, Files, OpenError, ReadError, ReadRange, Storage, Usage,
};

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    files: BTreeMap<String, Vec<u8>>,
    log: BTreeMap<(PartitionId, EntryIndex), Record>,
}

impl Memory {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

impl Storage for Memory {
    async fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut held = self.held();
        for store in &batch.stores {
            for record in &store.records {
                held.log.insert((store.partition, record.header().index), record.clone());
            }
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn read(&self, range: ReadRange) -> Result<Vec<Record>, ReadError> {
        let ReadRange { partition, from, first, below, count_max, bytes_max } = range;
        let held = self.held();
        let all = held.log.range((partition, first)..(partition, below));
        let wanted = all.map(|(_, record)| record).filter(|record| {
            let header = record.header();
            header.is_message && header.offset >= from
        });
        let mut bytes = 0;
        let taken = wanted.take(count_max).take_while(|record| {
            let first = bytes == 0;
            bytes += record.len();
            first || bytes <= bytes_max
        });
        Ok(taken.cloned().collect())
    }

    async fn seek(
        &self,
        partition: PartitionId,
        at: WallTime,
        first: EntryIndex,
        below: EntryIndex,
    ) -> Result<Option<Offset>, ReadError> {
        let held = self.held();
        let mut all = held.log.range((partition, first)..(partition, below));
        let found = all.find(|(_, record)| record.header().time >= at);
        Ok(found.map(|(_, record)| record.header().offset))
    }

    async fn partitions(&self) -> Result<Vec<PartitionId>, ReadError> {
        Ok(Vec::new())
    }

    async fn checkpoint(&self, _: PartitionId) -> Result<Option<Bytes>, ReadError> {
        Ok(None)
    }

    async fn accepted(&self, _: PartitionId) -> Result<Option<Epoch>, ReadError> {
        Ok(None)
    }

    async fn scan(
        &self,
        _: PartitionId,
        _: EntryIndex,
        _: usize,
    ) -> Result<Vec<(EntryIndex, Bytes)>, ReadError> {
        Ok(Vec::new())
    }

    async fn changes(
        &self,
        _: ChangeIndex,
        _: usize,
    ) -> Result<Vec<(ChangeIndex, Bytes)>, ReadError> {
        Ok(Vec::new())
    }

    async fn cell(&self, _: Cell) -> Result<Option<Bytes>, ReadError> {
        Ok(None)
    }

    async fn usage(&self) -> Result<Usage, ReadError> {
        Ok(Usage { used: 10, capacity: 100 })
    }

    async fn close(&self) {}
}

impl Files for Memory {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.held().files.get(name).cloned())
    }

    async fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.held().files.insert(name.to_owned(), content.to_vec());
        Ok(())
    }

    async fn holds_data(&self) -> io::Result<bool> {
        Ok(false)
    }
}

impl Disk for Memory {
    type Storage = Memory;
    type Files = Memory;

    fn files(&self) -> &Memory {
        self
    }

    async fn open(&self) -> Result<Memory, OpenError> {
        Ok(self.clone())
    }
}

/// Sockets that reach nobody.
#[derive(Clone)]
pub(crate) struct Nobody;

impl Sockets for Nobody {
    type Reader = tokio::io::Empty;
    type Writer = tokio::io::Sink;

    fn local(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7946))
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Halves<Self>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    async fn accept(&self) -> io::Result<(SocketAddr, Halves<Self>)> {
        std::future::pending().await
    }

    fn send_datagram(&self, _: SocketAddr, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn receive_datagram(&self, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::pending().await
    }
}
