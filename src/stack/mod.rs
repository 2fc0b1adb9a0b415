//! The stacks that calls run on: what a backend must do, and which one a target has.

use crate::call::Call;
use crate::frame::Frame;
use crate::{Error, Result};
use wasmtime::{AsContextMut, Engine, StoreContextMut};

#[cfg(fiber_stack)]
#[cfg_attr(docsrs, doc(cfg(feature = "fiber")))]
pub(crate) mod fiber;
#[cfg(feature = "thread-backend")]
pub(crate) mod thread;

/// The stacks that this target has with the features in use.
pub(crate) mod available {
    #[cfg(feature = "thread-backend")]
    pub use super::thread::ThreadStack;

    cfg_select! {
        fiber_stack => {
            pub use super::fiber::{FiberStack, Parking};

            /// The best stack that this target has with the features in use.
            pub type DefaultStack = FiberStack;
        }
        feature = "thread-backend" => {
            /// The best stack that this target has with the features in use.
            pub type DefaultStack = ThreadStack;
        }
        _ => {
            compile_error!(
                "no stack for guests to run on: turn on the feature `thread-backend` of wasmtime-async, since this \
                 target has no stack switching or the feature `fiber` is off"
            );
        }
    }
}

/// The size that fits wasmtime's default configuration, in bytes: 2 MiB, as wasmtime's own `Config::async_stack_size`.
///
/// Guests may use 512 KiB of it (`Config::max_wasm_stack`, counted from where the guest was entered), the rest is for
/// host functions. It is address space: memory is taken as it is used, page by page.
pub const DEFAULT_STACK_SIZE: usize = 2 << 20;

/// The least size of a stack, in bytes.
const MIN_SIZE: usize = 64 << 10;
/// What a stack must have besides what guests may use, in bytes: for the entry, and for what a guest near its limit calls.
const HOST_ROOM: usize = 32 << 10;
/// The greatest size of a stack, in bytes: above what any system has to give, below where sums overflow.
const MAX_SIZE: usize = usize::MAX >> 2;

/// Checks a size that a user asked for.
pub(crate) fn check_size(size: usize) -> Result<usize, Error> {
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        Ok(size)
    } else {
        Err(Error::StackSize { size, min: MIN_SIZE, max: MAX_SIZE })
    }
}

/// Checks that guests are stopped by wasmtime's limit before they come to the end of a stack.
#[inline]
pub(crate) fn check_room(size: usize, engine: &Engine) -> Result<(), Error> {
    let min = engine.get_max_wasm_stack().saturating_add(HOST_ROOM);
    // Guests in Pulley's bytecode have a stack of their own.
    if size >= min || engine.is_pulley() { Ok(()) } else { Err(Error::StackTooSmall { size, min }) }
}

/// A stack that calls run on, one at a time, call after call.
///
/// Every way to call takes the stack by `&mut`, for as long as the call lasts, so no two calls can share one:
///
/// ```compile_fail,E0499
/// # use wasmtime_async::{DefaultStack, Stack};
/// # use wasmtime::{Engine, Store};
/// # let engine = Engine::default();
/// # let (mut store_a, mut store_b) = (Store::new(&engine, ()), Store::new(&engine, ()));
/// let mut stack = DefaultStack::new(wasmtime_async::DEFAULT_STACK_SIZE)?;
/// let a = stack.run(&mut store_a, |_| Ok(1));
/// let b = stack.run(&mut store_b, |_| Ok(2)); // the stack is still borrowed by `a`
/// futures::executor::block_on(async { futures::join!(a, b) });
/// # Ok::<(), wasmtime_async::Error>(())
/// ```
///
/// An idle stack can be sent to another thread. The trait is sealed: its two backends are
/// [`FiberStack`](crate::FiberStack) and, with the feature `thread-backend`, `ThreadStack`.
pub trait Stack: Backend {
    /// Makes a stack of `size` bytes. [`DEFAULT_STACK_SIZE`] fits wasmtime's default configuration; where
    /// `Config::max_wasm_stack` was changed, it must be larger than that by what host functions need, at least 32 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::StackSize`] if no stack of this size can work, [`Error::StackMemory`] or [`Error::ThreadSpawn`] if the
    /// operating system has none to give.
    fn new(size: usize) -> Result<Self, Error>;

    /// The size that was asked for, in bytes. The stack may be larger, by less than a page.
    fn size(&self) -> usize;

