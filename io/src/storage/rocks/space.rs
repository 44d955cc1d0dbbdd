//! How full the disk is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::storage::Usage;

/// A block of `st_blocks`, in bytes, on every file system.
const BLOCK_BYTES: u64 = 512;

/// The whole disk under `path`, used by anyone.
pub(super) fn of_disk(path: &Path) -> io::Result<Usage> {
    let found = rustix::fs::statvfs(path)?;
    let capacity = found.f_blocks * found.f_frsize;
    // What only the superuser may still use counts as used.
    let free = found.f_bavail * found.f_frsize;
    Ok(Usage { used: capacity.saturating_sub(free), capacity })
}

/// What the files in a folder take of the disk, which is not how long they are: a log file is
/// given its room ahead.
pub(super) fn of_folder(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        match entry?.metadata() {
            Ok(metadata) => bytes += metadata.blocks() * BLOCK_BYTES,
            // A file that was deleted meanwhile takes no room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Whichever of the two is nearer to its end.
pub(super) fn fuller(a: Usage, b: Usage) -> Usage {
    let share = |own: Usage, other: Usage| u128::from(own.used) * u128::from(other.capacity);
    if share(a, b) > share(b, a) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_one_counts() {
        let usage = |used, capacity| Usage { used, capacity };
        assert_eq!(fuller(usage(1, 10), usage(2, 10)), usage(2, 10));
        assert_eq!(fuller(usage(9, 10), usage(80, 100)), usage(9, 10));
        assert_eq!(fuller(usage(5, 0), usage(1, 10)), usage(5, 0), "a bound of nothing is full");
        let most = usage(u64::MAX, u64::MAX);
        assert_eq!(fuller(most, usage(1, 2)), most);
    }

    #[test]
    fn a_folder_is_as_large_as_its_files() {
        let folder = tempfile::tempdir().expect("a directory");
        assert_eq!(of_folder(folder.path()).expect("it lists"), 0);
        std::fs::write(folder.path().join("file"), vec![7; 100_000]).expect("written");
        let bytes = of_folder(folder.path()).expect("it lists");
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
        let disk = of_disk(folder.path()).expect("there is a disk");
        assert!(disk.used <= disk.capacity, "{disk:?}");
    }
}
