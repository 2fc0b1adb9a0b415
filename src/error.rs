//! This crate's errors.

use std::fmt;
use std::io;
use std::sync::LazyLock;
use wasmtime::{Config, Engine, Store, WasmBacktrace};

/// An error of this crate, as opposed to an error of the guest or of a host function.
///
/// It can arrive as a trap or as the result of a [`Call`](crate::Call). Find it with [`wasmtime::Error::downcast_ref`]:
///
/// ```
/// # fn example(error: wasmtime::Error) {
/// if let Some(wasmtime_async::Error::Cancelled) = error.downcast_ref() {
///     println!("the call was dropped before it ended");
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Code wanted to wait for a future, but was not running on a stack of this crate.
    #[error(
        "cannot wait for a future here, because this code does not run on a stack: enter wasm with \
         `AsyncFunc::call`, `FuncExt::call_on`, `LinkerExt::instantiate_on` or `Stack::run` instead of wasmtime's own \
         functions"
    )]
    NotOnStack,

    /// The call was dropped before it ended, and its code is unwinding.
    #[error("the call was cancelled, because its future was dropped: return to let it end")]
    Cancelled,

    /// The timer of [`Call::until`](crate::Call::until) was ready before the call ended.
    #[error("the call's deadline passed before it ended: give it more time, or its guest less to do")]
    Deadline,

    /// Code tried to suspend while its thread was unwinding from a panic.
    #[error(
        "cannot suspend while a panic unwinds the stack: a destructor must not wait for a future that is not ready"
    )]
    Unwinding,

    /// A future is pending, and the stack holds frames that it does not suspend, between the root of the call and the
    /// code that waits.
    #[error(
        "cannot suspend this stack here: {between}. Wait in an async host function that the guest calls itself, or call on a \
         stack that suspends anything, a `ThreadStack` or a `FiberStack::unchecked`"
    )]
    #[non_exhaustive]
    ForeignFrames {
        /// The frames that are in the way.
        between: Between,
    },

    /// On a [`SendFiberStack`](crate::SendFiberStack), a future is pending that was not registered as `Send`.
    #[error(
        "the future of this host function is pending on a `SendFiberStack`, and was not registered as `Send`: define the \
         function with `LinkerExt::func_wrap_suspending_send`, `FuncExt::wrap_suspending_send` or a similar method, or call on \
         a `FiberStack`"
    )]
    NotSend,

    /// wasmtime's per-thread list is needed, and cannot be read here. Fiber stacks need it on Linux and Windows, and
    /// nested calls on fiber stacks need it on every system.
    #[error(
        "wasmtime's list of activations cannot be read here, and nested calls and fiber stacks need it: use a `ThreadStack` \
         (feature `thread-backend`)"
    )]
    NoThreadList,

    /// Something other than the future of the host function that made a nested call has polled it.
    #[error(
        "a nested call can only be polled by the future of the host function that made it: await what `call_within` and \
         `instantiate_within` return right there. (Elsewhere, pass code from `bindgen!` an `OnStack` as its store.)"
    )]
    NotWithin,

    /// A nested call was forgotten while it was suspended. It blocks everything below it on its stack.
    #[error("a nested call was forgotten while it was suspended, so this call can never end: drop such calls instead")]
    Lost,

    /// wasmtime's own async is on for the store. It runs guests on stacks of its own, and cannot be combined with this
    /// crate's.
    #[error(
        "wasmtime's own async is on for this store, which cannot be combined with stacks: do not use \
         `epoch_deadline_async_yield_and_update` (use `epoch_deadline_suspend_and_update`), `fuel_async_yield_interval`, \
         `limiter_async`, `call_hook_async`, or functions defined with `func_wrap_async`, `func_new_async` or similar methods \
         (use `func_wrap_suspending_boxed`, `func_new_suspending_boxed`)"
    )]
    AsyncStore,

    /// No stack of this size can work.
    #[error("a stack of {size} bytes cannot work: use {min} to {max} bytes, `DEFAULT_STACK_SIZE` if in doubt")]
    #[non_exhaustive]
    StackSize {
        /// The size that was asked for, in bytes.
        size: usize,
        /// The smallest size, in bytes.
        min: usize,
        /// The largest size, in bytes.
        max: usize,
    },

    /// The stack is too small for the engine of the store: guests may use more space than the stack has.
    #[error(
        "a stack of {size} bytes is too small for what guests of this engine may use: make it at least {min} bytes, or \
         lower wasmtime's `Config::max_wasm_stack`"
    )]
    #[non_exhaustive]
    StackTooSmall {
        /// The size of the stack, in bytes.
        size: usize,
        /// The smallest size for this engine, in bytes.
        min: usize,
    },

    /// A [`Pool`](crate::Pool) without stacks was asked for.
    #[error("a pool of 0 stacks would make every task wait forever: give it at least 1 stack")]
    EmptyPool,

    /// The operating system provided no memory for a stack.
    #[error(
        "no memory for a stack of {size} bytes: use smaller stacks or fewer at once, or raise the limits of the \
         process on address space or on the number of mappings"
    )]
    #[non_exhaustive]
    StackMemory {
        /// The size that was asked for, in bytes.
        size: usize,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The operating system provided no thread for a stack.
    #[error(
        "no thread for a stack of {size} bytes: use fewer stacks at once, or raise the limits of the process on \
         threads or memory"
    )]
    #[non_exhaustive]
    ThreadSpawn {
        /// The size that was asked for, in bytes.
        size: usize,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The call was polled again after it had returned its result.
    #[error("the call has already ended: do not poll its future after it was ready")]
    Ended,

    /// wasmtime could not make the fiber that parks the activations of a suspended stack.
    #[error("wasmtime's fibers do not work here, use the feature `thread-backend` and `ThreadStack`: {reason}")]
    #[non_exhaustive]
    Fibers {
        /// The error of wasmtime.
        reason: String,
    },
}

