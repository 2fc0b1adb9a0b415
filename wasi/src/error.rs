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

    /// A module or a component that was to run as a program has no place to begin.
    #[error(
        "this is not a program, because it exports no function `_start` without parameters and results (a module) or no \
         `wasi:cli/run` (a component): instantiate a library by `instantiate_on`, and call its functions one by one"
    )]
    NotACommand,
}
