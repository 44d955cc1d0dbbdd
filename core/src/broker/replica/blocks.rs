//! Where in a log is which time, and how many bytes: what retention decides by.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::ids::{EntryIndex, NUMBER_MAX, Offset};
use crate::machine::WallTime;

/// How many blocks a partition is divided into at most; then neighbours become one.
pub const BLOCKS_MAX: usize = 4_096;
/// A block ends when it has so many bytes.
const BLOCK_BYTES: u64 = 1 << 20;
/// A block ends when its entries are so far apart, in milliseconds.
const BLOCK_MILLIS: u64 = 10_000;

/// Consecutive entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Block {
    first: EntryIndex,
    /// The offset of its first message.
    offset: Offset,
    /// The time of its first entry.
    from: WallTime,
    /// The time of its last entry.
    to: WallTime,
    bytes: u64,
}

/// The retained log of a partition, in blocks.
///
/// Invariants, checked by [`Blocks::check`]: (1) indexes, offsets and times do not fall from one
/// block to the next; (2) `bytes` is the sum of the blocks'; (3) there are at most
/// [`BLOCKS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Blocks {
    blocks: VecDeque<Block>,
    bytes: u64,
}

impl Blocks {
    /// An entry was committed; `offset` is its own, or that of the next message.
    pub(crate) fn add(&mut self, index: EntryIndex, offset: Offset, time: WallTime, bytes: u64) {
        self.bytes += bytes;
        if let Some(last) = self.blocks.back_mut()
            && last.bytes < BLOCK_BYTES
            && time.0 < last.from.0 + BLOCK_MILLIS
        {
            last.bytes += bytes;
            last.to = time;
            return;
        }
        self.blocks.push_back(Block { first: index, offset, from: time, to: time, bytes });
        if self.blocks.len() > BLOCKS_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let mut joined: VecDeque<Block> = VecDeque::with_capacity(BLOCKS_MAX / 2 + 1);
        for (at, block) in self.blocks.drain(..).enumerate() {
            match joined.back_mut() {
                Some(last) if at % 2 == 1 => {
                    last.to = block.to;
                    last.bytes += block.bytes;
                }
                Some(_) | None => joined.push_back(block),
            }
        }
        self.blocks = joined;
    }

    /// How many bytes are retained.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first entry that is retained, if there is one.
    pub(crate) fn first(&self) -> Option<EntryIndex> {
        self.blocks.front().map(|block| block.first)
    }

    /// The time of the first entry that is retained, if there is one.
    pub(crate) fn begins(&self) -> Option<WallTime> {
        self.blocks.front().map(|block| block.from)
    }

    /// The first offset that must stay, when what was stored at or before `oldest` need not and
    /// more than `bytes_max` bytes need not. Whole blocks go; for its size, the newest that has a
    /// message stays. `end` is the offset that the next message will have.
    pub(crate) fn keep_from(
        &self,
        oldest: Option<WallTime>,
        bytes_max: Option<u64>,
        end: Offset,
    ) -> Option<Offset> {
        let mut bytes = self.bytes;
        let mut gone = 0;
        for (at, block) in self.blocks.iter().enumerate() {
            let old = oldest.is_some_and(|oldest| block.to < oldest);
            let others = self.blocks.get(at + 1).is_some_and(|next| next.offset < end);
            let heavy = bytes_max.is_some_and(|max| bytes > max) && others;
            if !old && !heavy {
                break;
            }
            bytes -= block.bytes;
            gone = at + 1;
        }
        if gone == 0 {
            return None;
        }
        Some(self.blocks.get(gone).map_or(end, |block| block.offset))
    }

    /// When the oldest block is older than `age`, at the earliest.
    pub(crate) fn oldest_until(&self, age_millis: u64) -> Option<WallTime> {
        let to = self.blocks.front()?.to;
        Some(WallTime(to.0.saturating_add(age_millis).saturating_add(1)))
    }

    /// Messages below `below` are gone: blocks that hold nothing else go with them.
    pub(crate) fn trim(&mut self, below: Offset) {
        while let Some(next) = self.blocks.get(1)
            && next.offset <= below
        {
            let gone = self.blocks.pop_front().expect("there are two");
            self.bytes -= gone.bytes;
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let sum: u128 = self.blocks.iter().map(|block| u128::from(block.bytes)).sum();
        if sum != u128::from(self.bytes)
            || sum > NUMBER_MAX.into()
            || self.blocks.len() > BLOCKS_MAX
        {
            return Err(format!("{} blocks, {} bytes in {sum}", self.blocks.len(), self.bytes));
        }
        let pairs = self.blocks.iter().zip(self.blocks.iter().skip(1));
        for (one, next) in pairs {
            if next.first <= one.first || next.offset < one.offset || next.from < one.to {
                return Err(format!("{next:?} after {one:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(entries: u64, seconds_apart: u64) -> Blocks {
        let mut blocks = Blocks::default();
        for number in 0..entries {
            let time = WallTime(1_000 * seconds_apart * number);
            blocks.add(EntryIndex(number + 1), Offset(number), time, 100);
            assert_eq!(blocks.check(), Ok(()));
        }
        blocks
    }

    #[test]
    fn what_is_too_old_goes_and_nothing_younger() {
        let blocks = blocks(100, 1);
        let keep = |seconds: u64| {
            blocks.keep_from(Some(WallTime(1_000 * seconds)), None, Offset(100)).map(|at| at.0)
        };
        assert_eq!([keep(0), keep(9), keep(10), keep(25)], [None, None, Some(10), Some(20)]);
        assert_eq!(keep(1_000), Some(100));
    }

    #[test]
    fn what_is_too_much_goes_in_whole_blocks() {
        let mut blocks = blocks(100, 1);
        assert_eq!(blocks.bytes(), 10_000);
        assert_eq!(blocks.keep_from(None, Some(10_000), Offset(100)), None);
        assert_eq!(blocks.keep_from(None, Some(8_500), Offset(100)), Some(Offset(20)));
        assert_eq!(blocks.keep_from(None, Some(1), Offset(100)), Some(Offset(90)));
        blocks.trim(Offset(25));
        assert_eq!((blocks.bytes(), blocks.first()), (8_000, Some(EntryIndex(21))));
        assert_eq!(blocks.begins(), Some(WallTime(20_000)));
        assert_eq!(blocks.check(), Ok(()));
    }

    #[test]
    fn the_newest_messages_stay_whatever_is_younger() {
        let mut blocks = blocks(15, 1);
        for number in 0..3 {
            // A reign begins, and nobody publishes.
            blocks.add(EntryIndex(16 + number), Offset(15), WallTime(20_000 * (number + 2)), 30);
        }
        assert_eq!(blocks.keep_from(None, Some(1), Offset(15)), Some(Offset(10)));
        assert_eq!(blocks.keep_from(Some(WallTime(14_001)), Some(1), Offset(15)), Some(Offset(15)));
    }

    #[test]
    fn there_are_never_too_many_blocks() {
        let blocks = blocks(3 * BLOCKS_MAX as u64, 60);
        assert!(blocks.blocks.len() <= BLOCKS_MAX && blocks.bytes() == 300 * BLOCKS_MAX as u64);
    }
}
