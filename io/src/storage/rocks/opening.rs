//! How a database is opened without changing one that is damaged.
//!
//! RocksDB repairs as it opens: with point-in-time recovery it cuts its log at the first record
//! that it cannot read, flushes what came before and deletes the rest. So an existing database is
//! first opened for reading only, which replays the log into memory and writes nothing, and what
//! it then holds is compared with the note of the last sync.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::DB;

use super::note::Note;
use super::one_line;
use super::tuning::{FAMILIES, Sizes};
use crate::storage::OpenError;

/// The file by which RocksDB knows that there is a database.
const CURRENT: &str = "CURRENT";

/// Opens the database in `path`, or makes an empty one.
pub(super) fn open(path: &Path, sizes: Sizes) -> Result<(DB, Note), OpenError> {
    let note_path = path.with_extension("synced");
    match Note::read(&note_path)? {
        // Nothing was ever committed: a database that is half made is made anew.
        Some(0) => {}
        Some(noted) => check(path, sizes, noted)?,
        None if is_bare(path).map_err(failed)? => begin(path, &note_path).map_err(failed)?,
        None => {
            let name = note_path.display();
            let why = format!("{name} is missing beside the database; nothing was changed");
            return Err(OpenError::Failed(why));
        }
    }
    let mut opts = sizes.database();
    opts.create_if_missing(true);
    opts.create_missing_column_families(true);
    let db = DB::open_cf_descriptors(&opts, path, sizes.families());
    let db = db.map_err(|error| OpenError::Failed(one_line(error)))?;
    let note = Note::open(&note_path).map_err(failed)?;
    note.write(db.latest_sequence_number()).map_err(failed)?;
    Ok((db, note))
}

/// Looks whether a database reaches as far as is noted; changes nothing.
fn check(path: &Path, sizes: Sizes, noted: u64) -> Result<(), OpenError> {
    let found = if path.join(CURRENT).try_exists().map_err(failed)? {
        let look = DB::open_cf_for_read_only(&sizes.look(), path, FAMILIES, false);
        look.map_err(|error| OpenError::Failed(one_line(error)))?.latest_sequence_number()
    } else {
        0
    };
    if found < noted { Err(OpenError::Truncated { found, noted }) } else { Ok(()) }
}

/// Whether a folder has nothing in it, or does not exist.
fn is_bare(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut listed) => Ok(listed.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes the folder of a new database and, durably, its note.
fn begin(path: &Path, note_path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    Note::create(note_path)
}

fn failed(error: io::Error) -> OpenError {
    OpenError::Failed(error.to_string())
}
