//! Directories to damage, and what stands in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An empty directory, gone at the end of the test.
pub(crate) fn empty() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// All files under a directory, with their content.
pub(crate) fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("it is a directory") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            let bytes = fs::read(&path).expect("it can be read");
            found.insert(path, bytes);
        }
    }
    found
}

/// A copy of a directory: what a process that is killed now leaves behind.
pub(crate) fn image(folder: &Path) -> TempDir {
    let copy = empty();
    for (path, bytes) in content(folder) {
        let inside = path.strip_prefix(folder).expect("it was found there");
        let to = copy.path().join(inside);
        fs::create_dir_all(to.parent().expect("it lies in a directory")).expect("made");
        fs::write(to, bytes).expect("written");
    }
    copy
}

/// The largest file of the database with this extension.
pub(crate) fn largest(folder: &Path, extension: &str) -> PathBuf {
    let files = content(&folder.join("db"));
    let of_kind = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == extension));
    let (path, _) = of_kind.max_by_key(|(_, bytes)| bytes.len()).expect("there is one");
    path.clone()
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[at] ^= 1 << 2;
    fs::write(path, bytes).expect("written");
}
