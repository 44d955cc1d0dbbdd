//! The gate before publishes: how many bytes of them are worked on at once, and who goes next.
//!
//! What the node does for a publish takes processors and the disk, and neither asks whose it is.
//! So a window that follows the time from here to the answer bounds what is under way, and clients
//! beyond it take turns by bytes. A request that waits here has been read, and is counted among
//! those that its client holds ([`crate::guests`]): so nobody keeps a place here by sending slowly.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprawl_core::broker::admission::{Turns, Window};
use sprawl_core::ids::Source;
use sprawl_core::machine::Time;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a request costs beside the bytes of its body, in bytes: about what else could be parsed in
/// the time.
const REQUEST_COST: usize = 4 << 10;

/// A gate. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    window: Window,
    turns: Turns<Source>,
    queues: BTreeMap<Source, VecDeque<(usize, oneshot::Sender<Pass>)>>,
    /// Bytes that were ever let in, and those that are under way.
    entered: u64,
    under_way: usize,
}

/// Leave to be worked on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    cost: usize,
    gate: Gate,
}

impl Gate {
    /// A gate that lets so many bytes in at once, at most.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (window, turns) = (Window::new(bytes_max), Turns::default());
        let (origin, queues) = (Instant::now(), BTreeMap::new());
        let inner = Inner { origin, window, turns, queues, entered: 0, under_way: 0 };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Waits for the turn of a request of so many bytes.
    pub(crate) async fn enter(&self, source: Source, bytes: usize) -> Pass {
        let cost = bytes.saturating_add(REQUEST_COST);
        let turn = {
            let mut inner = self.lock();
            if inner.queues.is_empty() && inner.window.is_open(inner.under_way) {
                inner.admit(cost);
                return Pass { cost, gate: self.clone() };
            }
            inner.window.is_short();
            inner.turns.join(source);
            let (called, turn) = oneshot::channel();
            inner.queues.entry(source).or_default().push_back((cost, called));
            turn
        };
        turn.await.expect("a gate calls everyone")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those in whose turn it is. Who has left meanwhile has taken nothing.
    fn call(&self) {
        let mut called = Vec::new();
        let mut inner = self.lock();
        inner.observe();
        while inner.window.is_open(inner.under_way)
            && let Some((cost, turn)) = inner.next()
        {
            if !turn.is_closed() {
                inner.admit(cost);
                called.push((turn, Pass { cost, gate: self.clone() }));
            }
        }
        drop(inner);
        for (turn, pass) in called {
            // Who leaves just now drops its pass, and so calls the next.
            let _ = turn.send(pass);
        }
    }
}

impl Inner {
    fn admit(&mut self, cost: usize) {
        self.under_way += cost;
        self.entered += cost as u64;
        self.observe();
    }

    fn observe(&mut self) {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.window.observe(Time(micros), self.entered, self.under_way);
    }

    /// Whose turn it is, and what it costs.
    fn next(&mut self) -> Option<(usize, oneshot::Sender<Pass>)> {
        let source = self.turns.next()?;
        let queue = self.queues.get_mut(&source).expect("who has a turn waits");
        let first = queue.pop_front().expect("a queue is not empty");
        // A turn that nobody takes costs nothing.
        let cost = if first.1.is_closed() { 0 } else { first.0 };
        self.turns.charge(source, cost as u64);
        if queue.is_empty() {
            self.queues.remove(&source);
            self.turns.leave(source);
        }
        Some(first)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.lock().under_way -= self.cost;
        self.gate.call();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Keeps `connections` requests of one client at the gate; each takes `work` of one worker.
    fn load(
        gate: &Gate,
        worker: &Arc<tokio::sync::Semaphore>,
        source: u64,
        connections: usize,
    ) -> Arc<Mutex<u64>> {
        let served = Arc::new(Mutex::new(0));
        for _ in 0..connections {
            let (gate, worker, served) = (gate.clone(), worker.clone(), served.clone());
            tokio::spawn(async move {
                loop {
                    let pass = gate.enter(Source(source), 64 << 10).await;
                    let turn = worker.acquire().await.expect("it is never closed");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    drop(turn);
                    drop(pass);
                    *served.lock().expect("whole") += 1;
                }
            });
        }
        served
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_are_no_larger_share() {
        let (gate, worker) = (Gate::new(64 << 20), Arc::new(tokio::sync::Semaphore::new(1)));
        let greedy = load(&gate, &worker, 1, 64);
        let polite = load(&gate, &worker, 2, 4);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (greedy, polite) = (*greedy.lock().expect("whole"), *polite.lock().expect("whole"));
        println!("served {greedy} of the greedy one, {polite} of the polite one");
        assert!(greedy + polite > 9_000, "the worker is always busy");
        assert!(polite * 10 > greedy * 9, "{polite} against {greedy}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_stops_nobody() {
        let gate = Gate::new(1);
        let inside = gate.enter(Source(1), 1).await;
        for _ in 0..100 {
            let waiting = gate.enter(Source(2), 1);
            assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
        }
        let entering = tokio::spawn({
            let gate = gate.clone();
            async move { drop(gate.enter(Source(3), 1).await) }
        });
        drop(inside);
        entering.await.expect("it gets in");
        assert_eq!(gate.lock().under_way, 0);
    }
}
