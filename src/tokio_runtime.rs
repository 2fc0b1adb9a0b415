//! Carries the current tokio runtime from one thread to another.

use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::runtime::Handle;

/// Captures the current tokio runtime of the calling thread. Calling the result makes this runtime current on the
/// thread that calls it, until the returned value is dropped.
///
/// Use it with [`Stack::set_ambient`](crate::Stack::set_ambient) on a `ThreadStack`. Then the timers, sockets and
/// `tokio::spawn` of the poller's runtime work in host functions. Other stacks do not need it, because their host
/// functions run on the poller's thread.
///
/// Do not keep a guard of `tokio::runtime::Handle::enter` while the stack is suspended. tokio panics if guards are not
/// dropped in the reverse order of their creation.
///
/// Do not call `tokio::runtime::Handle::block_on` in host functions. On a runtime with one thread it hangs, because
/// that thread is the poller's, which stands still in the meantime.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use wasmtime::{Engine, Func};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Stack, Store, ThreadStack, tokio_runtime};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let sleep = Func::wrap_suspending(&mut store, async || tokio::time::sleep(Duration::from_millis(1)).await);
/// let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
/// stack.set_ambient(tokio_runtime);
///
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// runtime.block_on(sleep.call_on(&mut stack, &mut store, &[], &mut []))?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
///
/// Together with other state:
///
/// ```
/// # use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, ThreadStack, tokio_runtime};
/// # fn request() -> u64 { 0 }
/// # fn set_request(_: u64) {}
/// # let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
/// stack.set_ambient(|| {
///     let (runtime, request) = (tokio_runtime(), request());
///     move || {
///         set_request(request);
///         runtime()
///     }
/// });
/// # Ok::<(), wasmtime_async::Error>(())
/// ```
#[must_use = "the runtime is entered by calling this"]
pub fn tokio_runtime() -> impl FnOnce() -> Option<EnteredRuntime> + Send + 'static {
    let handle = Handle::try_current().ok();
    move || handle.map(EnteredRuntime::new)
}

/// A tokio runtime that is current on this thread until this is dropped. See [`tokio_runtime`].
pub struct EnteredRuntime {
    /// Holds both the handle and the guard that borrows it, which no struct could do.
    _entered: Pin<Box<dyn Future<Output = ()>>>,
}

impl EnteredRuntime {
    fn new(handle: Handle) -> Self {
        let mut entered = Box::pin(async move {
            let _guard = handle.enter();
            pending::<()>().await;
        });
        let _pending = entered.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Self { _entered: entered }
    }
}

impl std::fmt::Debug for EnteredRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnteredRuntime").finish_non_exhaustive()
    }
}
