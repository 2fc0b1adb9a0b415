//! Time slices: guests that run for long let their executor run other tasks.

use crate::sealed::Extended;
use crate::yield_now;
use wasmtime::{Store, UpdateDeadline};

/// Epoch deadlines that suspend, for [`wasmtime::Store`]. On targets with atomics of 64 bits, which wasmtime's epochs need.
pub trait StoreExt: Extended {
    /// When the store's epoch deadline is reached, suspends the guest's stack once, with its task woken, and goes on
    /// with a deadline `delta` epochs after the current one.
    ///
    /// The engine must have [`Config::epoch_interruption`](wasmtime::Config::epoch_interruption) on, something must call
    /// [`Engine::increment_epoch`](wasmtime::Engine::increment_epoch), and the first deadline is set by
    /// [`Store::set_epoch_deadline`]. This replaces `epoch_deadline_callback` and the like.
    ///
    /// # Errors
    ///
    /// A guest that reaches its deadline traps with [`Error::NotOnStack`](crate::Error::NotOnStack) if it was not entered
    /// on a stack of this crate, and with [`Error::Cancelled`](crate::Error::Cancelled) if its call was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::future::{poll_fn, select};
    /// use std::task::Poll;
    /// use wasmtime::{Config, Engine, Func, Instance, Module, Store};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, StoreExt};
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
    fn epoch_deadline_suspend_and_update(&mut self, delta: u64);
}

impl<T: 'static> StoreExt for Store<T> {
    fn epoch_deadline_suspend_and_update(&mut self, delta: u64) {
        self.epoch_deadline_callback(move |_| {
            yield_now()?;
            Ok(UpdateDeadline::Continue(delta))
        });
    }
}
