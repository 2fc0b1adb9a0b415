//! Time slices: guests that compute for long let other tasks run in between.

use crate::call::store_id;
use crate::frame::Frame;
use crate::limits::Site;
use crate::out_of_line::OutOfLine;
use crate::{Error, Store};
use std::future::Future;
use std::pin::pin;
use wasmtime::UpdateDeadline;

/// Time slices, on targets with atomics of 64 bits, which epochs need.
///
/// The engine must have [`Config::epoch_interruption`](wasmtime::Config::epoch_interruption) on, something must call
/// [`Engine::increment_epoch`](wasmtime::Engine::increment_epoch) every few milliseconds, and the first deadline is set by
/// [`set_epoch_deadline`](wasmtime::Store::set_epoch_deadline).
impl<T: 'static> Store<T> {
    /// When the store's epoch deadline is reached, wakes the task, suspends the guest's stack once, and goes on with a
    /// deadline `delta` epochs after the current one.
    ///
    /// This replaces `epoch_deadline_callback` and the like. It is for executors that run woken tasks in turn, and look at
    /// their timers and sockets in between. tokio is none of those:
    /// [`epoch_deadline_wait_and_update`](Self::epoch_deadline_wait_and_update) says why, and is for it.
    ///
    /// # Errors
    ///
    /// A guest that reaches its deadline traps with [`Error::NotOnStack`](crate::Error::NotOnStack) if it was not entered
    /// on a stack of this crate, with [`Error::Cancelled`](crate::Error::Cancelled) if its call was dropped, and with
    /// [`Error::ForeignFrames`](crate::Error::ForeignFrames) where its stack does not suspend what lies on it.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::future::{poll_fn, select};
    /// use std::task::Poll;
    /// use wasmtime::{Config, Engine, Func, Instance, Module};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store};
    ///
    /// # fn main() -> wasmtime::Result<()> {
    /// let engine = Engine::new(Config::new().epoch_interruption(true))?;
    /// let mut store = Store::new(&engine, ());
    /// store.set_epoch_deadline(1);
    /// store.epoch_deadline_suspend_and_update(1);
    ///
    /// // A program has a thread that does this every few milliseconds.
    /// let clock = engine.clone();
    /// let time_passes = Func::wrap(&mut store, move || clock.increment_epoch());
    ///
    /// let module = Module::new(
    ///     &engine,
    ///     r#"(module
    ///         (import "" "time passes" (func $time_passes))
    ///         (func (export "spin") (loop (call $time_passes) (br 0))))"#,
    /// )?;
    /// let spin = Instance::new(&mut store, &module, &[time_passes.into()])?;
    /// let spin = spin.get_func(&mut store, "spin").expect("is exported");
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    /// let spins_for_ever = spin.call_on(&mut stack, &mut store, &[], &mut []);
    ///
    /// // Another task on the same thread, which ends after three turns.
    /// let mut turns = 0;
    /// let other_task = poll_fn(|cx| {
    ///     turns += 1;
    ///     cx.waker().wake_by_ref();
    ///     if turns == 3 { Poll::Ready(()) } else { Poll::Pending }
    /// });
    /// futures::executor::block_on(select(other_task, spins_for_ever));
    /// assert_eq!(turns, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn epoch_deadline_suspend_and_update(&mut self, delta: u64) {
        self.epoch_deadline_callback(move |store| {
            let site = Site::host_function(store_id(&store), true);
            Frame::with_current(|frame| frame.yield_now(site)).map_err(Error::into_trap)?;
            Ok(UpdateDeadline::Continue(delta))
        });
    }

    /// When the store's epoch deadline is reached, waits for a future that `wait` makes, with the guest's stack suspended
    /// while it is pending, and goes on with a deadline `delta` epochs after the current one.
    ///
    /// This replaces `epoch_deadline_callback` and the like. The future decides who runs meanwhile, so it should be the
    /// executor's own way to yield:
    ///
    /// | executor | `wait` |
    /// |---|---|
    /// | tokio | `tokio::task::yield_now` |
    /// | tokio, on a `ThreadStack` | `\|\| tokio::time::sleep(Duration::from_millis(1))`: its futures are polled on the stack's own thread, where `yield_now` can only wake the task |
    /// | those that run tasks in turn: `LocalPool` and `ThreadPool` of futures, async-executor, smol | none: [`epoch_deadline_suspend_and_update`](Self::epoch_deadline_suspend_and_update) |
    ///
    /// tokio runs tasks that are ready, and looks at timers and sockets when none is left, or after 61 of them. A task that
    /// wakes itself is ready at once, so with a few guests that compute, all timers and sockets of the thread are late by
    /// 61 slices. `tokio::task::yield_now` has the task woken after the next look at them.
    ///
    /// A future that is ready at once suspends nothing. It may also make the guest pause for longer than others need: a
    /// semaphore that bounds how many guests compute at a time, or a timer for one that has used up its share.
    ///
    /// # Errors
    ///
    /// Those of a guest with
    /// [`epoch_deadline_suspend_and_update`](Self::epoch_deadline_suspend_and_update).
    ///
    /// # Panics
    ///
    /// A panic of `wait` or of its future goes on through the guest, and comes out of the call's `poll`. The
    /// store has no time slices then, until they are set anew.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped while it waits here drops the future, and its guest unwinds with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    ///
    /// # Examples
    ///
    /// A guest that would never end, beside a timer on the same thread:
    ///
    /// ```
    /// use std::time::Duration;
    /// use tokio::time::timeout;
    /// use wasmtime::{Config, Engine, Instance, Module};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store};
    ///
    /// # fn main() -> wasmtime::Result<()> {
    /// let engine = Engine::new(Config::new().epoch_interruption(true))?;
    /// let clock = engine.weak();
    /// std::thread::spawn(move || {
    ///     while let Some(engine) = clock.upgrade() {
    ///         engine.increment_epoch();
    ///         std::thread::sleep(Duration::from_millis(5));
    ///     }
    /// });
    ///
    /// let mut store = Store::new(&engine, ());
    /// store.set_epoch_deadline(1);
    /// store.epoch_deadline_wait_and_update(1, tokio::task::yield_now);
    /// let module = Module::new(&engine, r#"(module (func (export "spin") (loop (br 0))))"#)?;
    /// let spin = Instance::new(&mut store, &module, &[])?.get_func(&mut store, "spin").expect("is exported");
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// let result = runtime.block_on(async {
    ///     timeout(Duration::from_millis(20), spin.call_on(&mut stack, &mut store, &[], &mut [])).await
    /// });
    /// assert!(result.is_err(), "timed out");
    /// # Ok(())
    /// # }
    /// ```
    pub fn epoch_deadline_wait_and_update<F>(&mut self, delta: u64, mut wait: impl FnMut() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        self.epoch_deadline_callback(move |store| {
            // Polled and dropped out of line, because another thread may go on here.
            let future = pin!(Some(OutOfLine::new(wait())));
            let site = Site::host_function(store_id(&store), true);
            Frame::with_current(|frame| frame.block_on::<false, _>(future, site)).map_err(Error::into_trap)?;
            Ok(UpdateDeadline::Continue(delta))
        });
    }
}
