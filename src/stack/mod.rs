//! The stacks that calls run on: what a backend must do, and which backends a target has.

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

/// The stacks that this target has with the enabled features.
pub(crate) mod available {
    #[cfg(feature = "thread-backend")]
    pub use super::thread::{ThreadCache, ThreadStack};

    cfg_select! {
        fiber_stack => {
            pub use super::fiber::{FiberStack, Parking, SendFiberStack, UseSendFiberStackOrLocalSet};

            /// The best stack that this target has with the enabled features.
            pub type DefaultStack = FiberStack;
        }
        feature = "thread-backend" => {
            /// The best stack that this target has with the enabled features.
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

/// The stack size that fits wasmtime's default configuration, in bytes: 2 MiB, the same as wasmtime's own
/// `Config::async_stack_size`.
///
/// Guests may use 512 KiB of it (`Config::max_wasm_stack`, counted from where the guest was entered). The rest is for
/// host functions. The size is address space: the system provides memory page by page, as it is used.
pub const DEFAULT_STACK_SIZE: usize = 2 << 20;

/// The smallest size of a stack, in bytes.
const MIN_SIZE: usize = 64 << 10;
/// The space that a stack must have in addition to what guests may use, in bytes. The entry needs it, and so does what
/// a guest calls when it is near its limit.
const HOST_ROOM: usize = 32 << 10;
/// The largest size of a stack, in bytes. It is more than any system can provide, and small enough that sums do not
/// overflow.
const MAX_SIZE: usize = usize::MAX >> 2;

/// Checks a size that a user asked for.
pub(crate) fn check_size(size: usize) -> Result<usize, Error> {
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        Ok(size)
    } else {
        Err(Error::StackSize { size, min: MIN_SIZE, max: MAX_SIZE })
    }
}

/// Checks that wasmtime's limit stops guests before they reach the end of a stack of this size.
///
/// Guests in Pulley's bytecode have a stack of their own. That is asked last, because it takes wasmtime longer to answer.
#[inline]
pub(crate) fn check_room(size: usize, engine: &Engine) -> Result<(), Error> {
    let min = engine.get_max_wasm_stack().saturating_add(HOST_ROOM);
    if size >= min || engine.is_pulley() { Ok(()) } else { Err(Error::StackTooSmall { size, min }) }
}

/// Returns an address on the stack that this code runs on.
#[inline(never)]
pub(crate) fn here() -> usize {
    let local = 0_u8;
    black_box(&raw const local).addr()
}

/// A stack that calls run on: one at a time, call after call.
///
/// Every way to call borrows the stack mutably for as long as the call lasts, so two calls cannot share it:
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
/// An idle stack can be sent to another thread. The trait is sealed. It is implemented by
/// [`FiberStack`](crate::FiberStack), [`SendFiberStack`](crate::SendFiberStack) and, with the feature `thread-backend`,
/// `ThreadStack`. [Which stack?](crate::guide::which_stack) helps to choose.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stack",
    note = "a stack that was taken from a `Pool` is passed as `&mut *stack`"
)]
pub trait Stack: Backend {
    /// Makes a stack of `size` bytes.
    ///
    /// [`DEFAULT_STACK_SIZE`] fits wasmtime's default configuration. If you change `Config::max_wasm_stack`, the stack
    /// must be larger than that by what host functions need, and by at least 32 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::StackSize`] if no stack of this size can work, [`Error::StackMemory`] or [`Error::ThreadSpawn`] if the
    /// operating system cannot provide one.
    ///
    /// # Destructors of thread-local variables
    ///
    /// On Windows, no thread starts while such a destructor runs, and whatever waits for one waits forever:
    /// [`LocalKey`](std::thread::LocalKey) says more. The first fiber stack of a process waits for threads, and so does a
    /// call on a new `ThreadStack`. So make them before.
    fn new(size: usize) -> Result<Self, Error>;

    /// The size that was asked for, in bytes. The stack may be larger, by less than a page, on Windows by less than 128 KiB.
    fn size(&self) -> usize;

    /// Sets a hook that surrounds the code of calls on this stack. It replaces the previous hook.
    ///
    /// - `capture` runs on the polling thread, whenever a call is polled, or dropped while suspended.
    /// - What it returns is called on the thread that the stack runs on, before code of the call runs. A `ThreadStack`
    ///   has a thread of its own; all other stacks run on the poller's thread.
    /// - What that returns is dropped on the same thread, before control returns to the poller.
    ///
    /// So a host function sees the state with which its call is polled, and the state that it sets itself is put away while
    /// the call is suspended. `tokio_runtime` (feature `tokio`) and `tracing_spans` (feature `tracing`) are hooks of this
    /// kind. None of the three steps can suspend a stack.
    ///
    /// # Panics
    ///
    /// Never panics itself. If one of the two closures panics, or the drop of what the second one returned, the panic ends
    /// there, and the call continues without the hook. After a panic on the thread of a `ThreadStack`, that thread is not
    /// used for other calls.
    ///
    /// # Examples
    ///
    /// The polling thread has a name for the current request in a thread-local variable. Host functions see that name,
    /// whatever thread they run on:
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

