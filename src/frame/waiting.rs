//! Waiting on the stack: polls a future, and leaves the stack while the future is pending.

use super::Frame;
use crate::Error;
#[cfg(fiber_stack)]
use crate::error::Between;
use crate::limits::Site;
use crate::sync::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// How many futures the code on a thread's stack may wait for in one entry of the stack, before the poller gets a turn.
///
/// Some executors, such as tokio, have a budget for the futures of a task. They see the futures of a fiber, which are
/// polled on the poller's thread, but not the futures of a thread's stack. Without this limit, a guest whose futures
/// are always ready would never return to its poller.
#[cfg(feature = "thread-backend")]
pub(crate) const BUDGET: u32 = 128;

/// The result of polling a future once.
pub(crate) enum Polled<T> {
    Ready(T),
    Pending,
    /// Pending, but the stack was suspended during the poll. The event that the future waits for may have happened
    /// since. Its wake-up may have been used up by what the stack was waiting for then, or may have gone to another
    /// poller's waker.
    Stale,
}

impl Frame {
    /// Polls the future until it is ready, and suspends the stack whenever it is not.
    ///
    /// The future is pinned where it was made, because moving it takes longer than polling one that is ready. Its
    /// address is only exposed if it may make nested calls (`NESTS`). Otherwise a small future is not in memory at all.
    #[inline]
    pub(crate) fn block_on<const NESTS: bool, F: Future>(
        &self,
        mut future: Pin<&mut Option<F>>,
        site: Site,
    ) -> Result<F::Output, Error> {
        #[cfg(feature = "thread-backend")]
        if self.is_of_thread() {
            self.spend(site)?;
        }
        // An earlier host function may have forgotten a nested call that had asked, but not begun.
        #[cfg(fiber_stack)]
        if NESTS && !self.polling.get() {
            self.nesting.want_no_more();
        }
        loop {
            if self.cancelled.get() {
                return Err(Error::Cancelled);
            }
            let Some(polled) = future.as_mut().as_pin_mut().map(|future| self.poll(future)) else {
                return Err(Error::Cancelled);
            };
            match polled {
                Polled::Ready(output) => return Ok(output),
                #[cfg(fiber_stack)]
                Polled::Pending | Polled::Stale if NESTS && self.nesting.is_wanted() => {
                    if let Some(output) = self.wait_for_nested(future.as_mut(), site)? {
                        return Ok(output);
                    }
                }
                Polled::Pending => self.suspend(site)?,
                Polled::Stale => (),
            }
        }
    }

    /// Takes one wait from the budget of this entry. If none is left, suspends the stack once.
    #[cfg(feature = "thread-backend")]
    fn spend(&self, site: Site) -> Result<(), Error> {
        if let Some(left) = self.budget.get().checked_sub(1) {
            self.budget.set(left);
            return Ok(());
        }
        // A wait for a ready future must work in places where the stack cannot be suspended, even without budget: in a
        // destructor during a panic, and inside the poll of another future, which is only suspended if necessary.
        if self.polling.get() || self.allow(site).is_err() {
            return Ok(());
        }
        self.yield_now(site)
    }

    /// Asks to be resumed soon, and suspends the stack once.
    pub(crate) fn yield_now(&self, site: Site) -> Result<(), Error> {
        if self.cancelled.get() {
            return Err(Error::Cancelled);
        }
        self.allow(site)?;
        // Uses a clone, because waking runs foreign code. If that code suspends the stack, the poller's waker is gone.
        // Wakes by value, so that the clone is dropped before this suspends.
        let waker = self.poller_waker().clone();
        let entry = self.entries.get();
        waker.wake();
        // If waking has suspended the stack, other tasks have had their turn already.
        if self.entries.get() == entry { self.suspend(site) } else { Ok(()) }
    }

    /// Polls once, with a waker that wakes the task of the poller.
    #[inline]
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>) -> Polled<F::Output> {
        struct Polling<'a> {
            polling: &'a Cell<bool>,
            outer: bool,
        }
        impl Drop for Polling<'_> {
            #[inline]
            fn drop(&mut self) {
                self.polling.set(self.outer);
            }
        }

        // Comes before any code of the user's, including a waker's destructor.
        let entry = self.entries.get();
        let own;
        let waker = if self.polling.get() {
            // Inside the poll of another future, which may hold a reference to `kept`.
            own = self.poller_waker().clone();
            &own
        } else {
            self.keep_waker();
            // SAFETY: `kept` is not replaced while `polling` is set.
            self.kept.with(|kept| unsafe { &*kept }).as_ref().unwrap_or(Waker::noop())
        };
        let polling = Polling { polling: &self.polling, outer: self.polling.replace(true) };
        let polled = future.poll(&mut Context::from_waker(waker));
        drop(polling);
        match polled {
            Poll::Ready(output) => Polled::Ready(output),
            Poll::Pending if self.entries.get() == entry => Polled::Pending,
            Poll::Pending => Polled::Stale,
        }
    }

    /// The waker of this entry. Valid only until the stack is left.
    #[inline]
    fn poller_waker(&self) -> &Waker {
        // SAFETY: the poller keeps its waker alive while it waits for the stack to be left.
        unsafe { self.waker.get().as_ref() }.unwrap_or(Waker::noop())
    }

    /// Makes `kept` a waker that wakes the same task as the poller's.
    #[inline]
    fn keep_waker(&self) {
        debug_assert!(!self.polling.get());
        let waker = self.poller_waker();
        if !self.is_own_waker(waker) {
            let fresh = waker.clone();
            // SAFETY: no future is being polled, so nothing refers to the waker that is replaced.
            let stale = self.kept.with_mut(|kept| unsafe { (*kept).replace(fresh) });
            // Dropped last, because this may run any code.
            drop(stale);
        }
    }

    /// Checks whether the running code may suspend this stack.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[inline]
    pub(crate) fn allow(&self, site: Site) -> Result<(), Error> {
        #[cfg(fiber_stack)]
        if self.nesting.is_aside() {
            // This code does not run on this frame's stack at all.
            return Err(Error::ForeignFrames { between: Between::Poll });
        }
        Ok(self.limits.allow(site, self.polling.get())?)
    }

    /// Whether this is the waker that the frame gives to futures. If so, its task polls all of the host function.
    #[inline]
    pub(crate) fn is_own_waker(&self, waker: &Waker) -> bool {
        // SAFETY: nothing replaces `kept` while this reference lives, because `will_wake` only compares two words.
        self.kept.with(|kept| unsafe { &*kept }.as_ref().is_some_and(|kept| kept.will_wake(waker)))
    }

    /// Leaves the stack, and returns when the poller enters it again.
    #[inline]
    fn suspend(&self, site: Site) -> Result<(), Error> {
        debug_assert!(!self.cancelled.get(), "a poll in whose middle the call was cancelled is stale");
        self.allow(site)?;
        // SAFETY: the backend was set before this stack ran anything, and this code runs on the stack.
        unsafe { self.leave() };
        if self.cancelled.get() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
