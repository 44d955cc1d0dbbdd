//! The state of a partition on its way from a leader to a replica that lacks what was removed:
//! what is sent, what has come, and how many of these a shard has at a time.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Checkpoint;
use super::leader::APPEND_BYTES_MAX;
use super::message::Image;
use crate::ids::EntryIndex;
use crate::machine::Time;

/// How many bytes an image has at most. A replica that would need a larger one stays apart.
pub const IMAGE_BYTES_MAX: usize = 64 << 20;
/// How many images a shard sends at a time.
const SENT_MAX: usize = 1;
/// How many pieces of what is older than the states it was given a shard asks for at a time.
const FILLED_MAX: usize = 4;
/// How many images a shard collects at a time.
const COLLECTED_MAX: usize = 4;
/// For how long a leader goes on with an image of which nothing arrives.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long what is older may come faster after a pause than it may in the long run.
const BURST: Duration = Duration::from_millis(250);

/// How many images, and pieces of what is older, a shard has under way: each holds its place as
/// long as it is there.
#[derive(Debug, Default)]
pub struct Images {
    sent: Arc<()>,
    collected: Arc<()>,
    filled: Arc<()>,
    /// When what has come of what is older will have taken its time, at the rate it may come at:
    /// nothing is asked for before.
    paid: Time,
}

/// The place of one of them.
#[derive(Clone, Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it counts by being there")] Arc<()>);

impl Images {
    /// A place for one more that is sent, if there may be one.
    pub(super) fn to_send(&self) -> Option<Place> {
        Self::place(&self.sent, SENT_MAX)
    }

    /// A place for a piece of what is older than a state, if there may be one.
    pub(super) fn to_fill(&self, now: Time) -> Option<Place> {
        Self::place(&self.filled, FILLED_MAX).filter(|_| self.paid <= now + BURST)
    }

    /// Such a piece has come, of so many bytes, and so many a second may.
    pub(super) fn filled(&mut self, bytes: usize, rate: Option<NonZeroU64>, now: Time) {
        if let Some(rate) = rate {
            let micros = bytes as u64 * 1_000_000 / rate;
            self.paid = self.paid.max(now) + Duration::from_micros(micros);
        }
    }

    fn to_collect(&self) -> Option<Place> {
        Self::place(&self.collected, COLLECTED_MAX)
    }

    fn place(of: &Arc<()>, max: usize) -> Option<Place> {
        (Arc::strong_count(of) <= max).then(|| Place(of.clone()))
    }
}

/// An image that a leader sends to one follower, piece by piece: the next one when the follower
/// has the one before.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    bytes: Bytes,
    image: Image,
    /// The first entry that the follower needs beside it.
    pub(super) from: EntryIndex,
    /// How many bytes the follower has.
    have: usize,
    /// When it last had more than before.
    moved: Time,
    _place: Place,
}

impl Sending {
    /// Begins to send a state.
    pub(super) fn begin(state: Checkpoint, _place: Place, now: Time) -> Self {
        let Checkpoint { applied, from, bytes } = state;
        let image = Image { applied, bytes: bytes.len() as u64 };
        Self { bytes, image, from, have: 0, moved: now, _place }
    }

    pub(super) fn image(&self) -> Image {
        self.image
    }

    /// The piece that is wanted, and where it begins.
    pub(super) fn piece(&self) -> (u64, Bytes) {
        let end = self.bytes.len().min(self.have + APPEND_BYTES_MAX);
        (self.have as u64, self.bytes.slice(self.have..end))
    }

    /// The follower has so much; says whether that is news.
    pub(super) fn has(&mut self, have: u64, now: Time) -> bool {
        let have = usize::try_from(have).unwrap_or(usize::MAX);
        if have == self.have || have >= self.bytes.len() {
            return false;
        }
        if have > self.have {
            self.moved = now;
        }
        self.have = have;
        true
    }

