//! Requests that wait for their answer, and what is known about each: was it sent?

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{CallError, NotDelivered, Unknown, lock};

/// How many requests to one connection may be without answer.
pub(super) const CALLS_MAX: usize = 16_384;

/// What a call came to.
pub(super) type Outcome = Result<Bytes, CallError>;

struct Call {
    tell: oneshot::Sender<Outcome>,
    sent: bool,
}

#[derive(Default)]
struct Table {
    calls: BTreeMap<u64, Call>,
    last: u64,
}

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Calls(Mutex<Table>);

impl Calls {
    /// Enters a request; `None` when too many wait.
    pub(super) fn enter(&self) -> Option<(u64, oneshot::Receiver<Outcome>)> {
        let mut table = lock(&self.0);
        if table.calls.len() >= CALLS_MAX {
            return None;
        }
        table.last += 1;
        let (tell, told) = oneshot::channel();
        let id = table.last;
        table.calls.insert(id, Call { tell, sent: false });
        Some((id, told))
    }

    /// A request is about to be written; says whether somebody still waits for it.
    pub(super) fn sending(&self, id: u64) -> bool {
        let mut table = lock(&self.0);
        table.calls.get_mut(&id).map(|call| call.sent = true).is_some()
    }

    /// A request has its outcome; says whether somebody waited for it.
    pub(super) fn resolve(&self, id: u64, outcome: Outcome) -> bool {
        let call = lock(&self.0).calls.remove(&id);
        // Whoever asked may have given up just now.
        call.is_some_and(|call| call.tell.send(outcome).is_ok())
    }

    /// Nobody waits for a request any more; what is then known about it.
    pub(super) fn give_up(&self, id: u64) -> CallError {
        match lock(&self.0).calls.remove(&id) {
            Some(Call { sent: false, .. }) => NotDelivered::Expired.into(),
            Some(Call { sent: true, .. }) | None => Unknown::TimedOut.into(),
        }
    }

    /// The connection broke: what was sent over it ends as unknown.
    pub(super) fn broken(&self) {
        let mut table = lock(&self.0);
        let unsent = table.calls.split_off(&0).into_iter().filter_map(|(id, call)| {
            if call.sent {
                // Whoever asked may have given up just now.
                let _ = call.tell.send(Err(Unknown::Broken.into()));
                return None;
            }
            Some((id, call))
        });
        table.calls = unsent.collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).calls.is_empty()
    }
}
