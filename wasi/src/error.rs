//! This crate's errors.

/// An error of this crate, found in a [`wasmtime::Error`] by [`downcast_ref`](wasmtime::Error::downcast_ref).
///
/// If a function cannot wait, the error is one of [`wasmtime_async::Error`]. It is always a trap: a guest whose call was
/// dropped does not get an errno.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A guest called a WASI function, but exports no memory.
    #[error(
        "the guest exports no memory, where the WASI function that it called finds its arguments: export it under the name \
         `memory`"
    )]
    NoMemory,

    /// The module or component has no function where a program begins.
    #[error(
        "this is not a program, because it exports no function `_start` without parameters and results (a module) or no \
         `wasi:cli/run` (a component): instantiate a library with `instantiate_on`, and call its functions one by one"
    )]
    NotACommand,

    /// A guest has handled a request without setting a response, or has dropped what sets it. (Feature `http`.)
    #[cfg(feature = "http")]
    #[error("the guest has not set a response: its `wasi:http/incoming-handler` must call `response-outparam.set`")]
    NoResponse,

    /// The guest failed before its response was complete. (Feature `http`.)
    #[cfg(feature = "http")]
    #[error("the guest failed before its response was complete: {reason}")]
    GuestFailed {
        /// The text of the error that [`Responder::handle`](crate::http::Responder::handle) returns.
        reason: String,
    },

    /// The guest was dropped before its response was complete, or one of its host functions panicked. (Feature `http`.)
    #[cfg(feature = "http")]
    #[error(
        "the guest was dropped before its response was complete: unless a host function panicked, poll the future of \
         `Responder::handle` to its end, in a task of its own for instance"
    )]
    GuestDropped,

    /// The response was dropped before it was complete, and therefore the guest was cancelled. (Feature `http`.)
    #[cfg(feature = "http")]
    #[error(
        "the guest was cancelled, because its response was dropped before it was complete: the client may have gone"
    )]
    ClientGone,
}
