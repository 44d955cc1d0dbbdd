//! The dedup window: which ids a partition still remembers, decided by its entries alone.

use super::id_queue::IdQueue;
use super::state::{Step, What};
use crate::ids::{EntryIndex, IdHash, Offset};
use crate::machine::WallTime;

/// How many ids a window holds at most.
pub const WINDOW_IDS_MAX: usize = 1_000_000;
/// How far behind the newest entry an id is remembered, in milliseconds of entry time.
pub const WINDOW_MILLIS_MAX: u64 = 120_000;
/// For how many ids a window keeps room that it does not need.
const ROOM_KEPT: usize = 256;

/// The ids of the newest messages, with the offsets that they got.
///
/// Invariant, checked by [`Window::check`]: neither bound above is exceeded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window(IdQueue<Remembered, ROOM_KEPT>);

/// What is known of a message whose id is remembered.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    offset: Offset,
    time: WallTime,
    at: EntryIndex,
}

impl Window {
    /// The offset of the message with this id, if the window remembers it.
    pub(crate) fn find(&self, id: IdHash) -> Option<Offset> {
        self.0.find(id).map(|known| known.offset)
    }

    /// Remembers a committed message and forgets what is now too old.
    fn insert(&mut self, id: IdHash, offset: Offset, time: WallTime, at: EntryIndex) {
        if let Some(known) = self.0.push(id, Remembered { offset, time, at }) {
            known.offset = offset;
        }
        self.advance(time);
    }

    /// Remembers the message of a committed entry, if it is one, and forgets what is now too old.
    pub(super) fn remember(&mut self, step: &Step) {
        match &step.what {
            What::Message(id, ..) => self.insert(*id, step.offset, step.time, step.index),
            What::Note(_) => self.advance(step.time),
        }
    }

    /// Remembers what a window does that begins where this one ends.
    pub(super) fn extend(&mut self, newer: Self) {
        for (id, Remembered { offset, time, at }) in newer.0 {
            // As if it had come behind the notes before it.
            self.advance(time);
            self.insert(id, offset, time, at);
        }
    }

    /// Forgets what is too old at `time`, the time of the newest committed entry.
    pub(crate) fn advance(&mut self, time: WallTime) {
        while let Some(first) = self.0.front() {
            let expired = first.time.0 + WINDOW_MILLIS_MAX < time.0;
            if !expired && self.0.len() <= WINDOW_IDS_MAX {
                break;
            }
            self.0.pop();
        }
    }

    /// The entry of the oldest id that is remembered: recovery must read from here.
    pub(crate) fn first(&self) -> Option<EntryIndex> {
        self.0.front().map(|first| first.at)
    }

    /// How many ids are remembered.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks the invariant, and that some of the ids are found.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.len() > WINDOW_IDS_MAX {
            return Err(format!("{} ids, the bound is {WINDOW_IDS_MAX}", self.0.len()));
        }
        self.0.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> IdHash {
        IdHash::of(&number.to_le_bytes())
    }

    #[test]
    fn an_id_is_known_for_two_minutes_of_entry_time() {
        let mut window = Window::default();
        window.insert(id(1), Offset(0), WallTime(1_000), EntryIndex(2));
        window.insert(id(2), Offset(1), WallTime(1_000 + WINDOW_MILLIS_MAX), EntryIndex(3));
        assert_eq!(window.find(id(1)), Some(Offset(0)));
        window.advance(WallTime(1_001 + WINDOW_MILLIS_MAX));
        assert_eq!(window.find(id(1)), None);
        assert_eq!(window.first(), Some(EntryIndex(3)));
        assert_eq!(window.check(), Ok(()));
    }

    #[test]
    fn two_windows_that_meet_are_the_one_that_saw_it_all() {
        let came = [(1, 1_000), (2, 2_000), (1, 1_001 + WINDOW_MILLIS_MAX), (3, 130_000)];
        let inserted = |entries: &[(usize, &(u64, u64))]| {
            let mut window = Window::default();
            for &(at, &(number, time)) in entries {
                window.advance(WallTime(time));
                let (offset, index) = (Offset(at as u64), EntryIndex(at as u64 + 1));
                window.insert(id(number), offset, WallTime(time), index);
            }
            window
        };
        let came: Vec<_> = came.iter().enumerate().collect();
        let whole = inserted(&came);
        for parted in 0..=came.len() {
            let mut window = inserted(&came[..parted]);
            window.extend(inserted(&came[parted..]));
            assert_eq!(window.len(), whole.len(), "parted at {parted}");
            assert_eq!(window.first(), whole.first());
            assert!((1..=3).all(|one| window.find(id(one)) == whole.find(id(one))));
            assert_eq!(window.check(), Ok(()));
        }
    }

    #[test]
    fn the_oldest_id_makes_room() {
        let mut window = Window::default();
        for number in 0..=WINDOW_IDS_MAX as u64 {
            window.insert(id(number), Offset(number), WallTime(1), EntryIndex(number + 1));
        }
        assert_eq!(window.len(), WINDOW_IDS_MAX);
        assert_eq!(window.find(id(0)), None);
        assert_eq!(window.find(id(1)), Some(Offset(1)));
    }
}