    /// Runs `f` on this stack. It may call wasm, instantiate modules, and wait for futures in the middle of any of it:
    /// with [`suspend_until`](crate::suspend_until), or in the async host functions that wasm calls.
    ///
    /// Nothing runs before the first poll. Like a thread's closure, `f` is `'static`, because it may stay suspended
    /// forever.
    ///
    /// Guests that `f` calls may wait on a `ThreadStack`, and on a
    /// [`FiberStack::unchecked`](crate::FiberStack::unchecked). Other stacks do not suspend `f`, and code that wants to
    /// wait gets [`Error::ForeignFrames`]. On those, call guests with [`AsyncFunc::call`](crate::AsyncFunc::call),
    /// [`FuncExt::call_on`](crate::FuncExt::call_on) and
    /// [`LinkerExt::instantiate_on`](crate::LinkerExt::instantiate_on).
    ///
    /// # Errors
    ///
    /// - whatever `f` returns;
    /// - [`Error::StackTooSmall`] if guests of the store's engine may use more space than the stack has;
    /// - [`Error::StackMemory`], [`Error::ThreadSpawn`] or [`Error::Fibers`] if the stack must be made again, or for
    ///   another thread, and cannot be.
    ///
    /// # Panics
    ///
    /// If the store is lost: see [`Store`](crate::Store). `poll` propagates a panic of `f` with its payload. Stack and
    /// store stay usable afterwards.
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

    /// Does the same as [`run`](Self::run) in code that is generic over the stack: every stack carries what is `Send`.
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

/// A stack whose calls are `Send` if the store's data is: [`SendFiberStack`](crate::SendFiberStack) and `ThreadStack`.
/// This is a bound for code that is generic over the stack.
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

/// What the calls on a stack may hold. On a `FiberStack`, that is anything, because its calls never leave their thread.
/// On a `SendFiberStack` and on a `ThreadStack`, it must be `Send`.
///
/// Code that is generic over the stack needs this bound for the store's data:
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

/// The reverse of [`Carries`], for closures, whose types have no name.
#[diagnostic::on_unimplemented(
    message = "a call on `{S}` cannot hold `{Self}`",
    label = "this holds something that the call cannot take from thread to thread",
    note = "the calls of a `ThreadStack` and of a `SendFiberStack` go from thread to thread: use a `FiberStack`, or make the data \
            `Send`",
    note = "code that is generic over the stack uses `run_send`, with a closure and a result that are `Send`"
)]
pub trait CarriedBy<S> {
    /// Keeps other crates from implementing this for types of their own.
    #[doc(hidden)]
    const SEAL: Seal;
}

#[diagnostic::do_not_recommend]
impl<S: Carries<T>, T: ?Sized> CarriedBy<S> for T {
    const SEAL: Seal = Seal;
}

/// A type that only this crate can make.
#[derive(Debug)]
pub struct Seal;

/// Keeps other crates from declaring that a stack carries a type.
pub trait CarriesSealed<T: ?Sized> {}

/// What each kind of stack must do for a [`Call`].
///
/// # Safety
///
/// - [`enter`](Self::enter) runs [`Frame::serve`] of the runner's frame, on a separate stack with a guard page below.
///   It returns when that code leaves the stack. Entering again resumes that code where it left. Everything that
///   happened before a switch is visible after it.
/// - A runner's frame stays at its address until the runner is dropped.
/// - While its stack runs, the frame is the current one of the running thread.
/// - A runner is not `Send`, unless everything that runs on it stays on a thread of its own, or nothing is ever
///   suspended on it that must stay on one thread.
/// - A runner that is forgotten keeps its memory forever.
#[expect(unsafe_code, reason = "safe code relies on what a backend promises")]
pub unsafe trait Backend: Sized {
    /// The memory and the machinery of a stack. The stack owns it while it is idle, and a call owns it while the call
    /// runs. So after a call is forgotten, nothing uses its runner again.
    type Runner;

    /// Takes the idle runner out of the stack for a call in this engine. Makes a new one if the last one was forgotten
    /// with its call.
    #[doc(hidden)]
    fn take(&mut self, engine: &Engine) -> Result<Self::Runner, Error>;

    /// Returns an idle runner to the stack.
    ///
    /// # Safety
    ///
    /// It was taken out of this same stack.
    #[doc(hidden)]
    unsafe fn put_back(&mut self, runner: Self::Runner);

    /// The frame through which the poller and the code on the stack communicate.
    #[doc(hidden)]
    fn frame(runner: &Self::Runner) -> &Frame;

    /// Runs code on the stack until that code leaves the stack.
    ///
    /// # Safety
    ///
    /// Until this returns, the frame's slot is valid for what this starts or resumes, and so is its waker. A runner
    /// that is left unfinished is entered again or forgotten. It is not dropped or put back.
    #[doc(hidden)]
    unsafe fn enter(runner: &mut Self::Runner);
}

// SAFETY: forwards to the stack, which keeps the promises.
#[diagnostic::do_not_recommend]
#[expect(unsafe_code, reason = "forwards to the stack, which keeps the promises")]
unsafe impl<S: Backend> Backend for &mut S {
    type Runner = S::Runner;

    #[inline]
    fn take(&mut self, engine: &Engine) -> Result<S::Runner, Error> {
        (**self).take(engine)
    }

    #[inline]
    unsafe fn put_back(&mut self, runner: S::Runner) {
        // SAFETY: up to the caller.
        unsafe { (**self).put_back(runner) }
    }

    #[inline]
    fn frame(runner: &S::Runner) -> &Frame {
        S::frame(runner)
    }

    #[inline(always)]
    unsafe fn enter(runner: &mut S::Runner) {
        // SAFETY: up to the caller.
        unsafe { S::enter(runner) }
    }
}
