//! Calls that end at a deadline.

use crate::call::{Call, Job};
use crate::stack::Stack;
use crate::{Error, Result};
use futures::future::FusedFuture;
use pin_project_lite::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

impl<'a, S: Stack, T: 'static, J: Job<T>> Call<'a, S, T, J> {
    /// Ends this call when `timer` is ready, wherever its guest is at that moment.
    ///
    /// The timer can be any future, such as `tokio::time::sleep`, `futures_timer::Delay`, or a shutdown token. Its
    /// output is ignored. It is first polled together with the call, in the same task.
    ///
    /// Each poll looks at the timer first. Once the timer is ready, the guest does not run again: the call is dropped,
    /// which cancels it as described at [`Call`], and the result is [`Error::Deadline`]. So if the timer is ready at
    /// the first poll, nothing runs.
    ///
    /// # Guests that compute
    ///
    /// Nothing looks at the timer while a guest runs. A guest that waits in host functions is stopped there. A guest
    /// that computes for longer is stopped at the end of a time slice, if its store has time slices: see
    /// [`Store::epoch_deadline_wait_and_update`](crate::Store::epoch_deadline_wait_and_update). Without them it runs
    /// until it next waits, or ends.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] if the timer was ready first, otherwise the errors of the call.
    ///
    /// # Panics
    ///
    /// As [`Call`]. In addition, `poll` propagates a panic of code that is being cancelled.
    ///
    /// # Cancel safety
    ///
    /// As [`Call`]. Dropping this drops first the call, then the timer.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_timer::Delay;
    /// use std::time::Duration;
    /// use wasmtime::{Config, Engine, Instance, Module};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Error, FuncExt, Stack, Store};
    ///
    /// # fn main() -> wasmtime::Result<()> {
    /// // The guest never waits, so it needs time slices.
    /// let engine = Engine::new(Config::new().epoch_interruption(true))?;
    /// let clock = engine.weak();
    /// std::thread::spawn(move || {
    ///     while let Some(engine) = clock.upgrade() {
    ///         engine.increment_epoch();
    ///         std::thread::sleep(Duration::from_millis(5));
    ///     }
    /// });
    /// let mut store = Store::new(&engine, ());
    /// store.set_epoch_deadline(1);
    /// store.epoch_deadline_suspend_and_update(1);
    ///
    /// let module = Module::new(&engine, r#"(module (func (export "spin") (loop (br 0))))"#)?;
    /// let spin = Instance::new(&mut store, &module, &[])?.get_func(&mut store, "spin").expect("is exported");
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    ///
    /// let call = spin.call_on(&mut stack, &mut store, &[], &mut []).until(Delay::new(Duration::from_millis(20)));
    /// let error = futures::executor::block_on(call).unwrap_err();
    /// assert!(matches!(error.downcast_ref(), Some(Error::Deadline)));
    /// // Stack and store are free for other calls.
    /// # Ok(())
    /// # }
    /// ```
    pub fn until<F: Future>(self, timer: F) -> Until<'a, S, T, J, F> {
        Until { call: Some(self), timer }
    }
}

pin_project! {
    /// A call that ends at a deadline, from [`Call::until`].
    #[must_use = "futures do nothing unless they are awaited or polled"]
    pub struct Until<'a, S: Stack, T: 'static, J: Job<T>, F> {
        // `None` once the timer was ready.
        call: Option<Call<'a, S, T, J>>,
        #[pin]
        timer: F,
    }
}

impl<S: Stack, T: 'static, J: Job<T>, F: Future> Future for Until<'_, S, T, J, F> {
    type Output = Result<J::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(call) = this.call.as_mut().filter(|call| !call.is_terminated()) else {
            return Poll::Ready(Err(Error::Ended.into()));
        };
        if this.timer.poll(cx).is_pending() {
            return Pin::new(call).poll(cx);
        }
        // This may panic, after `take` has left `None`.
        drop(this.call.take());
        Poll::Ready(Err(Error::Deadline.into()))
    }
}

impl<S: Stack, T: 'static, J: Job<T>, F: Future> FusedFuture for Until<'_, S, T, J, F> {
    fn is_terminated(&self) -> bool {
        self.call.as_ref().is_none_or(FusedFuture::is_terminated)
    }
}

impl<S: Stack, T: 'static, J: Job<T>, F> fmt::Debug for Until<'_, S, T, J, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until").field("call", &self.call).finish_non_exhaustive()
    }
}
