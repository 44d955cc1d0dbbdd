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

    use tokio::time::timeout;

    use super::*;

    fn after(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    /// Has it polled, and left alone again.
    async fn touch(alarm: &mut Alarm) {
        assert!(timeout(Duration::ZERO, alarm).await.is_err());
    }

    /// It goes off, and not before this.
    async fn goes_off(mut alarm: Alarm, at: Instant) -> Alarm {
        timeout(Duration::from_secs(60), &mut alarm).await.expect("it goes off");
        assert!(Instant::now() >= at);
        alarm
    }

    #[tokio::test]
    async fn it_goes_off_at_the_time_that_it_was_last_set_to() {
        let (near, far) = (after(20), after(60));
        let mut alarm = Alarm::at(near);
        touch(&mut alarm).await;
        alarm.set(Some(far));
        let mut alarm = goes_off(alarm, far).await;
        alarm.set(Some(after(3_600_000)));
        touch(&mut alarm).await;
        let near = after(20);
        alarm.set(Some(near));
        let alarm = goes_off(alarm, near).await;
        let mut alarm = goes_off(alarm, near).await;
        alarm.set(None);
        touch(&mut alarm).await;
    }

    #[tokio::test]
    async fn it_wakes_whoever_polled_it_last() {
        let at = after(20);
        let mut alarm = Alarm::at(at);
        touch(&mut alarm).await;
        tokio::spawn(goes_off(alarm, at)).await.expect("it ends");
    }
}
