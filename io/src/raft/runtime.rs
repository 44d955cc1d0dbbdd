//! The runtime that openraft runs on: the node's own tasks and clock, simulated or not.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use openraft_rt::{AsyncRuntime, OptionalSend};

use super::channels::{Guarded, Once, Queue};
use super::watch::FifoWatch;
use crate::alarm::Alarm;

/// The node's runtime, as openraft wants to see one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Runtime;

/// A time that has passed.
#[derive(Debug, thiserror::Error)]
#[error("the time has passed")]
pub(crate) struct Elapsed;

pin_project_lite::pin_project! {
    /// A future, for so long.
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Alarm,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let parts = self.project();
        if let Poll::Ready(output) = parts.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        parts.sleep.poll(context).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Alarm;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    // Of rand 0.10, whose entropy the simulation draws from its seed.
    type ThreadLocalRng = rand::rngs::ThreadRng;
    type Mpsc = Queue;
    type Watch = FifoWatch;
    type Oneshot = Once;
    type Mutex<T: OptionalSend + 'static> = Guarded<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(span: Duration) -> Self::Sleep {
        Alarm::at(tokio::time::Instant::now() + span)
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        Alarm::at(moment(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(span: Duration, future: F) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep(span) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Instant,
        future: F,
    ) -> Timeout<F> {
        Timeout { future, sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        rand::rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        panic!("openraft runs within the node's runtime, which is not entered anew")
    }

    /// Not openraft's own default, which starts a thread that the simulation does not know.
    async fn spawn_blocking<F, T>(work: F) -> Result<T, std::io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        apart(work).await
    }
}

/// A moment as the runtime counts it; the simulated one counts by the standard library's.
#[cfg(not(madsim))]
fn moment(at: Instant) -> tokio::time::Instant {
    at.into()
}
#[cfg(madsim)]
fn moment(at: Instant) -> tokio::time::Instant {
    at
}

/// Does something that takes long where it holds nobody up.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    #[cfg(not(madsim))]
    return tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other);
    #[cfg(madsim)]
    Ok(work())
}
