//! The clock of the shell, and the one timer that a connection has.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Milliseconds since the shell was made: what the machines take for the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the shell is where time comes from"
    )]
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until that time.
    pub(super) async fn reach(&self, ms: u64) {
        tokio::time::sleep_until(self.instant(ms)).await;
    }

    /// Rounded up, so that a timer never fires before `ms` is reached.
    fn instant(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }
}

/// Wakes at a point in time. It is set anew only for an earlier one: a later one is set when the
/// earlier has come, so a deadline that moves with each stanza costs nothing.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    set: u64,
}

impl Timer {
    /// Ready when `due` has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, clock: &Clock, due: u64) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if due < self.set {
                    sleep.as_mut().reset(clock.instant(due));
                    self.set = due;
                }
                sleep
            }
            None => {
                self.set = due;
                self.sleep
                    .insert(Box::pin(tokio::time::sleep_until(clock.instant(due))))
            }
        };
        while sleep.as_mut().poll(cx).is_ready() {
            if clock.now() >= due {
                // Whatever is next is later than now, but may be earlier than the next `due`.
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(clock.instant(due));
            self.set = due;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn wait(timer: &mut Timer, clock: &Clock, due: u64) -> u64 {
        poll_fn(|cx| timer.poll(cx, clock, due)).await;
        clock.now()
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_when_due_whatever_was_asked_before() {
        let clock = Clock::new();
        let mut timer = Timer::default();
        let mut poll = |due| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            timer.poll(&mut context, &clock, due)
        };
        assert_eq!(poll(1_000), Poll::Pending);
        assert_eq!(poll(5_000), Poll::Pending);
        assert_eq!(poll(100), Poll::Pending);
        assert_eq!(wait(&mut timer, &clock, 100).await, 100);
        assert_eq!(wait(&mut timer, &clock, 5_000).await, 5_000);
        assert_eq!(wait(&mut timer, &clock, 5_000).await, 5_000);
    }
}
