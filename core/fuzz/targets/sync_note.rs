//! The note of the last sync: a file of any content is a number that was noted, or is refused.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

use self::note::Note;

/// What the room expects of its house, which is not there without a database.
mod storage {
    pub(crate) use sprawl_io::storage::OpenError;
}

#[path = "../../../io/src/storage/rocks/note.rs"]
#[expect(dead_code, reason = "only reading is fuzzed")]
mod note;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for the file")
});

fuzz_target!(|data: &[u8]| {
    take(data);
    if let Some(number) = data.first_chunk::<8>() {
        let checksum = crc32c::crc32c(number).to_le_bytes();
        let sealed = [&number[..], &checksum].concat();
        assert_eq!(take(&sealed), Some(u64::from_le_bytes(*number)), "a good note is refused");
    }
});

fn take(content: &[u8]) -> Option<u64> {
    let path = FOLDER.path().join("synced");
    std::fs::write(&path, content).expect("the file is written");
    Note::read(&path).ok().map(|noted| noted.expect("a file that is there is no missing one"))
}
