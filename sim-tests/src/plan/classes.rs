//! Classes of faults: each is off in half of the seeds, and then draws nothing.

use super::Draw;

/// A class of faults: how many a run has at most, and how one is drawn.
pub(crate) struct Class<F> {
    pub(crate) most: u64,
    pub(crate) draw: fn(&mut Draw) -> F,
}

/// The faults of a seed with their times, in order. Each class draws from a stream of its own, the
/// first one from `stream`.
pub(crate) fn schedule<F>(
    seed: u64,
    stream: u64,
    classes: &[Class<F>],
    (first_ms, last_ms): (u64, u64),
) -> Vec<(u64, F)> {
    let mut faults = Vec::new();
    for (stream, Class { most, draw }) in (stream..).zip(classes) {
        let mut dice = Draw::new(seed, stream);
        if dice.percent(50) {
            continue;
        }
        for _ in 0..dice.log_range(1, *most) {
            let at_ms = dice.range(first_ms, last_ms);
            faults.push((at_ms, draw(&mut dice)));
        }
    }
    faults.sort_by_key(|(at_ms, _)| *at_ms);
    faults
}
