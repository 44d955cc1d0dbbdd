//! Openraft's channels and locks, each of them tokio's.

use std::future::Future;

use openraft_rt::{OptionalSend, mpsc, mutex, oneshot};
use tokio::sync::mpsc::error::TryRecvError;

/// Bounded queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue;
/// Where a queue is filled.
pub(crate) struct QueueSender<T>(tokio::sync::mpsc::Sender<T>);
/// Where a queue is emptied.
pub(crate) struct QueueReceiver<T>(tokio::sync::mpsc::Receiver<T>);
/// Where a queue may be filled while somebody else does.
pub(crate) struct QueueWeak<T>(tokio::sync::mpsc::WeakSender<T>);

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for QueueWeak<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl mpsc::Mpsc for Queue {
    type Sender<T: OptionalSend> = QueueSender<T>;
    type Receiver<T: OptionalSend> = QueueReceiver<T>;
    type WeakSender<T: OptionalSend> = QueueWeak<T>;

    /// The bound is openraft's own choice for each of its queues.
    fn channel<T: OptionalSend>(length_max: usize) -> (QueueSender<T>, QueueReceiver<T>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(length_max);
        (QueueSender(sender), QueueReceiver(receiver))
    }
}

impl<T: OptionalSend> mpsc::MpscSender<Queue, T> for QueueSender<T> {
    async fn send(&self, value: T) -> Result<(), mpsc::SendError<T>> {
        self.0.send(value).await.map_err(|unsent| mpsc::SendError(unsent.0))
    }

    fn downgrade(&self) -> QueueWeak<T> {
        QueueWeak(self.0.downgrade())
    }
}

impl<T: OptionalSend> mpsc::MpscReceiver<T> for QueueReceiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, mpsc::TryRecvError> {
        self.0.try_recv().map_err(|why| match why {
            TryRecvError::Empty => mpsc::TryRecvError::Empty,
            TryRecvError::Disconnected => mpsc::TryRecvError::Disconnected,
        })
    }
}

impl<T: OptionalSend> mpsc::MpscWeakSender<Queue, T> for QueueWeak<T> {
    fn upgrade(&self) -> Option<QueueSender<T>> {
        self.0.upgrade().map(QueueSender)
    }
}

/// Answers that are given once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Once;
/// Where an answer is given.
pub(crate) struct OnceSender<T>(tokio::sync::oneshot::Sender<T>);

impl oneshot::Oneshot for Once {
    type Sender<T: OptionalSend> = OnceSender<T>;
    type Receiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type ReceiverError = tokio::sync::oneshot::error::RecvError;

    fn channel<T: OptionalSend>() -> (OnceSender<T>, Self::Receiver<T>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (OnceSender(sender), receiver)
    }
}

impl<T: OptionalSend> oneshot::OneshotSender<T> for OnceSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// A lock.
pub(crate) struct Guarded<T>(tokio::sync::Mutex<T>);

impl<T: OptionalSend + 'static> mutex::Mutex<T> for Guarded<T> {
    type Guard<'a> = tokio::sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(tokio::sync::Mutex::new(value))
    }

    fn lock(&self) -> impl Future<Output = Self::Guard<'_>> + OptionalSend {
        self.0.lock()
    }
}
