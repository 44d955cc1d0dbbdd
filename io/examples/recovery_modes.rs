//! What each recovery mode of RocksDB's log costs, against plain append + fdatasync.
//!
//! `cargo run --release -p sprawl-io --example recovery_modes [FOLDER [ROUNDS]]`
//!
//! Every way of writing keeps its files for the whole run, and takes its turn in every round, so
//! that what the disk and the neighbours do falls on all alike. The figure of a way is the median,
//! over the rounds, of its rate divided by the rate of plain append in the same round.

#[cfg(not(madsim))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    measure::main()
}

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
mod measure {
    use std::error::Error;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rocksdb::{
        BlockBasedOptions, DB, DBCompressionType, DBRecoveryMode, Options, WaitForCompactOptions,
        WriteBatch, WriteOptions,
    };

    type Done<T> = Result<T, Box<dyn Error>>;

    const MESSAGE_BYTES: usize = 1 << 10;
    const BATCHES: [usize; 4] = [1, 16, 128, 1024];
    /// How long one way writes in one round.
    const TURN: Duration = Duration::from_millis(700);
    const ROUNDS: usize = 7;
    /// Written before the first round, so that there are old log files to recycle.
    const WARM_UP_BYTES: usize = 384 << 20;
    /// The file that is overwritten in place; larger than what a turn writes.
    const PREALLOCATED_BYTES: u64 = 1 << 30;
    /// How much log there is to replay when the start is timed.
    const REPLAY_BYTES: [usize; 3] = [1 << 20, 48 << 20, 224 << 20];

    /// A way to make a batch of messages durable.
    trait Way {
        fn write(&mut self, messages: &[u8]) -> Done<()>;
        /// Waits until nothing of this way's goes on in the background.
        fn rest(&mut self) -> Done<()>;
    }

    struct Append(File);

    impl Way for Append {
        fn write(&mut self, messages: &[u8]) -> Done<()> {
            self.0.write_all(messages)?;
            Ok(self.0.sync_data()?)
        }
        fn rest(&mut self) -> Done<()> {
            Ok(())
        }
    }

    /// A file whose blocks are all written already: what a disk can do at most.
    struct Overwrite {
        file: File,
        at: u64,
    }

    impl Overwrite {
        fn new(path: &Path) -> Done<Self> {
            let file = File::create(path)?;
            let block = vec![7; 8 << 20];
            for at in (0..PREALLOCATED_BYTES).step_by(block.len()) {
                file.write_all_at(&block, at)?;
            }
            file.sync_all()?;
            Ok(Self { file, at: 0 })
        }
    }

    impl Way for Overwrite {
        fn write(&mut self, messages: &[u8]) -> Done<()> {
            if self.at + messages.len() as u64 > PREALLOCATED_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(messages, self.at)?;
            self.at += messages.len() as u64;
            Ok(self.file.sync_data()?)
        }
        fn rest(&mut self) -> Done<()> {
            Ok(())
        }
    }

    struct Rocks {
        db: DB,
        next: u64,
    }

