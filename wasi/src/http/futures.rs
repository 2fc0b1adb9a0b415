//! The functions that ask whether something has come. A guest may call them again and again.

use super::View;
use crate::Result;
use crate::turn::in_turn;
use std::future::ready;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_async::component::LinkerInstanceExt;
use wasmtime_wasi_http::p2::bindings::http::types::{HostFutureIncomingResponse, HostFutureTrailers};
use wasmtime_wasi_http::p2::body;
use wasmtime_wasi_http::p2::types::HostFutureIncomingResponse as FutureIncomingResponse;

/// Replaces wasmtime-wasi-http's own, which have just been defined.
pub(super) fn replace<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    if define(linker).is_ok() {
        return Ok(());
    }
    // The linker does not allow shadowing.
    linker.allow_shadowing(true);
    let defined = define(linker);
    linker.allow_shadowing(false);
    defined
}

/// The futures have no reference to the store, so they are `Send` whatever the store's data is.
fn define<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap_suspending_send(
        "[method]future-incoming-response.get",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<FutureIncomingResponse>,)| {
            let answer = HostFutureIncomingResponse::get(&mut store.data_mut().http(), this);
            in_turn(ready(answer.map(|answer| (answer,))))
        },
    )?;
    types.func_wrap_suspending_send(
        "[method]future-trailers.get",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<body::HostFutureTrailers>,)| {
            let answer = HostFutureTrailers::get(&mut store.data_mut().http(), this);
            in_turn(ready(answer.map(|answer| (answer,))))
        },
    )
}
