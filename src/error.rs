//! What can go wrong besides the guest.

use std::io;

/// An error of this crate, as opposed to one of the guest or of a host function.
///
/// Where it travels as a trap or as the result of a [`Call`](crate::Call), it is found by
/// [`wasmtime::Error::downcast_ref`]:
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
    /// Code that must wait for a future was not running on a stack of this crate.
    #[error(
        "cannot wait for a future here, because this code does not run on a stack: enter wasm with \
         `AsyncFunc::call`, `FuncExt::call_on`, `LinkerExt::instantiate_on` or `Stack::run` instead of wasmtime's own \
         functions"
    )]
    NotOnStack,

    /// The call was dropped before it ended; its code is on the way out.
    #[error("the call was cancelled, because its future was dropped: return to let it end")]
    Cancelled,

    /// Code tried to suspend while its thread was unwinding from a panic.
    #[error(
        "cannot suspend while a panic unwinds the stack: a destructor must not wait for a future that is not ready"
    )]
    Unwinding,

    /// A stack of this size cannot work at all.
    #[error("a stack of {size} bytes cannot work: use {min} to {max} bytes, `DEFAULT_STACK_SIZE` if in doubt")]
    #[non_exhaustive]
    StackSize {
        /// The size that was asked for, in bytes.
        size: usize,
        /// The least size, in bytes.
        min: usize,
        /// The greatest size, in bytes.
        max: usize,
    },

    /// The stack is too small for the engine of a store, whose guests may use more of it than it has to give.
    #[error(
        "a stack of {size} bytes is too small for what guests of this engine may use: make it at least {min} bytes, or \
         lower wasmtime's `Config::max_wasm_stack`"
    )]
    #[non_exhaustive]
    StackTooSmall {
        /// The size of the stack, in bytes.
        size: usize,
        /// The least size for this engine, in bytes.
        min: usize,
    },

    /// A [`Pool`](crate::Pool) of no stacks was asked for.
    #[error("a pool of 0 stacks would keep everybody waiting for ever: let it have at least 1")]
    EmptyPool,

    /// The operating system gave no memory for a stack.
    #[error(
        "no memory for a stack of {size} bytes: use smaller stacks or fewer at once, or raise the limits of the \
         process on address space or on the number of mappings"
    )]
    #[non_exhaustive]
    StackMemory {
        /// The size that was asked for, in bytes.
        size: usize,
        /// What the operating system said.
        source: io::Error,
    },

    /// The operating system gave no thread for a stack.
    #[error(
        "no thread for a stack of {size} bytes: use fewer stacks at once, or raise the limits of the process on \
         threads or memory"
    )]
    #[non_exhaustive]
    ThreadSpawn {
        /// The size that was asked for, in bytes.
        size: usize,
        /// What the operating system said.
        source: io::Error,
    },

    /// The store is already inside a call that was entered on another stack than the one this code runs on.
    #[error(
        "the store is already inside a call on another stack, whose stack limit would be applied: enter that outer \
         call with `FuncExt::call_on` or `Stack::run` too, and call back from its own host functions"
    )]
    Reentry,

    /// The call has ended, its result was taken, and it was polled once more.
    #[error("the call has already ended: do not poll its future after it was ready")]
    Ended,

    /// wasmtime could not set up what parks the activations of a suspended stack.
    #[error("wasmtime's fibers do not work here, use the feature `thread-backend` and `ThreadStack`: {reason}")]
    #[non_exhaustive]
    Fibers {
        /// What wasmtime said.
        reason: String,
    },
}
