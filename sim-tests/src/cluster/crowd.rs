//! The machines that clients go to, any of them at any time, and until when they do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::machine::{Machine, Standing};
use crate::plan::Draw;

/// The machines of a run, for all clients. A clone is the same one.
#[derive(Clone, Default)]
pub(super) struct Crowd {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    machines: Vec<Machine>,
    closed: bool,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is another machine to go to.
    pub(super) fn knows(&self, machine: &Machine) {
        self.lock().machines.push(machine.clone());
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Machine> {
        self.lock().machines.clone()
    }

    /// Those that run and may be struck; nobody while one has an older disk that was not told yet:
    /// who would tell it must live, and it must not start once more with a number that is new.
    pub(super) fn up(&self) -> Vec<Machine> {
        let mut all = self.all();
        if all.iter().any(Machine::is_outdated) {
            return Vec::new();
        }
        all.retain(|one| one.standing() == Standing::Up && one.condemned().is_none());
        all
    }

    /// Nothing new is asked for, and nothing once more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// A machine to go to; none where the dice name one that has left, or all is closed.
    pub(super) fn pick(&self, dice: &mut Draw) -> Option<Machine> {
        let inner = self.lock();
        let machine = (!inner.closed).then(|| {
            let at = dice.range(0, inner.machines.len() as u64 - 1);
            inner.machines[at as usize].clone()
        })?;
        (machine.standing() != Standing::Gone).then_some(machine)
    }
}
