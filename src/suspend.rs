//! Waiting for futures from synchronous code.

use crate::Error;
use crate::call::store_id;
use crate::frame::Frame;
use crate::limits::Site;
use std::future::Future;
use std::pin::pin;
use wasmtime::AsContext;

/// Waits for a future from synchronous host code that runs on one of this crate's stacks: in the closure of
/// [`Stack::run`](crate::Stack::run), in a host function that wasm called, or in a destructor.
///
/// The future is polled at once. As long as it is pending, the stack is suspended and the call's own future returns
/// [`Poll::Pending`](std::task::Poll::Pending). The future may borrow, and need not be `Send`. A future that is ready
/// costs a few nanoseconds. (On a `ThreadStack`, after 128 waits without a suspension, this first yields like
/// [`yield_now`], so that code whose futures are always ready lets other tasks run.)
///
/// Waiting suspends frames of synchronous code. A `ThreadStack` does that, and so does a
/// [`FiberStack::unchecked`](crate::FiberStack::unchecked). On other stacks the future must be ready when it is first
/// polled, so wait in an async host function instead.
///
/// Two things are not allowed on any stack. Do not wait inside a coroutine of another library that could be resumed
/// after the call has ended. And do not let a call suspend the coroutine in which the call is polled.
///
/// # Errors
///
/// - [`Error::NotOnStack`] if the code does not run on one of this crate's stacks;
/// - [`Error::Cancelled`] if the call was dropped, either now or before;
/// - [`Error::ForeignFrames`] if the future is pending and the stack does not suspend synchronous code;
/// - [`Error::Unwinding`] if the future is pending and this code runs while a panic unwinds the stack.
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
/// # #[cfg(feature = "thread-backend")]
/// # fn main() -> wasmtime::Result<()> {
/// use futures::executor::block_on;
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::{Engine, Func};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Stack, Store, ThreadStack, suspend_until};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let sleep = Func::wrap(&mut store, |ms: u32| -> wasmtime::Result<()> {
///     suspend_until(Delay::new(Duration::from_millis(ms.into())))?;
///     Ok(())
/// });
///
/// let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
/// let sleep = sleep.get_async(&store).get1::<u32, ()>()?;
/// block_on(sleep.call(&mut stack, &mut store, (10,)))?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "thread-backend"))]
/// # fn main() {}
/// ```
#[inline]
pub fn suspend_until<F: Future>(future: F) -> Result<F::Output, Error> {
    let future = pin!(Some(future));
    Frame::with_current(|frame| frame.block_on::<true, _>(future, Site::ANYWHERE))
}

/// Wakes the task and suspends the stack that this code runs on, so that the executor runs other tasks before this code
/// continues.
///
/// Like [`suspend_until`], this suspends frames of synchronous code. In an async host function, await the executor's
/// own way to yield instead.
///
/// # Errors
///
/// Those of [`suspend_until`] with a future that is pending.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "thread-backend")]
/// # fn main() -> wasmtime::Result<()> {
/// use wasmtime::Engine;
/// use wasmtime_async::{DEFAULT_STACK_SIZE, Error, Stack, Store, ThreadStack, yield_now};
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
/// let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
/// let call = stack.run(&mut store, |_| Ok(long_computation()?));
/// assert_eq!(futures::executor::block_on(call)?, 499_999_500_000);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "thread-backend"))]
/// # fn main() {}
/// ```
pub fn yield_now() -> Result<(), Error> {
    Frame::with_current(|frame| frame.yield_now(Site::ANYWHERE))
}

/// Waits for a future in a synchronous host function that you declare safe to suspend. It is for host functions that
/// other people's macros generate with a place for a custom `block_on`.
///
/// `store` is the function's [`Caller`](wasmtime::Caller), or another context of the store whose guest called the
/// function. A [`FiberStack`](crate::FiberStack) is suspended if it holds no other frames that it does not suspend. On
/// a [`SendFiberStack`](crate::SendFiberStack), the future must be ready when it is first polled.
///
/// # Errors
///
/// Those of [`suspend_until`], and [`Error::NotSend`].
///
/// # Cancel safety
///
/// That of [`suspend_until`].
///
/// # Safety
///
/// All frames between the guest that made the call and this function may be suspended: they meet the requirements that
/// [`FiberStack::unchecked`](crate::FiberStack::unchecked) has for all frames of a call.
///
/// # Examples
///
/// ```
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::{Caller, Engine, Func};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store, suspend_in_host_function};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let sleep = Func::wrap(&mut store, |caller: Caller<'_, ()>, ms: u32| -> wasmtime::Result<()> {
///     // SAFETY: this closure keeps nothing in the thread.
///     unsafe { suspend_in_host_function(&caller, Delay::new(Duration::from_millis(ms.into()))) }?;
///     Ok(())
/// });
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let sleep = sleep.get_async(&store).get1::<u32, ()>()?;
/// futures::executor::block_on(sleep.call(&mut stack, &mut store, (10,)))?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
#[expect(unsafe_code, reason = "has a contract that safe code relies on")]
pub unsafe fn suspend_in_host_function<F: Future>(store: &impl AsContext, future: F) -> Result<F::Output, Error> {
    let site = Site::host_function(store_id(store), false);
    let future = pin!(Some(future));
    Frame::with_current(|frame| frame.block_on::<true, _>(future, site))
}
