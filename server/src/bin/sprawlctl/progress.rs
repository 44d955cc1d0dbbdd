//! Progress bars on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// From how many messages on there is a bar.
const LONG_WORK: u64 = 100;

/// A bar for so many messages; nothing for little work, or where there is no terminal.
pub(crate) fn bar(count: u64) -> ProgressBar {
    if count < LONG_WORK {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta} left");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
