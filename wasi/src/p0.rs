//! WASI for modules: version 0, `wasi_unstable`, for programs from old compilers.
//!
//! It uses the contexts of [`p1`](crate::p1). One linker can have both versions.

use crate::Result;
use crate::functions::{define, define_send, for_each_function};
use crate::sleep::define_sleep;
use std::future::Future;
use std::time::Duration;
use wasmtime::{Caller, Linker};
use wasmtime_async::LinkerExt;
use wasmtime_wasi::p0::wasi_unstable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wiggle::{GuestMemory, GuestPtr};

define_sleep!(wasmtime_wasi::p0::types);

/// Defines all functions of `wasi_unstable`: see [`p1::add_to_linker`](crate::p1::add_to_linker).
///
/// # Errors
///
/// If one of the names is taken, and the linker does not allow shadowing.
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
) -> Result<()> {
    for_each_function!(define linker, get, wasi_unstable:);
    Ok(())
}

/// Defines all functions of `wasi_unstable` for every stack: see
/// [`p1::add_to_linker_send`](crate::p1::add_to_linker_send).
///
/// # Errors
///
/// As for [`add_to_linker`].
pub fn add_to_linker_send<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
) -> Result<()> {
    for_each_function!(define_send linker, get, wasi_unstable:);
    Ok(())
}
