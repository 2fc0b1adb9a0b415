//! Time slices: a guest that computes for a long time lets other tasks run in between.

use crate::call::store_id;
use crate::frame::Frame;
use crate::limits::Site;
use crate::out_of_line::OutOfLine;
use crate::{Error, Store};
use std::future::Future;
use std::pin::pin;
use wasmtime::UpdateDeadline;

/// Time slices. They exist on targets with 64-bit atomics, which epochs need.
///
/// Time slices need three things: an engine with [`Config::epoch_interruption`](wasmtime::Config::epoch_interruption),
/// something that calls [`Engine::increment_epoch`](wasmtime::Engine::increment_epoch) every few milliseconds, and a
/// first deadline, set by [`set_epoch_deadline`](wasmtime::Store::set_epoch_deadline).
impl<T: 'static> Store<T> {
    /// Makes the guest yield when the store's epoch deadline is reached: wakes the task, suspends the guest's stack
    /// once, and then sets the next deadline `delta` epochs after the current one.
    ///
    /// This replaces `epoch_deadline_callback` and similar methods. It is for executors that run woken tasks in turn,
    /// and that look at their timers and sockets in between. tokio does not: use
    /// [`epoch_deadline_wait_and_update`](Self::epoch_deadline_wait_and_update) there, which explains why.
    ///
    /// # Errors
    ///
    /// A guest that reaches its deadline traps
    ///
    /// - with [`Error::NotOnStack`](crate::Error::NotOnStack) if it was not entered on a stack of this crate;
    /// - with [`Error::Cancelled`](crate::Error::Cancelled) if its call was dropped;
    /// - with [`Error::ForeignFrames`](crate::Error::ForeignFrames) if its stack holds frames that it does not suspend.
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

    /// Makes the guest wait when the store's epoch deadline is reached: calls `wait`, suspends the guest's stack until
    /// the future that it returns is ready, and then sets the next deadline `delta` epochs after the current one.
    ///
    /// This replaces `epoch_deadline_callback` and similar methods. The future decides which tasks run in the meantime,
    /// so use the executor's own way to yield:
    ///
    /// | executor | `wait` |
    /// |---|---|
    /// | tokio | `tokio::task::yield_now` |
    /// | tokio, on a `ThreadStack` | `\|\| tokio::time::sleep(Duration::from_millis(1))`: its futures are polled on the stack's own thread, where `yield_now` can only wake the task |
    /// | executors that run tasks in turn: `LocalPool` and `ThreadPool` of futures, async-executor, smol | none: [`epoch_deadline_suspend_and_update`](Self::epoch_deadline_suspend_and_update) |
    ///
    /// tokio runs tasks that are ready, and looks at timers and sockets when none is left, or after 61 tasks. A task
    /// that wakes itself is ready at once. So with a few guests that compute, all timers and sockets of the thread
    /// would be late by 61 slices. `tokio::task::yield_now` makes tokio look at them first, and wakes the task
    /// afterwards.
    ///
    /// A future that is ready at once suspends nothing. The future may also pause the guest for longer than other tasks
    /// need: a semaphore bounds how many guests compute at the same time, and a timer slows down a guest that has used
    /// up its share.
    ///
    /// # Errors
    ///
    /// A guest traps with the same errors as with
    /// [`epoch_deadline_suspend_and_update`](Self::epoch_deadline_suspend_and_update).
    ///
    /// # Panics
    ///
    /// A panic of `wait` or of its future propagates through the guest and out of the call's `poll`. After that, the
    /// store has no time slices until you set them again.
    ///
    /// # Cancel safety
    ///
    /// If the call is dropped while it waits here, the future is dropped, and the guest unwinds with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    ///
    /// # Examples
    ///
    /// A guest that would never end, next to a timer on the same thread:
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
            // Polled and dropped out of line, because this code may continue on another thread.
            let future = pin!(Some(OutOfLine::new(wait())));
            let site = Site::host_function(store_id(&store), true);
            Frame::with_current(|frame| frame.block_on::<false, _>(future, site)).map_err(Error::into_trap)?;
            Ok(UpdateDeadline::Continue(delta))
        });
    }
}
