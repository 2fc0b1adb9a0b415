//! The stacks that calls run on: what a backend must do, and which one a target has.

use crate::call::Call;
use crate::frame::Frame;
use crate::{AsStoreMut, Error, Result};
use std::hint::black_box;
use wasmtime::{Engine, StoreContextMut};

pub(crate) mod ambient;
#[cfg(fiber_stack)]
#[cfg_attr(docsrs, doc(cfg(feature = "fiber")))]
pub(crate) mod fiber;
#[cfg(feature = "thread-backend")]
pub(crate) mod thread;
pub(crate) mod within;

/// The stacks that this target has with the features in use.
pub(crate) mod available {
    #[cfg(feature = "thread-backend")]
    pub use super::thread::{ThreadCache, ThreadStack};

    cfg_select! {
        fiber_stack => {
            pub use super::fiber::{FiberStack, Parking, SendFiberStack, UseSendFiberStackOrLocalSet};

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

/// An address on the stack that this code runs on.
#[inline(never)]
pub(crate) fn here() -> usize {
    let local = 0_u8;
    black_box(&raw const local).addr()
}

/// A stack that calls run on, one at a time, call after call.
///
/// Every way to call takes the stack by `&mut`, for as long as the call lasts, so no two calls can share one:
///
/// ```compile_fail,E0499
/// # use wasmtime_async::{DefaultStack, Stack, Store};
/// # use wasmtime::Engine;
/// # let engine = Engine::default();
/// # let (mut store_a, mut store_b) = (Store::new(&engine, ()), Store::new(&engine, ()));
/// let mut stack = DefaultStack::new(wasmtime_async::DEFAULT_STACK_SIZE)?;
/// let a = stack.run(&mut store_a, |_| Ok(1));
/// let b = stack.run(&mut store_b, |_| Ok(2)); // the stack is still borrowed by `a`
/// futures::executor::block_on(async { futures::join!(a, b) });
/// # Ok::<(), wasmtime_async::Error>(())
/// ```
///
/// An idle stack can be sent to another thread. The trait is sealed: its kinds are [`FiberStack`](crate::FiberStack),
/// [`SendFiberStack`](crate::SendFiberStack) and, with the feature `thread-backend`, `ThreadStack`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stack",
    note = "a stack that was taken from a `Pool` is passed as `&mut *stack`"
)]
pub trait Stack: Backend {
    /// Makes a stack of `size` bytes. [`DEFAULT_STACK_SIZE`] fits wasmtime's default configuration; where
    /// `Config::max_wasm_stack` was changed, it must be larger than that by what host functions need, at least 32 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::StackSize`] if no stack of this size can work, [`Error::StackMemory`] or [`Error::ThreadSpawn`] if the
    /// operating system has none to give.
    fn new(size: usize) -> Result<Self, Error>;

    /// The size that was asked for, in bytes. The stack may be larger, by less than a page, on Windows by less than 128 KiB.
    fn size(&self) -> usize;

