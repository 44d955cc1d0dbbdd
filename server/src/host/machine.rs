//! The host's figures, as sysinfo reads them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sysinfo::{Disks, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{Host, Reading};

/// How deep the data directory is walked.
const FOLDERS_DEEP_MAX: usize = 4;
/// A block of `st_blocks`, in bytes, on every file system.
const BLOCK_BYTES: u64 = 512;

/// The machine that this process runs on.
#[derive(Debug)]
pub struct Machine {
    system: Mutex<System>,
    data: PathBuf,
    data_bytes_max: Option<u64>,
}

impl Machine {
    /// The machine, with a data directory and the bound that is configured for it.
    #[must_use]
    pub fn new(data: &Path, data_bytes_max: Option<u64>) -> Self {
        let mut system = System::new();
        // Processor use is measured between two readings; this is the first.
        system.refresh_cpu_usage();
        let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
        Self { system: Mutex::new(system), data, data_bytes_max }
    }
}

impl Host for Machine {
    fn read(&self) -> Reading {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        system.refresh_cpu_usage();
        system.refresh_memory();
        let me = Pid::from_u32(std::process::id());
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), true, what);
        let process = system.process(me);
        let networks = Networks::new_with_refreshed_list();
        let disks = Disks::new_with_refreshed_list();
        // The longest mount point that leads to the directory is the one that holds it.
        let disk = disks
            .iter()
            .filter(|disk| self.data.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().as_os_str().len());
        Reading {
            cpu_percent: f64::from(system.global_cpu_usage()),
            cpu_count: system.cpus().len() as u64,
            load_one_minute: System::load_average().one,
            memory_total_bytes: system.total_memory(),
            memory_used_bytes: system.used_memory(),
            process_resident_bytes: process.map_or(0, sysinfo::Process::memory),
            process_cpu_percent: process.map_or(0.0, |process| f64::from(process.cpu_usage())),
            network_received_bytes: networks.values().map(|n| n.total_received()).sum(),
            network_sent_bytes: networks.values().map(|n| n.total_transmitted()).sum(),
            disk_total_bytes: disk.map_or(0, sysinfo::Disk::total_space),
            disk_available_bytes: disk.map_or(0, sysinfo::Disk::available_space),
            data_bytes: size_of(&self.data, FOLDERS_DEEP_MAX),
            data_bytes_max: self.data_bytes_max,
        }
    }
}

/// Bytes that the files below a folder take of the disk. What vanishes meanwhile counts nothing.
fn size_of(folder: &Path, deep: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && deep > 0 => {
                bytes += size_of(&entry.path(), deep - 1);
            }
            Ok(metadata) if metadata.is_file() => bytes += metadata.blocks() * BLOCK_BYTES,
            Ok(_) | Err(_) => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_real() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("db"))?;
        fs::write(folder.path().join("db/1.log"), [0; 1_000])?;
        fs::write(folder.path().join("identity"), [0; 24])?;
        let reading = Machine::new(folder.path(), Some(1 << 30)).read();
        assert!((1_024..1 << 20).contains(&reading.data_bytes), "{reading:?}");
        let full = Reading { data_bytes_max: Some(reading.data_bytes), ..reading.clone() };
        assert!((0.0..=1.0).contains(&reading.disk_fullness()), "{reading:?}");
        assert!((full.disk_fullness() - 1.0).abs() < 1e-9, "{full:?}");
        assert!(reading.cpu_count > 0 && reading.memory_total_bytes > 0, "{reading:?}");
        assert!(reading.process_resident_bytes > 0, "{reading:?}");
        assert!(reading.process_resident_bytes < reading.memory_total_bytes, "{reading:?}");
        Ok(())
    }
}
