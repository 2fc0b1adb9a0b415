//! The stack whose calls are `Send`.

use super::runner::Runner;
use super::{Fiber, Rule};
use crate::Error;
use crate::frame::Frame;
use crate::stack::ambient::Hook;
use crate::stack::{Backend, CarriesSealed, Stack};
use std::fmt;
use wasmtime::Engine;

/// A stack like a [`FiberStack`](crate::FiberStack), but with calls that are `Send`. They can be spawned on a
/// multi-threaded runtime, resumed on one thread after another, and dropped on any thread.
///
/// For this, the store's data must be `Send`, and so must everything that host functions wait for. Register those host
/// functions with [`LinkerExt::func_wrap_suspending_send`](crate::LinkerExt::func_wrap_suspending_send) or a similar
/// method, which requires it. Other host functions work as long as their future is ready at its first poll. Otherwise
/// they end with [`Error::NotSend`]. (Rust cannot yet express a bound for the future of an async closure.)
///
/// Otherwise it suspends the same as a [`FiberStack`](crate::FiberStack), and takes as much memory.
///
/// # Engines
///
/// Do not use it with engines that have wasmtime's `memory-protection-keys`. The processor has a register for these
/// keys in each thread. A call that is resumed on a thread where that register is not set ends the process with a
/// fault.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use wasmtime::{Engine, Linker, Module};
/// use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, LinkerExt, SendFiberStack, Stack, Store};
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::new(&engine);
/// linker.func_wrap_suspending_send("host", "sleep", |ms: u32| async move {
///     tokio::time::sleep(Duration::from_millis(ms.into())).await;
/// })?;
/// let module = Module::new(
///     &engine,
///     r#"(module
///         (import "host" "sleep" (func $sleep (param i32)))
///         (func (export "run") (call $sleep (i32.const 10)) (call $sleep (i32.const 20))))"#,
/// )?;
///
/// let call = async move {
///     let mut store = Store::new(&engine, ());
///     let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE)?;
///     let instance = linker.instantiate_on(&mut stack, &mut store, &module).await?;
///     let run = AsyncFunc::from(instance.get_typed_func::<(), ()>(&mut store, "run")?);
///     run.call(&mut stack, &mut store, ()).await
/// };
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
/// runtime.block_on(async { tokio::spawn(call).await.expect("does not panic") })?;
/// # Ok(())
/// # }
/// ```
pub struct SendFiberStack(Fiber);

impl<T: Send + ?Sized> CarriesSealed<T> for SendFiberStack {}

impl Stack for SendFiberStack {
    /// Makes a stack, as [`Stack::new`] says.
    ///
    /// # Errors
    ///
    /// In addition, [`Error::NoThreadList`] if wasmtime's list of activations cannot be read on Linux or Windows.
    fn new(size: usize) -> Result<Self, Error> {
        Ok(Self(Fiber::checked(size, Rule::KnownSend)?))
    }

    fn size(&self) -> usize {
        self.0.size
    }

    fn set_ambient<E, G>(&mut self, capture: impl Fn() -> E + Send + Sync + 'static)
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static,
    {
        self.0.set_hook(Hook::new(capture));
    }
}

// SAFETY: see `Runner`, which keeps each of the promises. It is `Send` by itself: its rule only leaves known frames
// suspended, which hold the store's data, parameters and results of wasm, and futures that are `Send`.
#[expect(unsafe_code)]
unsafe impl Backend for SendFiberStack {
    type Runner = Runner;

    #[inline]
    fn take(&mut self, engine: &Engine) -> Result<Runner, Error> {
        self.0.take(engine)
    }

    #[inline]
    unsafe fn put_back(&mut self, runner: Runner) {
        self.0.idle = Some(runner);
    }

    #[inline]
    fn frame(runner: &Runner) -> &Frame {
        runner.frame()
    }

    #[inline(always)]
    unsafe fn enter(runner: &mut Runner) {
        // SAFETY: up to the caller. `take` has prepared the runner.
        unsafe { runner.enter() }
    }
}

impl fmt::Debug for SendFiberStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFiberStack").field("size", &self.0.size).finish_non_exhaustive()
    }
}
