//! The stack that belongs to a thread: a parked worker, to which the poller hands control.

mod ambient;
pub(crate) mod cache;
#[cfg(not(all(test, feature = "loom")))]
mod carved;
mod handoff;
mod kept;
pub(crate) mod runner;

use super::ambient::Hook;
use super::{Backend, CarriesSealed, Stack, check_room, check_size};
use crate::Error;
use crate::frame::Frame;
use crate::sync::Arc;
use cache::Cache;
#[cfg(not(all(test, feature = "loom")))]
pub(crate) use carved::carved;
pub use kept::ThreadCache;
pub(crate) use runner::leave;
use runner::{Runner, Service};
use std::fmt;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;
use wasmtime::Engine;

/// The cache of threads that are not kept. They end.
static NOWHERE: LazyLock<Arc<Cache<Service>>> =
    LazyLock::new(|| Arc::new(Cache::new(0, Duration::ZERO, Service::work)));

/// A stack that is an operating system thread's, on every target with std.
///
/// Everything in a call runs on the stack's own thread, one call after the other. The poller hands control to that
/// thread and waits until the call suspends or ends, so exactly one of the two runs at any moment.
///
/// Calls on it are `Send`: it accepts only store data, closures and results that are `Send`. A call may be polled by
/// one thread now and by another one later. The futures that host functions wait for stay on the stack's thread, and
/// need not be `Send`.
///
/// # Thread-local state
///
/// Host functions and their futures see the thread-local variables of the stack's thread, not those of the poller's
/// thread. [`set_ambient`](Stack::set_ambient) carries over what they should see of the poller's. For example,
/// [`tokio_runtime`](crate::tokio_runtime) (feature `tokio`) carries over the current runtime.
///
/// **The poller's thread stands still while the stack runs.** So a host function must not block until the poller's
/// thread does something, because that never happens. `tokio::runtime::Handle::block_on` does this on a runtime with
/// one thread. Wait in an async host function or with [`suspend_until`](crate::suspend_until) instead, which suspend
/// the stack. The same applies on every stack to a guest that executes `memory.atomic.wait` until another guest of the
/// same thread notifies it.
///
/// Some executors, such as tokio, count what a task does, and let others run after a while. They do not see the futures
/// of a stack's thread. So a call yields by itself before it waits for the 129th future in a row without a suspension,
/// even if all of them were ready.
///
/// Locks also see another thread. If the poller's thread holds a lock while it polls, such as that of
/// `std::io::Stdout`, a host function cannot take it, and both wait forever.
///
/// # Threads and memory
///
/// [`Stack::new`] starts the thread, which sleeps whenever it has nothing to do. It ends when the stack is dropped,
/// unless a [`ThreadCache`] keeps it. On Unix, the process can exit at any time, whatever its stacks are doing.
///
/// The size is what the code of a call can use. The static thread-local variables that glibc puts on each thread's
/// stack are added to it. wasmtime's own limit (`Config::max_wasm_stack`) stops a guest that recurses without end. A
/// host function that does so hits the thread's guard page, which ends the process.
///
/// # What its thread inherits
///
/// A thread inherits some things from the thread that starts it. On Linux, the operating system passes on the CPU
/// affinity, the scheduling policy and nice value, the signal mask, namespaces and capabilities. std passes on the
/// capturing of a test's output. So a stack's thread inherits from the thread that called [`Stack::new`], and keeps
/// this for all calls. If a call was forgotten, the next poll starts a new thread, which inherits from the polling
/// thread.
///
/// # Speed
///
/// A handoff there and back takes well below a microsecond if both sides are quick and each has a processor, because
/// both look for the other's answer for a few microseconds before they go to sleep. It takes several microseconds if
/// one of them must be woken. A `FiberStack` is faster where it exists.
///
/// # Examples
///
/// A call that runs on another thread's executor:
///
/// ```
/// use futures::executor::block_on;
/// use wasmtime::Engine;
/// use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack, suspend_until};
///
/// let mut store = Store::new(&Engine::default(), 20);
/// let task = async move {
///     let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
///     stack.run(&mut store, |store| Ok(store.data() * 2 + suspend_until(async { 2 })?)).await
/// };
/// let answer = std::thread::spawn(|| block_on(task)).join().unwrap()?;
/// assert_eq!(answer, 42);
/// # Ok::<(), wasmtime::Error>(())
/// ```
///
/// Data that is not `Send` cannot be used with it:
///
/// ```compile_fail,E0277
/// # use std::rc::Rc;
/// # use wasmtime::Engine;
/// # use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack};
/// let mut store = Store::new(&Engine::default(), Rc::new(20));
/// let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
/// futures::executor::block_on(stack.run(&mut store, |_| Ok(())))?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
pub struct ThreadStack {
    size: usize,
    /// `None` while a call runs, and after one was forgotten.
    idle: Option<Runner>,
    hook: Option<Hook>,
    /// Where the stack's threads come from and go to.
    cache: Arc<Cache<Service>>,
}

// SAFETY: a shared reference only gives access to the size.
#[expect(unsafe_code)]
unsafe impl Sync for ThreadStack {}

impl<T: Send + ?Sized> CarriesSealed<T> for ThreadStack {}

impl ThreadStack {
    /// Makes a stack with threads from this cache.
    pub(crate) fn with_cache(size: usize, cache: Arc<Cache<Service>>) -> Result<Self, Error> {
        let mut stack = Self { size, idle: None, hook: None, cache };
        stack.idle = Some(stack.runner()?);
        Ok(stack)
    }

    fn runner(&self) -> Result<Runner, Error> {
        let thread = |source: io::Error| Error::ThreadSpawn { size: self.size, source };
        Runner::new(&self.cache, self.size, self.hook.clone()).map_err(thread)
    }
}

impl Stack for ThreadStack {
    fn new(size: usize) -> Result<Self, Error> {
        Self::with_cache(check_size(size)?, Arc::clone(&NOWHERE))
    }

    fn size(&self) -> usize {
        self.size
    }

    fn set_ambient<E, G>(&mut self, capture: impl Fn() -> E + Send + Sync + 'static)
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static,
    {
        let hook = Hook::new(capture);
        if let Some(idle) = &mut self.idle {
            idle.set_hook(hook.clone());
        }
        self.hook = Some(hook);
    }
}

// SAFETY: `Runner::enter` hands control to `Service::work`, which serves the frame on the worker's stack. The system
// has put a guard page below that stack. Control comes back when `leave` passes the baton, which is a happens-before
// edge. The frame lives in an `Arc` that the runner holds. It is current on the worker's thread, which runs nothing
// else. Everything that runs on the runner stays on the worker's thread. A runner that is forgotten never passes the
// baton again, so its thread waits forever.
#[expect(unsafe_code)]
unsafe impl Backend for ThreadStack {
    type Runner = Runner;

    fn take(&mut self, engine: &Engine) -> Result<Runner, Error> {
        check_room(self.size, engine)?;
        match self.idle.take() {
            Some(runner) => Ok(runner),
            None => self.runner(),
        }
    }

    unsafe fn put_back(&mut self, runner: Runner) {
        if !runner.is_spoilt() {
            self.idle = Some(runner);
        }
    }

    fn frame(runner: &Runner) -> &Frame {
        runner.frame()
    }

    #[inline]
    unsafe fn enter(runner: &mut Runner) {
        // SAFETY: up to the caller.
        unsafe { runner.enter() }
    }
}

impl fmt::Debug for ThreadStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadStack").field("size", &self.size).finish_non_exhaustive()
    }
}