impl Error {
    /// Turns the error into one that a host function returns, which makes the guest trap.
    #[cold]
    pub(crate) fn into_trap(self) -> wasmtime::Error {
        let backtrace = if let Self::Cancelled = self { no_backtrace() } else { None };
        let error = wasmtime::Error::from(self);
        if let Some(backtrace) = backtrace { error.context(backtrace) } else { error }
    }
}

/// Replaces wasmtime's error for a store with its own async by one that says what to do.
#[cold]
pub(crate) fn explained(error: wasmtime::Error) -> wasmtime::Error {
    // From `StoreOpaque::validate_sync_call` of wasmtime 48.
    const MIXED: &str = "store configuration requires that `*_async` functions are used instead";
    if error.downcast_ref() == Some(&MIXED) { Error::AsyncStore.into() } else { error }
}

/// Makes a backtrace without frames.
///
/// wasmtime captures a backtrace for every trap that has none. That takes longer than the rest of a cancellation, and
/// nobody reads the backtrace of a call that was dropped.
fn no_backtrace() -> Option<WasmBacktrace> {
    static STORE: LazyLock<Option<Store<()>>> = LazyLock::new(|| {
        let mut config = Config::new();
        config.signals_based_traps(false).wasm_backtrace_max_frames(None);
        Some(Store::new(&Engine::new(&config).ok()?, ()))
    });
    STORE.as_ref().map(WasmBacktrace::capture)
}

/// The frames that a stack does not suspend, in [`Error::ForeignFrames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Between {
    /// The closure of [`Stack::run`](crate::Stack::run).
    Closure,
    /// Synchronous code that called [`suspend_until`](crate::suspend_until) or [`yield_now`](crate::yield_now): a host
    /// function, a destructor, a limiter.
    HostCode,
    /// A host function's future, in the middle of its poll.
    Poll,
    /// A synchronous call into another store.
    OtherStore,
    /// Host code that has called the guest again, synchronously.
    NestedCall,
    /// Code on a stack within the stack: a continuation of wasm's stack switching proposal, or a coroutine of another
    /// library.
    OtherStack,
    /// What cannot be seen, because the store's call hook was replaced. (On systems other than Linux and Windows: see
    /// [`Store`](crate::Store#call-hooks).)
    Unseen,
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closure => "the closure of `Stack::run` would be left suspended",
            Self::HostCode => "the synchronous code that called `suspend_until` or `yield_now` would be left suspended",
            Self::Poll => "the future of a host function would be left suspended in the middle of its poll",
            Self::OtherStore => "a synchronous call into another store would be left suspended",
            Self::NestedCall => "host code that has called the guest again would be left suspended",
            Self::OtherStack => "code on a stack within the stack would be left suspended",
            Self::Unseen => "what is on it cannot be seen, because the call hook of its store was replaced",
        })
    }
}
