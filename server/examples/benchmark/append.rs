//! The reference: the same bytes appended to a plain file, one fdatasync a batch.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Messages of so many bytes per second.
pub(crate) fn rate(
    folder: &Path,
    batch: usize,
    bytes: usize,
    span: Duration,
) -> anyhow::Result<f64> {
    let path = folder.join(format!("append-{batch}-{bytes}"));
    let mut file = File::create(&path)?;
    let batch_bytes = vec![b'x'; batch * bytes];
    let began = Instant::now();
    let mut messages = 0;
    while began.elapsed() < span {
        file.write_all(&batch_bytes)?;
        file.sync_data()?;
        messages += batch;
    }
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
