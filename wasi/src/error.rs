//! What can go wrong besides the guest and the waiting.

/// An error of this crate, found in a [`wasmtime::Error`] by [`downcast_ref`](wasmtime::Error::downcast_ref).
///
/// Errors of waiting are those of [`wasmtime_async::Error`]. They are always traps: a guest whose call was dropped does not
/// get to see an errno.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A guest that has called a WASI function exports no memory.
    #[error(
        "the guest exports no memory, where the WASI function that it called finds its arguments: export it under the name \
         `memory`"
    )]
    NoMemory,

    /// A module that was to run as a program has no place to begin.
    #[error(
        "the module exports no function `_start` without parameters and results, so it is not a program: a library (of the \
         kind \"reactor\") is instantiated by `instantiate_on`, and its functions are called one by one"
    )]
    NotACommand,
}
