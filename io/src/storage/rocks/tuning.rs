//! How the database is set up, and how much of the disk its buffers may count on.
//!
//! Sizes follow the disk, so that a node also works on a small one.

use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options,
};

/// The column family of entries: partition ‖ index, big-endian → entry.
pub(super) const LOG: &str = "log";
/// The column family of states: partition → state, empty while there are only entries.
pub(super) const STATE: &str = "state";
/// The column family of the metadata log: change → bytes, and the cells beside it.
pub(super) const METADATA: &str = "metadata";
/// All of them.
pub(super) const FAMILIES: [&str; 3] = [LOG, STATE, METADATA];

/// How many write buffers the log has: one takes writes while the others are flushed.
const LOG_BUFFERS: u64 = 4;
/// The largest write buffer of the log, in bytes.
const LOG_BUFFER_BYTES_MAX: u64 = 64 << 20;
/// The smallest write buffer of any family, in bytes.
const BUFFER_BYTES_MIN: u64 = 1 << 20;
/// A write buffer of the log takes at most this part of the disk.
const LOG_BUFFER_SHARE: u64 = 128;
/// How many write buffers each other family has, and how much smaller they are.
const OTHER_BUFFERS: u64 = 2;
const OTHER_BUFFER_SHARE: u64 = 8;
/// How many files of the write-ahead log are kept to be overwritten. Overwriting is worth 1.4–1.9
/// times the speed of growing a file, and only `PointInTime` recovery keeps it on:
/// docs/adr/0003-wal-recovery-mode.md.
const RECYCLED_LOGS: usize = 4;
/// How many tables a look for reading only holds open at once.
const LOOK_TABLES_MAX: i32 = 64;

/// The sizes that fit one disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    log_buffer: u64,
    other_buffer: u64,
}

impl Sizes {
    /// The sizes for a disk of `capacity` bytes.
    pub(super) fn of(capacity: u64) -> Self {
        let share = capacity / LOG_BUFFER_SHARE;
        let log_buffer = share.clamp(BUFFER_BYTES_MIN, LOG_BUFFER_BYTES_MAX);
        let other_buffer = (log_buffer / OTHER_BUFFER_SHARE).max(BUFFER_BYTES_MIN);
        Self { log_buffer, other_buffer }
    }

    /// What all buffers together take on the disk when they are flushed: so much is left free by
    /// those who write, so that what was taken on can always be put down.
    pub(super) fn reserve(self) -> u64 {
        let others = (FAMILIES.len() as u64 - 1) * OTHER_BUFFERS;
        LOG_BUFFERS * self.log_buffer + others * self.other_buffer
    }

    /// The options of the whole database.
    pub(super) fn database(self) -> Options {
        let mut opts = Options::default();
        opts.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        opts.set_recycle_log_file_num(RECYCLED_LOGS);
        opts.set_track_and_verify_wals_in_manifest(true);
        opts.set_max_total_wal_size(LOG_BUFFERS * self.log_buffer);
        opts.set_max_background_jobs(2);
        opts.set_bytes_per_sync(1 << 20);
        opts.set_wal_bytes_per_sync(1 << 20);
        opts.set_paranoid_checks(true);
        // The database's own log says what it did; a few files of it are enough.
        opts.set_keep_log_file_num(3);
        opts.set_max_log_file_size(4 << 20);
        opts
    }

    /// The options for a look at a database that changes nothing.
    pub(super) fn look(self) -> Options {
        let mut opts = self.database();
        opts.set_max_open_files(LOOK_TABLES_MAX);
        opts.set_skip_stats_update_on_db_open(true);
        opts
    }

    /// The column families with their options.
    pub(super) fn families(self) -> [ColumnFamilyDescriptor; 3] {
        FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, self.family(name)))
    }

    fn family(self, name: &str) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(64 << 10);
        blocks.set_format_version(5);
        let mut opts = Options::default();
        opts.set_block_based_table_factory(&blocks);
        opts.set_compression_type(DBCompressionType::Lz4);
        let (bytes, number) = match name {
            LOG => (self.log_buffer, LOG_BUFFERS),
            _ => (self.other_buffer, OTHER_BUFFERS),
        };
        opts.set_write_buffer_size(bytes as usize);
        opts.set_max_write_buffer_number(number as i32);
        opts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_fits_small_disks_and_large_ones() {
        for capacity in [64 << 20, 1 << 30, 1 << 34, 1 << 43] {
            let reserve = Sizes::of(capacity).reserve();
            assert!(reserve <= capacity / 6, "{reserve} of {capacity}");
        }
        assert_eq!(Sizes::of(1 << 43).reserve(), (4 * 64 + 4 * 8) << 20);
    }
}
