//! The results of functions, as the guest gets them.

use crate::Result;
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::p2::bindings::{filesystem, sockets};
use wasmtime_wasi::p2::{FsResult, SocketResult, StreamResult};
use wasmtime_wasi_io::bindings::wasi::io::streams;

/// The result of one of wasmtime-wasi's functions. An error that the guest should see becomes a value. Any other error becomes
/// a trap.
pub(super) trait Answer<Host> {
    /// What the guest gets.
    type ForGuest;

    fn for_guest(self, host: &mut Host) -> Result<(Self::ForGuest,)>;
}

impl<T, Host> Answer<Host> for Result<T> {
    type ForGuest = T;

    fn for_guest(self, _: &mut Host) -> Result<(T,)> {
        Ok((self?,))
    }
}

fn or_error<T, E, G>(result: Result<T, E>, convert: impl FnOnce(E) -> Result<G>) -> Result<(Result<T, G>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(convert(error)?),)),
    }
}

impl<T, Host: streams::Host> Answer<Host> for StreamResult<T> {
    type ForGuest = Result<T, streams::StreamError>;

    fn for_guest(self, host: &mut Host) -> Result<(Self::ForGuest,)> {
        or_error(self, |error| host.convert_stream_error(error))
    }
}

impl<T, Host> Answer<Host> for FsResult<T> {
    type ForGuest = Result<T, filesystem::types::ErrorCode>;

    fn for_guest(self, _: &mut Host) -> Result<(Self::ForGuest,)> {
        or_error(self, TrappableError::downcast)
    }
}

impl<T, Host> Answer<Host> for SocketResult<T> {
    type ForGuest = Result<T, sockets::network::ErrorCode>;

    fn for_guest(self, _: &mut Host) -> Result<(Self::ForGuest,)> {
        or_error(self, TrappableError::downcast)
    }
}
