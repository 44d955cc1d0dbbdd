//! What cuts a machine's power at the worst moment: when its disk has been handed a step that it
//! has not synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprawl_io::storage::{Cell, MetadataWrite};
use tokio::sync::oneshot;

use super::plan::Point;

/// The trap of a machine. A clone is the same one.
#[derive(Clone, Default)]
pub(super) struct Trap(Arc<Mutex<Option<Armed>>>);

struct Armed {
    point: Point,
    /// How many such steps it lets pass.
    passes: u64,
    spring: oneshot::Sender<()>,
}

impl Trap {
    fn lock(&self) -> MutexGuard<'_, Option<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms it; what is returned resolves when it springs, to an error when it never will.
    pub(super) fn arm(&self, point: Point, passes: u64) -> oneshot::Receiver<()> {
        let (spring, sprung) = oneshot::channel();
        *self.lock() = Some(Armed { point, passes, spring });
        sprung
    }

    pub(super) fn disarm(&self) {
        self.lock().take();
    }

    /// The disk has been handed a step.
    pub(super) fn written(&self, step: &MetadataWrite) {
        let mut armed = self.lock();
        let Some(trap) = armed.as_mut().filter(|trap| trap.point.is_at(step)) else { return };
        match trap.passes.checked_sub(1) {
            Some(left) => trap.passes = left,
            None => {
                // Whoever waited for it may have been healed.
                let _ = armed.take().map(|trap| trap.spring.send(()));
            }
        }
    }
}

impl Point {
    fn is_at(self, step: &MetadataWrite) -> bool {
        match step {
            MetadataWrite::Entry(..) => self == Point::Entry,
            MetadataWrite::Truncate(_) => self == Point::Cut,
            MetadataWrite::Purge(_) => self == Point::Purge,
            MetadataWrite::Cell(Cell::Vote, _) => self == Point::Vote,
            MetadataWrite::Cell(Cell::Snapshot, _) => self == Point::Snapshot,
            MetadataWrite::Cell(Cell::Membership | Cell::Committed | Cell::Purged, _) => false,
        }
    }
}
