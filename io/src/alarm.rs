//! A timer whose time may be put off at no cost.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep};

/// Goes off at a time that may be put off while it is waited for.
///
/// Most deadlines are put off again and again before they come: that of a silent connection with
/// each read, that of a loop with each input. The runtime's own timer is set once for many of
/// them, and set again only where it goes off too early, or where the time is brought forward. As a
/// future it may be awaited again once it has gone off.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Instant>,
    timer: Option<Timer>,
}

/// The runtime's timer, not later than the time of the alarm.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes; nobody before it was polled.
    waker: Option<Waker>,
}

impl Alarm {
    /// An alarm for this time.
    pub(crate) fn at(at: Instant) -> Self {
        Self { at: Some(at), timer: None }
    }

    /// It goes off at this time now; never, if there is none.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let now = Instant::now();
        if at <= now {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Timer {
            sleep: Box::pin(tokio::time::sleep_until(at)),
            waker: None,
        });
        let set = timer.sleep.deadline();
        let wakes_in_time = set > now && set <= at;
        if wakes_in_time && timer.waker.as_ref().is_some_and(|it| it.will_wake(context.waker())) {
            return Poll::Pending;
        }
        if !wakes_in_time {
            timer.sleep.as_mut().reset(at);
        }
        timer.waker = Some(context.waker().clone());
        timer.sleep.as_mut().poll(context)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::time::Duration;

    use super::*;

    /// In how many milliseconds an alarm goes off.
    async fn goes_off(alarm: &mut Alarm, began: Instant) -> u128 {
        alarm.await;
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_was_last_set_to() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let mut alarm = Alarm::at(after(10));
        let mut polled = std::pin::pin!(tokio::time::timeout(Duration::from_millis(5), &mut alarm));
        assert!(polled.as_mut().await.is_err());
        alarm.set(Some(after(30)));
        assert_eq!(goes_off(&mut alarm, began).await, 30, "put off");
        alarm.set(Some(after(90)));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut alarm).await.is_err());
        alarm.set(Some(after(50)));
        assert_eq!(goes_off(&mut alarm, began).await, 50, "brought forward");
        assert_eq!(goes_off(&mut alarm, began).await, 50, "and again at once");
        alarm.set(None);
        let never = tokio::time::timeout(Duration::from_secs(9), &mut alarm).await;
        assert!(never.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn another_task_may_wait_for_it() {
        let mut alarm = Alarm::at(Instant::now() + Duration::from_millis(20));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut alarm).await.is_err());
        let task = tokio::spawn(async move { (&mut alarm).await });
        tokio::time::timeout(Duration::from_secs(1), task)
            .await
            .expect("it goes off")
            .expect("ends");
    }
}