    /// Sets what surrounds the code of calls on this stack, in place of what was set before.
    ///
    /// `capture` is called whenever a call is polled, or dropped while suspended, on the thread that does so. What it
    /// returns is called on the thread that the stack runs on, before code of the call runs. What that returns is dropped
    /// there before control goes back to the poller. A `ThreadStack` has a thread of its own; all other stacks run on the
    /// poller's.
    ///
    /// So a host function sees what its call was polled with, and what it sets itself is put away while the call is suspended.
    /// `tokio_runtime` (feature `tokio`) and `tracing_spans` (feature `tracing`) are made for this.
    ///
    /// None of the three can suspend a stack.
    ///
    /// # Panics
    ///
    /// Never panics itself. If one of the two closures panics, or the drop of what the second one returned, the panic ends
    /// there and the call goes on without. After a panic on the thread of a `ThreadStack`, that thread is not used for other
    /// calls.
    ///
    /// # Examples
    ///
    /// The poller's thread has a name for the current request in a thread-local variable, and host functions want it, on
    /// whichever thread they run:
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use wasmtime::Engine;
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Stack, Store};
    ///
    /// thread_local!(static REQUEST: RefCell<String> = RefCell::default());
    ///
    /// struct Reset(String);
    /// impl Drop for Reset {
    ///     fn drop(&mut self) {
    ///         REQUEST.replace(std::mem::take(&mut self.0));
    ///     }
    /// }
    ///
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    /// stack.set_ambient(|| {
    ///     let request = REQUEST.with_borrow(String::clone);
    ///     move || Reset(REQUEST.replace(request))
    /// });
    ///
    /// REQUEST.set("GET /".to_owned());
    /// let mut store = Store::new(&Engine::default(), ());
    /// let call = stack.run(&mut store, |_| Ok(REQUEST.with_borrow(String::clone)));
    /// assert_eq!(futures::executor::block_on(call)?, "GET /");
    /// # Ok::<(), wasmtime::Error>(())
    /// ```
    fn set_ambient<E, G>(&mut self, capture: impl Fn() -> E + Send + Sync + 'static)
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static;

    /// Runs `f` on this stack. It may call wasm, instantiate modules, and wait for futures in the middle of any of it,
    /// by [`suspend_until`](crate::suspend_until) or in the async host functions that wasm calls.
    ///
    /// Nothing runs before the first poll. Like a thread's, the closure is `'static`: it may be left suspended for ever.
    ///
    /// Guests that `f` calls may wait on a `ThreadStack`, and on a [`FiberStack::unchecked`](crate::FiberStack::unchecked).
    /// Other stacks do not suspend `f`, and what waits gets [`Error::ForeignFrames`]: there, call guests by
    /// [`AsyncFunc::call`](crate::AsyncFunc::call), [`FuncExt::call_on`](crate::FuncExt::call_on) and
    /// [`LinkerExt::instantiate_on`](crate::LinkerExt::instantiate_on).
    ///
    /// # Errors
    ///
    /// Whatever `f` returns; [`Error::StackTooSmall`] if guests of the store's engine may use more than it has;
    /// [`Error::StackMemory`], [`Error::ThreadSpawn`] or [`Error::Fibers`] if the stack must be made anew, or for another
    /// thread, and cannot.
    ///
    /// # Panics
    ///
    /// If the store is lost: see [`Store`](crate::Store). A panic of `f` goes on in `poll`, with its payload. Stack and store can be used afterwards.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    ///
    /// # Examples
    ///
    /// ```
    /// use wasmtime::{Engine, Func};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Stack, Store};
    ///
    /// let mut store = Store::new(&Engine::default(), 20);
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    /// let call = stack.run(&mut store, |mut store| {
    ///     let double = Func::wrap(&mut store, |n: i32| n * 2).typed::<i32, i32>(&store)?;
    ///     let n = *store.data() + 1;
    ///     double.call(store, n)
    /// });
    /// assert_eq!(futures::executor::block_on(call)?, 42);
    /// # Ok::<(), wasmtime::Error>(())
    /// ```
    fn run<'a, C, F, R>(&'a mut self, store: &'a mut C, f: F) -> Call<'a, Self, C::Data, F>
    where
        C: AsStoreMut,
        F: FnOnce(StoreContextMut<'_, C::Data>) -> Result<R> + CarriedBy<Self> + 'static,
        R: CarriedBy<Self> + 'static,
        Self: Carries<C::Data>,
    {
        Call::new(self, store.as_store_mut(), f)
    }

    /// [`run`](Self::run) for code that is generic over the stack: every stack carries what is `Send`.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    ///
    /// # Examples
    ///
    /// ```
    /// use wasmtime::{Result, component};
    /// use wasmtime_async::{Carries, Stack, Store};
    ///
    /// async fn instantiate<S: Stack + Carries<T>, T: Send + 'static>(
    ///     stack: &mut S,
    ///     store: &mut Store<T>,
    ///     pre: component::InstancePre<T>,
    /// ) -> Result<component::Instance> {
    ///     stack.run_send(store, move |store| pre.instantiate(store)).await
    /// }
    /// ```
    fn run_send<'a, C, F, R>(&'a mut self, store: &'a mut C, f: F) -> Call<'a, Self, C::Data, F>
    where
        C: AsStoreMut,
        F: FnOnce(StoreContextMut<'_, C::Data>) -> Result<R> + Send + 'static,
        R: Send + 'static,
        Self: Carries<C::Data>,
    {
        Call::new(self, store.as_store_mut(), f)
    }
}

/// A stack whose calls are `Send` if the store's data is: [`SendFiberStack`](crate::SendFiberStack) and `ThreadStack`. For
/// code that is generic over the stack.
///
/// ```
/// use wasmtime::{Func, Result};
/// use wasmtime_async::{Carries, FuncExt, SendStack, Store};
///
/// fn call<S, T>(mut stack: S, mut store: Store<T>, func: Func) -> impl Future<Output = Result<()>> + Send
/// where
///     S: SendStack + Carries<T>,
///     T: Send + 'static,
/// {
///     async move { func.call_on(&mut stack, &mut store, &[], &mut []).await }
/// }
/// ```
pub trait SendStack: Stack + Backend<Runner: Send> + Send {}

impl<S: Stack + Backend<Runner: Send> + Send> SendStack for S {}

/// What the calls on a stack may hold: anything on a `FiberStack`, whose calls never leave their thread; what is `Send` on a
/// `SendFiberStack` and on a `ThreadStack`.
///
/// Code that is generic over the stack needs it for the store's data:
///
/// ```
/// # use wasmtime::Func;
/// use wasmtime_async::{Carries, FuncExt, Stack, Store};
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
    label = "this holds something that the call cannot take from thread to thread",
    note = "the calls of a `ThreadStack` and of a `SendFiberStack` go from thread to thread: use a `FiberStack`, or make the data \
            `Send`"
)]
pub trait Carries<T: ?Sized>: CarriesSealed<T> {}

#[diagnostic::do_not_recommend]
impl<S: CarriesSealed<T>, T: ?Sized> Carries<T> for S {}

/// The same seen from the other side, for closures, which have no name.
#[diagnostic::on_unimplemented(
    message = "a call on `{S}` cannot hold `{Self}`",
    label = "this holds something that the call cannot take from thread to thread",
    note = "the calls of a `ThreadStack` and of a `SendFiberStack` go from thread to thread: use a `FiberStack`, or make the data \
            `Send`",
    note = "code that is generic over the stack uses `run_send`, with a closure and a result that are `Send`"
)]
pub trait CarriedBy<S> {
    /// Keeps others from saying so of types of their own.
    #[doc(hidden)]
    const SEAL: Seal;
}

