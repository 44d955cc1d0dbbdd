//! The reference: the same bytes appended to a plain file, one fdatasync a batch.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Messages per second.
pub(crate) fn rate(folder: &Path, batch: usize, span: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join(format!("append-{batch}")))?;
    let bytes = vec![b'x'; batch * 1024];
    let began = Instant::now();
    let mut messages = 0;
    while began.elapsed() < span {
        file.write_all(&bytes)?;
        file.sync_data()?;
        messages += batch;
    }
    Ok(messages as f64 / began.elapsed().as_secs_f64())
}
