//! The loops: take an input, let the machine handle it, do what it wants. Nothing is decided here.

pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod gossip;
pub(crate) mod shard;

pub(crate) use control::ControlLoop;
pub(crate) use data::DataLoop;
pub(crate) use gossip::GossipLoop;
pub(crate) use shard::ShardLoop;

use std::collections::BTreeMap;

use sprawl_core::ids::RequestId;
use sprawl_core::machine::{Machine, Now};
use tokio::sync::oneshot;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::trace::Trace;

/// How many inputs are taken before their effects are performed together, at most.
const INPUTS_MAX: usize = 1_024;

/// A machine with its clock and whoever watches it.
struct Driven<M: Machine, C, T> {
    machine: M,
    clock: C,
    trace: T,
    /// When the machine wants to be woken.
    alarm: Alarm,
    effects: Vec<M::Effect>,
}

impl<M: Machine, C: Clock, T: Trace<M>> Driven<M, C, T> {
    fn new(machine: M, clock: C, trace: T) -> Self {
        Self { machine, clock, trace, alarm: Alarm::default(), effects: Vec::new() }
    }

    fn handle(&mut self, now: Now, input: M::Input) {
        let before = self.effects.len();
        self.trace.input(&self.machine, now, &input);
        self.machine.handle(now, input, &mut self.effects);
        self.trace.handled(&self.machine, &self.effects[before..]);
    }

    /// Handles `Woke` when its time has come.
    fn wake_if_due(&mut self, woke: M::Input) {
        let now = self.clock.now();
        if self.machine.wakeup().is_some_and(|at| at <= now.since_start) {
            self.handle(now, woke);
        }
    }

    /// Sets the alarm for when the machine wants to be woken.
    fn set_alarm(&mut self) {
        self.alarm.set(self.machine.wakeup().map(|at| self.clock.moment(at)));
    }
}

/// The ways back of answers that are awaited, by request. In order: when the loop ends, those who
/// wait are woken as they stand here, in the simulation the same each time.
struct Awaited<W> {
    ways: BTreeMap<RequestId, W>,
    next: RequestId,
}

impl<W> Awaited<W> {
    fn new() -> Self {
        Self { ways: BTreeMap::new(), next: RequestId(0) }
    }

    fn insert(&mut self, way: W) -> RequestId {
        self.next = self.next.next();
        self.ways.insert(self.next, way);
        self.next
    }

    /// The way back of a request that has its answer.
    fn take(&mut self, id: RequestId) -> W {
        self.ways.remove(&id).expect("a request is answered once")
    }
}

impl<A> Awaited<oneshot::Sender<A>> {
    fn answer(&mut self, id: RequestId, response: A) {
        // A client that has gone away does not want its answer.
        let _ = self.take(id).send(response);
    }
}
