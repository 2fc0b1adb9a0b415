//! The kinds of stacks, and what a generic test must know about them.

use super::Host;
use std::future::Future;
use std::pin::Pin;
use wasmtime::Result;
use wasmtime_async::{AsyncFunc, Carries, Error, Stack, Store};

/// A kind of stack.
///
/// Each call has a bound that says what a stack can carry. For closures, whose types have no name, a generic stack
/// cannot state that bound. So tests run closures with `run_send`, which asks for what the more demanding kinds need.
pub(crate) trait Kind: 'static {
    type Stack: Stack + Send + Carries<()> + Carries<Host> + 'static;

    /// Whether the stack suspends anything, including synchronous code, and not only known frames.
    const ANYTHING: bool;
    /// Whether nested calls run within one poll.
    #[cfg_attr(call_hook, allow(dead_code, reason = "nested calls are an error there"))]
    const IN_PLACE: bool = false;
    /// Whether host functions that wait must be registered as `Send`. If so, each poll of a test is on another thread.
    const MOVES: bool = false;

    /// Makes a stack of this kind.
    fn stack_of(size: usize) -> Result<Self::Stack, Error> {
        Self::Stack::new(size)
    }

    /// A call together with everything that it needs, which can be moved. It is `Send` if calls of this kind are.
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
        // SAFETY: no test suspends code that keeps anything in its thread: no locks, no guards, and nothing that a
        // thread-local variable lends. Tests copy what they read from thread-local variables.
        unsafe { wasmtime_async::FiberStack::unchecked(size) }
    }

    boxed!();
}

/// `SendFiberStack`
#[cfg(fiber_stack)]
pub(crate) enum SendFiber {}

#[cfg(fiber_stack)]
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
    const IN_PLACE: bool = true;

    boxed!(Send);
}
