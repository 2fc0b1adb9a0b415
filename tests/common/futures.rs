//! Futures that are pending as often as a test wants, and wakers that count.

use super::moving::elsewhere;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

/// Pending for `times` polls. Each of them wakes the task.
pub(crate) fn pending(mut times: usize) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Polls once, with a waker that does nothing. In a test whose calls change threads, this is on another thread than the
/// last poll.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Polls once, with this waker.
pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    elsewhere(|| Pin::new(future).poll(&mut Context::from_waker(waker)))
}

/// Drops a call. In a test whose calls change threads, this is on another thread.
pub(crate) fn cancel(call: impl Future) {
    elsewhere(|| drop(call));
}

/// Polls until the future is ready. There is nothing to wait for, so each poll must make progress.
pub(crate) fn finish<F: Future + Unpin>(mut future: F) -> F::Output {
    loop {
        if let Poll::Ready(output) = poll_once(&mut future) {
            return output;
        }
    }
}

/// Polls once, and catches a panic.
pub(crate) fn poll_caught<F: Future + Unpin>(future: &mut F) -> thread::Result<Poll<F::Output>> {
    catch_unwind(AssertUnwindSafe(|| poll_once(future)))
}

/// Counts how often it was woken. The clones in existence are those of its `Arc`.
#[derive(Debug, Default)]
pub(crate) struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
