//! The note of the last sync: a few bytes in a file of their own, beside the database.
//!
//! RocksDB's recovery ends its log at the first record that it cannot read and opens without an
//! error. The note says how far the database must reach: it is written after each sync, so that
//! it survives the end of the process, and synced itself at the latest 100 ms later, so that it
//! survives the loss of power.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::storage::OpenError;

/// How long a note may wait for its own sync.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// A number and its checksum: within one sector, so that it is written whole or not at all.
const NOTE_BYTES: usize = 12;

/// An open note file.
#[derive(Debug)]
pub(super) struct Note {
    file: Arc<File>,
    written: Arc<AtomicU64>,
    /// Dropped to end the thread that syncs.
    _alive: Sender<()>,
}

impl Note {
    /// The last write that was noted.
    pub(super) fn read(path: &Path) -> Result<u64, OpenError> {
        let failed = |why: String| OpenError::Failed(format!("{}: {why}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let (number, checksum) = bytes
            .first_chunk::<NOTE_BYTES>()
            .and_then(|note| Some((note.first_chunk::<8>()?, note.last_chunk::<4>()?)))
            .ok_or_else(|| failed("the note of the last sync is cut".to_owned()))?;
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(number) {
            return Err(failed("the note of the last sync is damaged".to_owned()));
        }
        Ok(u64::from_le_bytes(*number))
    }

    /// Makes the note of a new database, durably, before the database itself is made.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        file.write_all_at(&encode(0), 0)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Self::keep(file)
    }

    /// Opens the note of an existing database for writing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::keep(OpenOptions::new().write(true).open(path)?)
    }

    fn keep(file: File) -> io::Result<Self> {
        let (file, written) = (Arc::new(file), Arc::new(AtomicU64::new(0)));
        let (alive, ended) = channel();
        let (synced_file, noted) = (file.clone(), written.clone());
        std::thread::Builder::new().name("sprawl-note".to_owned()).spawn(move || {
            let mut synced = 0;
            while ended.recv_timeout(SYNC_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let last = noted.load(Ordering::Acquire);
                if last != synced {
                    match synced_file.sync_data() {
                        Ok(()) => synced = last,
                        Err(error) => tracing::warn!(%error, "the note of the last sync"),
                    }
                }
            }
        })?;
        Ok(Self { file, written, _alive: alive })
    }

    /// Notes that everything up to this write is synced.
    pub(super) fn write(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(sequence), 0)?;
        self.written.store(sequence, Ordering::Release);
        Ok(())
    }

    /// Syncs what was written last.
    pub(super) fn close(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, "the note of the last sync");
        }
    }
}

fn encode(sequence: u64) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    let number = sequence.to_le_bytes();
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&crc32c::crc32c(&number).to_le_bytes());
    bytes
}