#[diagnostic::do_not_recommend]
impl<S: Carries<T>, T: ?Sized> CarriedBy<S> for T {
    const SEAL: Seal = Seal;
}

/// Known to this crate alone.
#[derive(Debug)]
pub struct Seal;

/// Keeps others from saying that a stack carries what it does not.
pub trait CarriesSealed<T: ?Sized> {}

/// What each kind of stack must do for [`Call`].
///
/// # Safety
///
/// - [`enter`](Self::enter) runs [`Frame::serve`] of the runner's frame, on a stack of its own with a guard page below,
///   and returns when that leaves the stack; entering again goes on where it was left. What happened before one is
///   visible after it.
/// - A runner's frame stays at its address until the runner is dropped.
/// - While its stack runs, the frame is the current one of the running thread.
/// - A runner is not `Send` unless everything that runs on it stays on a thread of its own, or nothing is suspended there that
///   must.
/// - A runner that is forgotten keeps its memory for ever.
#[expect(unsafe_code, reason = "safe code relies on what a backend promises")]
pub unsafe trait Backend: Sized {
    /// The memory and the machinery of a stack. The stack holds it while idle, a call while it runs, so that a
    /// forgotten call keeps it from being used again.
    type Runner;

    /// Takes the idle runner out of the stack for a call of this engine's, or makes one if the last was forgotten with its
    /// call.
    #[doc(hidden)]
    fn take(&mut self, engine: &Engine) -> Result<Self::Runner, Error>;

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

// SAFETY: does what the stack itself does.
#[diagnostic::do_not_recommend]
#[expect(unsafe_code, reason = "passes on what the stack promises")]
unsafe impl<S: Backend> Backend for &mut S {
    type Runner = S::Runner;

    #[inline]
    fn take(&mut self, engine: &Engine) -> Result<S::Runner, Error> {
        (**self).take(engine)
    }

    #[inline]
    unsafe fn put_back(&mut self, runner: S::Runner) {
        // SAFETY: passed on to the caller.
        unsafe { (**self).put_back(runner) }
    }

    #[inline]
    fn frame(runner: &S::Runner) -> &Frame {
        S::frame(runner)
    }

    #[inline(always)]
    unsafe fn enter(runner: &mut S::Runner) {
        // SAFETY: passed on to the caller.
        unsafe { S::enter(runner) }
    }
}
