//! The configuration: any arguments, any variables and any file are a configuration or one line
//! that says what is wrong.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sprawl_server::VERSION;
use tempfile::TempDir;

#[path = "../../../server/src/config/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "only reading is fuzzed")]
mod config;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for the file")
});

// Lines up to an empty one are arguments, or variables where they begin with `$`; the rest is the
// file.
fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, file) = text.split_once("\n\n").unwrap_or((text, ""));
    let path = FOLDER.path().join("file.toml");
    std::fs::write(&path, file).expect("the file is written");
    let (variables, arguments): (Vec<&str>, _) = head.lines().partition(|l| l.starts_with('$'));
    let variable = |name: &str| {
        if name == "SPRAWL_CONFIG" {
            return Some(path.display().to_string());
        }
        let mut given = variables.iter().filter_map(|line| line[1..].split_once('='));
        given.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    // A flag that names another file would read what is on this machine.
    let arguments = arguments.into_iter().filter(|argument: &&str| !argument.contains("config"));
    match config::read(arguments.map(str::to_owned).collect(), &variable) {
        Ok(_) => {}
        Err(error) => {
            let said = error.to_string();
            assert!(!said.trim().is_empty(), "a refusal without a reason");
        }
    }
});
