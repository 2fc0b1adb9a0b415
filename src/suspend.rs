//! Waiting for futures from synchronous code.

use crate::Error;
use crate::frame::Frame;
use std::future::Future;

/// Waits for a future, from synchronous host code that runs on one of this crate's stacks: in the closure of
/// [`Stack::run`](crate::Stack::run), in a host function that wasm called, in a destructor.
///
/// The future is polled at once; as long as it is pending, the stack is suspended and the call's own future returns
/// [`Poll::Pending`](std::task::Poll::Pending). The future may borrow, and need not be `Send`. A future that is ready
/// costs a few nanoseconds.
///
/// Frames that wait are left as they are, and other code of the thread runs meanwhile. On a
/// [`FiberStack`](crate::FiberStack), do not wait inside anything that sets a thread-local variable for the time of a
/// closure or a guard: see its documentation. On neither stack wait inside a coroutine of another library that could be
/// resumed after the call has ended, nor let a call suspend the coroutine in which it is polled.
///
/// # Errors
///
/// - [`Error::NotOnStack`] if the code does not run on one of this crate's stacks;
/// - [`Error::Cancelled`] if the call was dropped: now, or before;
/// - [`Error::Unwinding`] if the future is pending and the thread is panicking.
///
/// # Cancel safety
///
/// If the call is dropped while it waits here, the future is dropped before this function returns.
///
/// # Examples
///
/// A synchronous host function that waits:
///
/// ```
/// use futures::executor::block_on;
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::{Engine, Func, Store};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, suspend_until};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let sleep = Func::wrap(&mut store, |ms: u32| -> wasmtime::Result<()> {
///     suspend_until(Delay::new(Duration::from_millis(ms.into())))?;
///     Ok(())
/// });
///
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let sleep = sleep.get_async(&store).get1::<u32, ()>()?;
/// block_on(sleep.call(&mut stack, &mut store, (10,)))?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
#[inline]
pub fn suspend_until<F: Future>(future: F) -> Result<F::Output, Error> {
    Frame::with_current(|frame| frame.block_on(future))
}

/// Suspends the stack that this code runs on, having woken its task, so that the executor runs other tasks before it
/// goes on here.
///
/// # Errors
///
/// Those of [`suspend_until`].
///
/// # Examples
///
/// ```
/// use wasmtime::{Engine, Store};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Error, Stack, yield_now};
///
/// fn long_computation() -> Result<u64, Error> {
///     let mut sum = 0;
///     for n in 0..1_000_000 {
///         sum += n;
///         if n % 100_000 == 0 {
///             yield_now()?;
///         }
///     }
///     Ok(sum)
/// }
///
/// let mut store = Store::new(&Engine::default(), ());
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let call = stack.run(&mut store, |_| Ok(long_computation()?));
/// assert_eq!(futures::executor::block_on(call)?, 499_999_500_000);
/// # Ok::<(), wasmtime::Error>(())
/// ```
pub fn yield_now() -> Result<(), Error> {
    Frame::with_current(Frame::yield_now)
}
