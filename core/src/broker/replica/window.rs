//! The dedup window: which ids a partition still remembers, decided by its entries alone.

use super::id_queue::IdQueue;
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
    pub(crate) fn insert(&mut self, id: IdHash, offset: Offset, time: WallTime, at: EntryIndex) {
        if let Some(known) = self.0.push(id, Remembered { offset, time, at }) {
            known.offset = offset;
        }
        self.advance(time);
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
