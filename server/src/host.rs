//! What the host says about itself: read by sysinfo in production, by nobody in simulation.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

#[cfg(not(madsim))]
mod machine;
#[cfg(not(madsim))]
pub use machine::Machine;

/// Reads the host's figures.
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// The figures as they are now.
    fn read(&self) -> Reading;
}

/// The host's figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Reading {
    /// How much of all processors is in use, in percent, since the reading before.
    pub cpu_percent: f64,
    /// How many processors there are.
    pub cpu_count: u64,
    /// The mean number of runnable processes over the last minute.
    pub load_one_minute: f64,
    /// Bytes of memory.
    pub memory_total_bytes: u64,
    /// Bytes of memory in use.
    pub memory_used_bytes: u64,
    /// Bytes of memory that this process has resident.
    pub process_resident_bytes: u64,
    /// How much of one processor this process uses, in percent, since the reading before.
    pub process_cpu_percent: f64,
    /// Bytes received on all interfaces since the host started.
    pub network_received_bytes: u64,
    /// Bytes sent on all interfaces since the host started.
    pub network_sent_bytes: u64,
    /// Bytes of the file system that holds the data directory.
    pub disk_total_bytes: u64,
    /// Bytes of it that are free.
    pub disk_available_bytes: u64,
    /// Bytes that the files of the data directory take.
    pub data_bytes: u64,
    /// Bytes that they may take, where a bound is configured.
    pub data_bytes_max: Option<u64>,
}

impl Reading {
    /// How full the disk is, from 0 to 1: the file system or the configured bound, whichever is
    /// nearer to its end.
    #[must_use]
    pub fn disk_fullness(&self) -> f64 {
        let share = |used: u64, of: u64| if of == 0 { 0.0 } else { used as f64 / of as f64 };
        let used = self.disk_total_bytes.saturating_sub(self.disk_available_bytes);
        let bound = self.data_bytes_max.map_or(0.0, |bound| share(self.data_bytes, bound));
        share(used, self.disk_total_bytes).max(bound)
    }
}