    /// Whether nothing has arrived for too long.
    pub(super) fn is_stuck(&self, now: Time) -> bool {
        now.since(self.moved) >= PATIENCE
    }
}

/// An image that a follower collects.
#[derive(Clone, Debug)]
pub(super) struct Collecting {
    image: Image,
    bytes: BytesMut,
    _place: Place,
}

impl Collecting {
    /// Begins to collect, if the shard may collect one more, and the image is not too large.
    pub(super) fn begin(image: Image, images: &Images) -> Option<Self> {
        let _place = images.to_collect()?;
        let bytes = BytesMut::new();
        (image.bytes <= IMAGE_BYTES_MAX as u64).then_some(Self { image, bytes, _place })
    }

    /// How many bytes have come.
    pub(super) fn have(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// A piece; the whole, when it is the last one. What does not follow, or is too much, is not
    /// taken.
    pub(super) fn add(&mut self, at: u64, piece: &Bytes) -> Option<Bytes> {
        if at == self.have() && self.have() + piece.len() as u64 <= self.image.bytes {
            self.bytes.extend_from_slice(piece);
        }
        (self.have() == self.image.bytes).then(|| std::mem::take(&mut self.bytes).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_together_whatever_is_lost_or_doubled() {
        let images = Images::default();
        let bytes: Bytes = (0..3 * APPEND_BYTES_MAX).map(|at| at as u8).collect();
        let (applied, from) = (EntryIndex(9), EntryIndex(4));
        let whole = Checkpoint { applied, from, bytes: bytes.clone() };
        let place = images.to_send().expect("the first one");
        let mut sending = Sending::begin(whole, place, Time(0));
        assert!(images.to_send().is_none(), "one at a time");
        let mut collecting = Collecting::begin(sending.image(), &images).expect("the first one");
        let (at, first) = sending.piece();
        assert_eq!(collecting.add(at, &first), None);
        assert_eq!(collecting.add(at, &first), None, "it is not taken twice");
        assert!(
            sending.has(collecting.have(), Time(5)) && !sending.has(collecting.have(), Time(6))
        );
        let (at, second) = sending.piece();
        assert_eq!(collecting.add(at + 1, &second), None, "it does not follow");
        assert_eq!(collecting.add(at, &second), None);
        assert!(sending.has(collecting.have(), Time(7)));
        assert!(!sending.is_stuck(Time(7)) && sending.is_stuck(Time(7) + PATIENCE));
        let (at, third) = sending.piece();
        assert_eq!(collecting.add(at, &third), Some(bytes));
    }

    #[test]
    fn a_shard_has_few_images_at_a_time_and_none_that_is_too_large() {
        let images = Images::default();
        let small = Image { applied: EntryIndex(1), bytes: 10 };
        let held: Vec<Collecting> =
            (0..COLLECTED_MAX).filter_map(|_| Collecting::begin(small, &images)).collect();
        assert_eq!(held.len(), COLLECTED_MAX);
        assert!(Collecting::begin(small, &images).is_none());
        drop(held);
        assert!(Collecting::begin(small, &images).is_some());
        let large = Image { bytes: IMAGE_BYTES_MAX as u64 + 1, ..small };
        assert!(Collecting::begin(large, &images).is_none());
    }

    #[test]
    fn what_is_older_takes_its_time() {
        let rate = NonZeroU64::new(1_000);
        let mut images = Images::default();
        assert!(images.to_fill(Time(0)).is_some());
        images.filled(250, rate, Time(0));
        assert!(images.to_fill(Time(0)).is_some(), "a burst");
        images.filled(1_000, rate, Time(0));
        let due = Time(1_000_000);
        assert!(images.to_fill(Time(due.0 - 1)).is_none() && images.to_fill(due).is_some());
        images.filled(usize::MAX / 2_000_000, None, due);
        assert!(images.to_fill(due).is_some(), "where nothing bounds it");
    }
}
