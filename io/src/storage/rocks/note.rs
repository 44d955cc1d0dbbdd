//! The note of the last sync: a few bytes in a file of their own, beside the database.
//!
//! RocksDB's recovery ends its log at the first record that it cannot read and opens without an
//! error. The note says how far the database must reach: it is written after each sync, so that
//! it survives the end of the process, and synced itself at the latest 100 ms later, so that it
//! survives the loss of power.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
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
    /// Whether the thread that syncs has been told of something that it has not synced.
    told: Arc<AtomicBool>,
    /// Wakes it; dropped to end it.
    wake: SyncSender<()>,
}

impl Note {
    /// The last write that was noted; `None` when there is no note.
    pub(super) fn read(path: &Path) -> Result<Option<u64>, OpenError> {
        let failed = |why: &str| {
            let path = path.display();
            OpenError::Failed(format!("the note of the last sync, {path}, {why}"))
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&format!("cannot be read: {error}"))),
        };
        let bytes: [u8; NOTE_BYTES] =
            bytes.try_into().map_err(|_| failed("has a wrong length; nothing was changed"))?;
        let number = u64::from_le_bytes(*bytes.first_chunk().expect("8 of 12 bytes"));
        if bytes != encode(number) {
            return Err(failed("is damaged; nothing was changed"));
        }
        Ok(Some(number))
    }

    /// Makes the note of a new database, durably, before the database itself is made.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        let next = path.with_extension("synced.next");
        let mut file = File::create(&next)?;
        file.write_all(&encode(0))?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Opens the note of a database for writing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(OpenOptions::new().write(true).open(path)?);
        let written = Arc::new(AtomicU64::new(0));
        let told = Arc::new(AtomicBool::new(false));
        let (wake, woken) = sync_channel(1);
        let keeper = Keeper { file: file.clone(), written: written.clone(), told: told.clone() };
        let thread = std::thread::Builder::new().name("sprawl-note".to_owned());
        thread.spawn(move || {
            let mut synced = 0;
            // One that could not be synced is tried again.
            while keeper.is_behind(synced) || woken.recv().is_ok() {
                // What is written meanwhile shares the sync, and wakes nobody.
                if woken.recv_timeout(SYNC_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
                synced = keeper.sync(synced);
            }
        })?;
        Ok(Self { file, written, told, wake })
    }

    /// Notes that everything up to this write is synced. The first one of all is durable at once:
    /// until then, nothing tells the database from one that is half made.
    pub(super) fn write(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(sequence), 0)?;
        if self.written.swap(sequence, Ordering::AcqRel) == 0 && sequence > 0 {
            self.file.sync_data()?;
        }
        if !self.told.swap(true, Ordering::AcqRel) {
            // The thread is there as long as this is, and was told only once.
            let _ = self.wake.try_send(());
        }
        Ok(())
    }

    /// Syncs what was written last.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What the thread that syncs the note needs.
struct Keeper {
    file: Arc<File>,
    written: Arc<AtomicU64>,
    told: Arc<AtomicBool>,
}

impl Keeper {
    fn is_behind(&self, synced: u64) -> bool {
        self.written.load(Ordering::Acquire) != synced
    }

    /// Syncs the note if it was written since, and says up to where it now is.
    fn sync(&self, synced: u64) -> u64 {
        // Whoever writes from here on wakes the thread again.
        self.told.store(false, Ordering::Release);
        let last = self.written.load(Ordering::Acquire);
        if last != synced
            && let Err(error) = self.file.sync_data()
        {
            tracing::warn!(%error, "the note of the last sync could not be synced");
            return synced;
        }
        last
    }
}

fn encode(sequence: u64) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    let number = sequence.to_le_bytes();
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&crc32c::crc32c(&number).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_was_written_last() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("db.synced");
        assert_eq!(Note::read(&path).expect("it reads"), None);
        Note::create(&path).expect("made");
        assert_eq!(Note::read(&path).expect("it reads"), Some(0));
        let note = Note::open(&path).expect("it opens");
        for number in [1, 300, u64::MAX] {
            note.write(number).expect("written");
            assert_eq!(Note::read(&path).expect("it reads"), Some(number));
        }
        note.sync().expect("synced");
        for bad in [&b""[..], b"short", b"not twelve bytes", b"twelve bytes"] {
            std::fs::write(&path, bad).expect("written");
            assert!(Note::read(&path).is_err(), "{bad:?}");
        }
    }
}
