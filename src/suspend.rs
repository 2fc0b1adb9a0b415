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
/// resumed after the call has ended.
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
/// use std::future::ready;
/// use wasmtime::{Engine, Func, Store};
/// use wasmtime_async::{DEFAULT_SIZE, DefaultStack, FuncExt, Stack, suspend_until};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let host = Func::wrap(&mut store, |n: i32| -> wasmtime::Result<i32> { Ok(n + suspend_until(ready(1))?) });
///
/// let mut stack = DefaultStack::new(DEFAULT_SIZE)?;
/// let add_one = host.get_async(&store).get1::<i32, i32>()?;
/// assert_eq!(futures::executor::block_on(add_one.call(&mut stack, &mut store, (41,)))?, 42);
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
/// use wasmtime_async::yield_now;
///
/// fn long_computation() -> Result<u64, wasmtime_async::Error> {
///     let mut sum = 0;
///     for n in 0..1_000_000 {
///         sum += n;
///         if n % 100_000 == 0 {
///             yield_now()?;
///         }
///     }
///     Ok(sum)
/// }
/// ```
pub fn yield_now() -> Result<(), Error> {
    Frame::with_current(Frame::yield_now)
}
