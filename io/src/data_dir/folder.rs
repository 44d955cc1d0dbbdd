//! A data directory on a real file system: the lock, the small files, the database's folder.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::storage::rocks::{RocksOptions, RocksStorage};
use crate::storage::{Disk, Files, OpenError};

/// The file that one process at a time holds locked.
const LOCK_FILE: &str = "lock";
/// The folder of the database.
const DATABASE: &str = "db";
/// The note that the database keeps beside its folder.
const NOTE: &str = "db.synced";

/// Why a directory cannot be used. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process runs a node from it.
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// It cannot be made or locked.
    #[error("the data directory {0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A data directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    files: Folder,
    options: RocksOptions,
    _lock: File,
}

/// The small files of a directory.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl DataDir {
    /// Makes the directory where it does not exist, and locks it.
    ///
    /// # Errors
    ///
    /// [`DirError`] in one line.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, DirError> {
        let failed = |error| DirError::Io(path.to_owned(), error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self { files: Folder { path: path.to_owned() }, options, _lock: lock })
    }
}

impl Files for Folder {
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let next = self.path.join(format!("{name}.next"));
        let mut file = File::create(&next)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    async fn holds_data(&self) -> io::Result<bool> {
        Ok(self.path.join(DATABASE).try_exists()? || self.path.join(NOTE).try_exists()?)
    }
}

impl Disk for DataDir {
    type Storage = RocksStorage;
    type Files = Folder;

    fn files(&self) -> &Folder {
        &self.files
    }

    async fn open(&self) -> Result<RocksStorage, OpenError> {
        RocksStorage::open(&self.files.path.join(DATABASE), &self.options)
    }
}
