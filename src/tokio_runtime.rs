//! The current tokio runtime, carried from one thread to another.

use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Waker};
use tokio::runtime::Handle;

/// Carries the current tokio runtime of the thread that calls this over to the thread that calls what this returns. There it is
/// current until what that returns is dropped.
///
/// It is for [`Stack::set_ambient`](crate::Stack::set_ambient). With it, the timers, sockets and `tokio::spawn` of the
/// poller's runtime work in host functions. Other stacks need nothing: their host functions run on the poller's thread.
///
/// Do not keep a guard of `tokio::runtime::Handle::enter` while the stack is suspended: tokio panics when guards are dropped in
/// another order than they were made.
///
/// Do not call `tokio::runtime::Handle::block_on` in host functions: on a runtime with one thread it hangs, because that thread
/// is the poller's, which stands still meanwhile.
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
/// Together with something else:
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

/// A tokio runtime that is the current one of this thread until this is dropped. See [`tokio_runtime`].
pub struct EnteredRuntime {
    /// Holds both the handle and the guard that borrows it, which no struct could.
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