    /// Runs `f` on this stack. It may call wasm, instantiate modules, and wait for futures in the middle of any of it,
    /// by [`suspend_until`](crate::suspend_until) or in the async host functions that wasm calls.
    ///
    /// Every other way to call is this one with a given `f`. Nothing runs before the first poll.
    ///
    /// A store that is already inside a call on the stack that this code runs on stays there: `f` then runs right
    /// here, within the first poll, and this stack is left alone. (wasmtime keeps one stack limit a store. So do not
    /// enter a store that is inside a call on another stack by wasmtime's own functions, which do not look: its guests
    /// would trap early, or overflow the stack.)
    ///
    /// Pass the `Store` or the `Caller` itself: whether the store is in use is then known by the type. For any other kind
    /// of context it takes a backtrace to find out, some microseconds at each call, and not all cases are seen (see the
    /// module `reviewing`).
    ///
    /// # Errors
    ///
    /// Whatever `f` returns; [`Error::StackTooSmall`] if guests of the store's engine may use more than it has;
    /// [`Error::StackMemory`], [`Error::ThreadSpawn`] or [`Error::Fibers`] if the stack must be made anew, or for another
    /// thread, and cannot; [`Error::Reentry`] if the store is inside a call that was entered on another stack.
    ///
    /// # Panics
    ///
    /// A panic of `f` goes on in `poll`, with its payload. Stack and store can be used afterwards.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    ///
    /// # Examples
    ///
    /// ```
    /// use wasmtime::{Engine, Store};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Stack, suspend_until};
    ///
    /// let mut store = Store::new(&Engine::default(), 20);
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    /// let call = stack.run(&mut store, |store| {
    ///     let one = suspend_until(async { 1 })?; // any future, in the middle of synchronous code
    ///     Ok(store.data() * 2 + one)
    /// });
    /// assert_eq!(futures::executor::block_on(call)?, 41);
    /// # Ok::<(), wasmtime::Error>(())
    /// ```
    fn run<'a, C, F, R>(&'a mut self, store: &'a mut C, f: F) -> Call<'a, Self, C::Data, F>
    where
        C: AsContextMut,
        F: FnOnce(StoreContextMut<'_, C::Data>) -> Result<R>,
        Self: Carries<C::Data> + Carries<F> + Carries<R>,
    {
        Call::new(self, store, f)
    }
}

/// What the calls on a stack may hold: anything on a fiber, which never leaves its thread; what is `Send` on a thread
/// stack, since a thread of its own runs the call.
///
/// Code that is generic over the stack needs it for the store's data:
///
/// ```
/// # use wasmtime::{Func, Store};
/// use wasmtime_async::{Carries, FuncExt, Stack};
///
/// async fn twice<S, T: 'static>(stack: &mut S, store: &mut Store<T>, func: Func) -> wasmtime::Result<()>
/// where
///     S: Stack + Carries<T>,
/// {
///     func.call_on(stack, store, &[], &mut []).await?;
///     func.call_on(stack, store, &[], &mut []).await
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a call on `{Self}` cannot hold `{T}`",
    note = "a `ThreadStack` runs its calls on another thread: use a `FiberStack`, or make the data `Send`"
)]
pub trait Carries<T: ?Sized>: CarriesSealed<T> {}

impl<S: CarriesSealed<T>, T: ?Sized> Carries<T> for S {}

/// Keeps others from saying that a stack carries what it does not.
pub trait CarriesSealed<T: ?Sized> {}

/// What the two kinds of stack must do for [`Call`].
///
/// # Safety
///
/// - [`enter`](Self::enter) runs [`Frame::serve`] of the runner's frame, on a stack of its own with a guard page below,
///   and returns when that leaves the stack; entering again goes on where it was left. What happened before one is
///   visible after it.
/// - A runner's frame stays at its address until the runner is dropped.
/// - While its stack runs, the frame is the current one of the running thread, its parent that of the poller.
/// - A runner is not `Send` unless everything that runs on it stays on a thread of its own.
/// - A runner that is forgotten keeps its memory for ever.
#[expect(unsafe_code, reason = "safe code relies on what a backend promises")]
pub unsafe trait Backend: Sized {
    /// The memory and the machinery of a stack. The stack holds it while idle, a call while it runs, so that a
    /// forgotten call keeps it from being used again.
    type Runner;

    /// Takes the idle runner out of the stack, or makes one if the last was forgotten with its call.
    #[doc(hidden)]
    fn take(&mut self) -> Result<Self::Runner, Error>;

    /// Gives an idle runner back.
    ///
    /// # Safety
    ///
    /// It was taken out of this very stack.
    #[doc(hidden)]
    unsafe fn put_back(&mut self, runner: Self::Runner);

    /// The frame through which the poller and the code on the stack talk.
    #[doc(hidden)]
    fn frame(runner: &Self::Runner) -> &Frame;

    /// Runs code on the stack until it leaves it.
    ///
    /// # Safety
    ///
    /// The frame's slot is valid for what it starts or goes on with until this returns, as is its waker. A runner that
    /// is left unfinished is entered again or forgotten, not dropped, and not given back.
    #[doc(hidden)]
    unsafe fn enter(runner: &mut Self::Runner);
}
