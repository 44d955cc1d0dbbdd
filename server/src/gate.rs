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

/// How many bytes are worked on at once at least. When the processors are busy, all of them, a
/// request is slow whatever the window is; so much of it keeps syncs shared.
const WINDOW_MIN: usize = 1 << 20;

/// A gate. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    window: Window,
    turns: Turns<Source>,
    queues: BTreeMap<Source, VecDeque<(usize, oneshot::Sender<Pass>)>>,
    /// How many of whom were called and have not come yet: the same client's next does not
    /// overtake them.
    called: BTreeMap<Source, usize>,
    /// Bytes that were ever let in, and those that are under way.
    entered: u64,
    under_way: usize,
}

/// Leave to be worked on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    cost: usize,
    /// Who was called, until it has come.
    called: Option<Source>,
    gate: Gate,
}

impl Gate {
    /// A gate that lets so many bytes in at once, at most.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (window, turns) = (Window::new(WINDOW_MIN, bytes_max), Turns::default());
        let (queues, called) = (BTreeMap::new(), BTreeMap::new());
        let origin = Instant::now();
        let inner = Inner { origin, window, turns, queues, called, entered: 0, under_way: 0 };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Waits for the turn of a request of so many bytes.
    pub(crate) async fn enter(&self, source: Source, bytes: usize) -> Pass {
        let cost = bytes.saturating_add(REQUEST_COST);
        let turn = {
            let mut inner = self.lock();
            let is_free = inner.queues.is_empty() && !inner.called.contains_key(&source);
            if is_free && inner.window.is_open(inner.under_way) {
                inner.admit(cost);
                return Pass { cost, called: None, gate: self.clone() };
            }
            inner.window.is_short();
            inner.turns.join(source);
            let (called, turn) = oneshot::channel();
            let queue = inner.queues.entry(source).or_default();
            // Those who left while the window is closed are not kept until it opens.
            while queue.pop_front_if(|(_, turn)| turn.is_closed()).is_some() {}
            queue.push_back((cost, called));
            turn
        };
        let mut pass = turn.await.expect("a gate calls everyone");
        if let Some(source) = pass.called.take() {
            self.lock().has_come(source);
            self.call();
        }
        pass
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
            && let Some((source, cost, turn)) = inner.next()
        {
            if !turn.is_closed() {
                inner.admit(cost);
                *inner.called.entry(source).or_default() += 1;
                called.push((turn, Pass { cost, called: Some(source), gate: self.clone() }));
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

    /// One that was called has come, or has left.
    fn has_come(&mut self, source: Source) {
        let count = self.called.get_mut(&source).expect("it was called");
        *count -= 1;
        if *count == 0 {
            self.called.remove(&source);
        }
    }

    /// Whose turn it is, and what it costs.
    fn next(&mut self) -> Option<(Source, usize, oneshot::Sender<Pass>)> {
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
        Some((source, first.0, first.1))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.under_way -= self.cost;
        if let Some(source) = self.called.take() {
            inner.has_come(source);
        }
        drop(inner);
        self.gate.call();
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn many_connections_are_no_larger_share() {
        // Two requests at once, whatever time they take.
        let gate = Gate::new(REQUEST_COST + 2);
        let served: Arc<Mutex<[u64; 2]>> = Arc::default();
        let load = |source: usize| {
            let (gate, served) = (gate.clone(), served.clone());
            async move {
                while served.lock().expect("whole").iter().sum::<u64>() < 10_000 {
                    let pass = gate.enter(Source(source as u64 + 1), 1).await;
                    tokio::task::yield_now().await;
                    drop(pass);
                    served.lock().expect("whole")[source] += 1;
                }
            }
        };
        let greedy = std::iter::repeat_with(|| tokio::spawn(load(0))).take(64);
        let polite = std::iter::repeat_with(|| tokio::spawn(load(1))).take(4);
        for one in greedy.chain(polite).collect::<Vec<_>>() {
            one.await.expect("it ends");
        }
        let [greedy, polite] = *served.lock().expect("whole");
        assert!(polite * 10 > greedy * 9, "{polite} against {greedy}");
        assert_eq!(gate.lock().under_way, 0);
    }

    #[tokio::test]
    async fn a_client_does_not_overtake_itself() {
        let gate = Gate::new(REQUEST_COST * 4);
        let filling = gate.enter(Source(1), REQUEST_COST * 4).await;
        let (mut first, mut second) =
            (pin!(gate.enter(Source(1), 1)), pin!(gate.enter(Source(1), 1)));
        assert!(first.as_mut().now_or_never().is_none());
        // The first is called, and the second asks before the first has noticed.
        drop(filling);
        assert!(second.as_mut().now_or_never().is_none());
        let inside = first.as_mut().now_or_never().expect("it was called");
        let beside = second.as_mut().now_or_never().expect("there is room beside the first");
        drop((inside, beside));
        let inner = gate.lock();
        assert_eq!((inner.under_way, inner.called.len(), inner.queues.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_left() {
        let gate = Gate::new(1);
        let _inside = gate.enter(Source(1), 1).await;
        for _ in 0..1_000 {
            assert!(gate.enter(Source(2), 1).now_or_never().is_none());
        }
        assert_eq!(gate.lock().queues[&Source(2)].len(), 1);
    }

    #[tokio::test]
    async fn who_was_called_and_left_gives_its_place_back() {
        let gate = Gate::new(1);
        let inside = gate.enter(Source(1), 1).await;
        {
            let mut leaving = pin!(gate.enter(Source(2), 1));
            assert!(leaving.as_mut().now_or_never().is_none());
            drop(inside);
        }
        let inner = gate.lock();
        assert_eq!((inner.under_way, inner.called.len()), (0, 0));
    }

    #[tokio::test]
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
