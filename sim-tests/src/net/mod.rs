//! A simulated network: what nodes' sockets are made of, with every directed link as good or bad
//! as the world says.
//!
//! Datagrams are lost, doubled, delayed and so reordered. Connections deliver everything in order
//! as long as they live; loss costs them time. A link that is cut says nothing: what is under way
//! over it is sent again, later each time, until the connection is given up; connecting over it
//! takes until the caller's patience ends. A machine that lost power is silent. A process that
//! ended on a machine that lives closes its connections, as its kernel would.
//!
//! It is no part of madsim's network, which has one rate of loss for all and ends the connections
//! of a killed node at once, even through a partition. What is under way here outlives its sender.

mod flow;
mod knobs;
mod sockets;
mod state;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

#[cfg(test)]
pub(crate) use knobs::Counts;
pub(crate) use knobs::Knobs;
pub(crate) use sockets::SimSockets;
use state::State;

use crate::plan::Draw;

/// The network of a world. A clone is the same network.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    /// Something is due before what the wire waits for.
    sooner: Arc<Notify>,
}

impl Net {
    /// A network on which every link is as `knobs` say. It must be made by the world itself: what
    /// carries it is a task of the machine that makes it.
    pub(crate) fn new(knobs: Knobs, dice: Draw) -> Self {
        let state = Arc::new(Mutex::new(State::new(knobs, dice)));
        let net = Self { state, sooner: Arc::default() };
        tokio::spawn(net.clone().carry());
        net
    }

    /// Binds the sockets of a process. A machine that had lost power is back.
    ///
    /// # Errors
    ///
    /// When a process has the address.
    pub(crate) fn bind(&self, at: SocketAddr) -> std::io::Result<SimSockets> {
        SimSockets::bind(self, at)
    }

    /// Changes what is expected of the link from one machine to another.
    pub(crate) fn set(&self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut Knobs)) {
        change(self.lock().knobs_mut((from, to)));
    }

    /// Nothing gets from one machine to another until the link is healed; the way back is
    /// another link.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.set(from, to, |knobs| knobs.cut = true);
    }

    /// Nothing gets from any of some machines to any of others, nor back.
    #[cfg(test)]
    pub(crate) fn part(&self, some: &[IpAddr], others: &[IpAddr]) {
        for &one in some {
            for &other in others {
                self.cut(one, other);
                self.cut(other, one);
            }
        }
    }

    /// All links are as at first.
    pub(crate) fn heal(&self) {
        self.lock().heal();
    }

    /// A machine loses power: none of its connections says goodbye, and it is silent until a
    /// process binds sockets on it again. To be called before its node is killed.
    pub(crate) fn lose_power(&self, machine: IpAddr) {
        self.lock().lose_power(machine);
    }

    /// What has happened so far.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something at the network, and sees to it that what follows happens in time.
    fn act<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.next_due();
        let result = act(&mut state);
        let after = state.next_due();
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
        result
    }

    /// Lets everything happen when it is due.
    async fn carry(self) {
        loop {
            let next = {
                let mut state = self.lock();
                state.pass(Instant::now());
                state.next_due()
            };
            match next {
                None => self.sooner.notified().await,
                Some(due) => tokio::select! {
                    biased;
                    () = self.sooner.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }
}
