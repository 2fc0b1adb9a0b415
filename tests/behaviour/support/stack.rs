//! The kinds of stacks, and what a generic test needs to know of one.

use super::Host;
use std::future::Future;
use std::pin::Pin;
use wasmtime::Result;
use wasmtime_async::{AsyncFunc, Carries, Error, Stack, Store};

/// A kind of stack.
///
/// What a stack can carry is a bound of each call. That of closures, which have no name, cannot be stated for a generic
/// stack, so closures are run by `run_send`, which asks for what the more demanding kinds do.
pub(crate) trait Kind: 'static {
    type Stack: Stack + Send + Carries<()> + Carries<Host> + 'static;

    /// Whether anything is suspended, synchronous code, too, rather than known frames only.
    const ANYTHING: bool;
    /// Whether guests may wait that synchronous code has called again.
    const NESTED: bool = Self::ANYTHING;
    /// Whether host functions that wait must be registered as `Send`, and each poll of a test is on another thread.
    const MOVES: bool = false;

    /// Makes a stack of this kind.
    fn stack_of(size: usize) -> Result<Self::Stack, Error> {
        Self::Stack::new(size)
    }

    /// A call with all that it needs, on its way from one place to another. `Send` if calls of this kind are.
    type Boxed: Future<Output = Result<i32>> + Unpin + 'static;

    /// Calls a function on a stack.
    fn boxed(stack: Self::Stack, store: Store<Host>, run: AsyncFunc<i32, i32>, param: i32) -> Self::Boxed;
}

macro_rules! boxed {
    ($($send:ident)?) => {
        type Boxed = Pin<Box<dyn Future<Output = Result<i32>> $(+ $send)?>>;

        fn boxed(
            mut stack: Self::Stack,
            mut store: Store<Host>,
            run: AsyncFunc<i32, i32>,
            param: i32,
        ) -> Self::Boxed {
            Box::pin(async move { run.call(&mut stack, &mut store, param).await })
        }
    };
}

/// `FiberStack::new`
#[cfg(fiber_stack)]
pub(crate) enum Fiber {}

#[cfg(fiber_stack)]
impl Kind for Fiber {
    type Stack = wasmtime_async::FiberStack;
    const ANYTHING: bool = false;
    // What cannot be seen is not refused.
    const NESTED: bool = !cfg!(thread_list);

    boxed!();
}

/// `FiberStack::unchecked`
#[cfg(fiber_stack)]
pub(crate) enum Unchecked {}

#[cfg(fiber_stack)]
impl Kind for Unchecked {
    type Stack = wasmtime_async::FiberStack;
    const ANYTHING: bool = true;

    #[expect(unsafe_code, reason = "has a contract, which the tests meet")]
    fn stack_of(size: usize) -> Result<Self::Stack, Error> {
        // SAFETY: no test suspends code that has anything of its thread: neither locks nor guards nor what a
        // thread-local variable lends. What tests look at of thread-local variables they copy.
        unsafe { wasmtime_async::FiberStack::unchecked(size) }
    }

    boxed!();
}

/// `SendFiberStack`
#[cfg(thread_list)]
pub(crate) enum SendFiber {}

#[cfg(thread_list)]
impl Kind for SendFiber {
    type Stack = wasmtime_async::SendFiberStack;
    const ANYTHING: bool = false;
    const MOVES: bool = true;

    boxed!(Send);
}

/// `ThreadStack`
#[cfg(feature = "thread-backend")]
pub(crate) enum Thread {}

#[cfg(feature = "thread-backend")]
impl Kind for Thread {
    type Stack = wasmtime_async::ThreadStack;
    const ANYTHING: bool = true;

    boxed!(Send);
}
