//! What waits to be written to one connection: in order, bounded in bytes and in number.

use std::collections::VecDeque;
use std::sync::Mutex;

use sprawl_core::ids::DiskId;
use tokio::sync::Notify;

use super::frame::{Frame, Kind};
use super::lock;

/// How many frames wait for one connection at most.
pub(super) const FRAMES_MAX: usize = 8_192;

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) frame: Frame,
    /// The only node that it is for.
    pub(super) only: Option<DiskId>,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    Full,
    Closed,
}

struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
}

/// Frames for one connection.
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    bytes_max: usize,
    filled: Notify,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        let queue = Queue { items: VecDeque::new(), bytes: 0, closed: false };
        Self { queue: Mutex::new(queue), bytes_max, filled: Notify::new() }
    }

    pub(super) fn push(&self, item: Item) -> Result<(), NotTaken> {
        let mut queue = lock(&self.queue);
        let bytes = queue.bytes + item.frame.wire_bytes();
        if queue.closed {
            return Err(NotTaken::Closed);
        }
        if bytes > self.bytes_max || queue.items.len() >= FRAMES_MAX {
            return Err(NotTaken::Full);
        }
        queue.bytes = bytes;
        queue.items.push_back(item);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Moves the first frames, of about so many bytes, to `batch`.
    pub(super) fn take(&self, bytes_max: usize, batch: &mut Vec<Item>) {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(item) = queue.items.pop_front()
        {
            bytes += item.frame.wire_bytes();
            batch.push(item);
        }
        queue.bytes -= bytes;
        assert!(queue.bytes == 0 || !queue.items.is_empty(), "{} bytes of nothing", queue.bytes);
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&self) -> Vec<Item> {
        let mut all = Vec::new();
        self.take(usize::MAX, &mut all);
        all
    }

    /// Takes out a request that nobody waits for any more.
    pub(super) fn withdraw(&self, id: u64) {
        let mut queue = lock(&self.queue);
        let asks = |item: &Item| item.frame.kind == Kind::Ask && item.frame.id == id;
        if let Some(at) = queue.items.iter().position(asks)
            && let Some(item) = queue.items.remove(at)
        {
            queue.bytes -= item.frame.wire_bytes();
        }
    }

    /// Takes no more, if nothing waits; says whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closed |= queue.items.is_empty();
        queue.closed
    }

    /// Takes no more; what waits is given back.
    pub(super) fn close(&self) -> Vec<Item> {
        lock(&self.queue).closed = true;
        self.drain()
    }

    fn is_empty(&self) -> bool {
        lock(&self.queue).items.is_empty()
    }

    /// Returns when something waits. One task waits at a time.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Lane;

    fn ask(id: u64, bytes: usize) -> Item {
        let body = vec![0; bytes].into();
        Item { frame: Frame { kind: Kind::Ask, lane: Lane::Data, id, body }, only: None }
    }

    #[test]
    fn bytes_and_frames_are_bounded() {
        let outbox = Outbox::new(300);
        assert_eq!(outbox.push(ask(1, 100)), Ok(()));
        assert_eq!(outbox.push(ask(2, 300)), Err(NotTaken::Full));
        assert_eq!(outbox.push(ask(3, 100)), Ok(()));
        assert_eq!(outbox.push(ask(4, 100)), Err(NotTaken::Full));
        outbox.withdraw(1);
        assert_eq!(outbox.push(ask(5, 100)), Ok(()));
        let ids: Vec<_> = outbox.drain().iter().map(|item| item.frame.id).collect();
        assert_eq!(ids, [3, 5]);
        let many = Outbox::new(usize::MAX);
        for id in 0..FRAMES_MAX as u64 {
            assert_eq!(many.push(ask(id, 0)), Ok(()));
        }
        assert_eq!(many.push(ask(0, 0)), Err(NotTaken::Full));
    }

    #[test]
    fn a_closed_one_takes_nothing() {
        let outbox = Outbox::new(300);
        assert_eq!(outbox.push(ask(1, 1)), Ok(()));
        assert!(!outbox.close_if_empty(), "something waits");
        assert_eq!(outbox.close().len(), 1);
        assert_eq!(outbox.push(ask(1, 1)), Err(NotTaken::Closed));
    }
}