    /// The options of a node's database, as far as they matter for its log.
    fn options(mode: DBRecoveryMode, recycled: usize, track: bool) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(64 << 10);
        blocks.set_format_version(5);
        let mut opts = Options::default();
        opts.create_if_missing(true);
        opts.set_block_based_table_factory(&blocks);
        opts.set_compression_type(DBCompressionType::Lz4);
        opts.set_write_buffer_size(64 << 20);
        opts.set_max_write_buffer_number(4);
        opts.set_max_background_jobs(2);
        opts.set_bytes_per_sync(1 << 20);
        opts.set_wal_bytes_per_sync(1 << 20);
        opts.set_max_total_wal_size(256 << 20);
        opts.set_wal_recovery_mode(mode);
        opts.set_recycle_log_file_num(recycled);
        opts.set_track_and_verify_wals_in_manifest(track);
        opts
    }

    fn put(db: &DB, next: &mut u64, messages: &[u8]) -> Done<()> {
        let mut batch = WriteBatch::default();
        for message in messages.chunks(MESSAGE_BYTES) {
            batch.put(next.to_be_bytes(), message);
            *next += 1;
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(db.write_opt(batch, &synced)?)
    }

    impl Rocks {
        fn new(path: &Path, opts: &Options, messages: &[u8]) -> Done<Self> {
            let mut made = Self { db: DB::open(opts, path)?, next: 0 };
            for _ in 0..WARM_UP_BYTES / messages.len() {
                made.write(messages)?;
            }
            Ok(made)
        }
    }

    impl Way for Rocks {
        fn write(&mut self, messages: &[u8]) -> Done<()> {
            put(&self.db, &mut self.next, messages)
        }
        fn rest(&mut self) -> Done<()> {
            Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
        }
    }

    /// Bytes that do not compress.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..bytes / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.collect()
    }

    /// Messages per second of one turn.
    fn turn(way: &mut dyn Way, messages: &[u8], batch: usize) -> Done<f64> {
        way.rest()?;
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed() < TURN {
            way.write(messages)?;
            count += batch;
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    fn median(mut figures: Vec<f64>) -> f64 {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    fn ways(folder: &Path, messages: &[u8]) -> Done<Vec<(&'static str, Box<dyn Way>)>> {
        use DBRecoveryMode::{AbsoluteConsistency, PointInTime, TolerateCorruptedTailRecords};
        let append = OpenOptions::new().append(true).create(true).open(folder.join("append"))?;
        let mut ways: Vec<(&str, Box<dyn Way>)> = vec![
            ("plain append + fdatasync", Box::new(Append(append))),
            ("preallocated file", Box::new(Overwrite::new(&folder.join("overwrite"))?)),
        ];
        for (name, mode, recycled, track) in [
            ("point in time, recycled, tracked", PointInTime, 4, true),
            ("point in time, recycled, untracked", PointInTime, 4, false),
            ("point in time, tracked", PointInTime, 0, true),
            ("tolerate corrupted tail, tracked", TolerateCorruptedTailRecords, 4, true),
            ("absolute consistency, tracked", AbsoluteConsistency, 4, true),
        ] {
            let path = folder.join(name.replace([' ', ','], "-"));
            let opts = options(mode, recycled, track);
            ways.push((name, Box::new(Rocks::new(&path, &opts, messages)?)));
        }
        Ok(ways)
    }

    fn rates(folder: &Path, rounds: usize) -> Done<()> {
        let messages = noise(BATCHES[3] * MESSAGE_BYTES);
        let mut ways = ways(folder, &messages)?;
        println!("\n{rounds} rounds, median ratio to plain append in the same round");
        println!("{:36} {:>8} {:>8} {:>8} {:>8}", "batches of", 1, 16, 128, 1024);
        let mut table = vec![Vec::new(); ways.len()];
        let mut base = Vec::new();
        for batch in BATCHES {
            let mut rates = vec![Vec::new(); ways.len()];
            for round in 0..rounds {
                for turn_of in 0..ways.len() {
                    // Each round begins with another way.
                    let at = (turn_of + round) % ways.len();
                    let (_, way) = &mut ways[at];
                    rates[at].push(turn(&mut **way, &messages[..batch * MESSAGE_BYTES], batch)?);
                }
            }
            for (at, own) in rates.iter().enumerate() {
                let ratios = own.iter().zip(&rates[0]).map(|(own, plain)| own / plain);
                table[at].push(median(ratios.collect()));
            }
            base.push(median(rates[0].clone()));
        }
        for ((name, _), ratios) in ways.iter().zip(&table) {
            let ratios: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:>8.2}")).collect();
            println!("{name:36} {}", ratios.join(" "));
        }
        let base: Vec<_> = base.iter().map(|rate| format!("{rate:>8.0}")).collect();
        println!("{:36} {}", "plain append, messages/s", base.join(" "));
        Ok(())
    }

    /// How long a start takes with a log to replay: the look that changes nothing, the opening.
    fn starts(folder: &Path) -> Done<()> {
        println!("\nstart with a log to replay: a look for reading only, then the opening");
        let messages = noise(128 * MESSAGE_BYTES);
        for bytes in REPLAY_BYTES {
            let path = folder.join(format!("start-{bytes}"));
            let opts = options(DBRecoveryMode::PointInTime, 4, true);
            let mut written = opts.clone();
            written.set_write_buffer_size(512 << 20);
            let db = DB::open(&written, &path)?;
            let mut next = 0;
            for _ in 0..bytes / messages.len() {
                put(&db, &mut next, &messages)?;
            }
            // Dropped without a flush, as a killed process leaves it.
            drop(db);
            let begin = Instant::now();
            let found = DB::open_for_read_only(&opts, &path, false)?.latest_sequence_number();
            assert_eq!(found, next, "the whole log is read");
            let look = begin.elapsed();
            let begin = Instant::now();
            drop(DB::open(&opts, &path)?);
            let opening = begin.elapsed();
            println!("{:4} MiB: {look:>8.0?} {opening:>8.0?}", bytes >> 20);
        }
        Ok(())
    }

    pub(crate) fn main() -> Done<()> {
        let mut args = std::env::args().skip(1);
        let under = args.next().unwrap_or_else(|| ".".to_owned());
        let rounds = args.next().map_or(Ok(ROUNDS), |text| text.parse())?;
        let folder = tempfile::tempdir_in(under)?;
        rates(folder.path(), rounds)?;
        starts(folder.path())
    }
}
