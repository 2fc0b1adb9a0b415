//! `wasi:http` of WASI 0.2: guests that send requests, and guests that handle them. (Feature `http`.)
//!
//! The functions, contexts and hooks are those of wasmtime-wasi-http:
//!
//! ```toml
//! wasmtime-async-wasi = { version = "2", features = ["http"] }
//! wasmtime-wasi-http = "48.0.8"
//! ```
//!
//! These functions do not wait for anything. What waits is in `wasi:io`, which [`p2::add_to_linker`](crate::p2::add_to_linker)
//! defines: polling, and the streams of bodies. Only `future-incoming-response.get` and `future-trailers.get` count as
//! [host calls in a row](crate::HOST_CALLS_IN_A_ROW), because guests may call them in loops.
//!
//! - **Requests that guests send** are sent by tokio tasks, as the hooks of a context define
//!   ([`WasiHttpHooks`](wasmtime_wasi_http::WasiHttpHooks)). The default hooks are among the default features of
//!   wasmtime-wasi-http. A request that is in flight is aborted when the guest drops its future, and when the store is dropped.
//! - **Requests that guests handle** are given to them by [`exchange`].

mod body;
mod exchange;
mod futures;
mod view;

pub use body::Body;
pub use exchange::{Answer, Responder, exchange};
pub use view::View;

use crate::Result;
use wasmtime::component::Linker;
use wasmtime_wasi_http::WasiHttp;
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types};

/// Defines `wasi:http/types` and `wasi:http/outgoing-handler`, for every stack. Together with what
/// [`p2::add_to_linker`](crate::p2::add_to_linker) or [`p2::add_to_linker_send`](crate::p2::add_to_linker_send) defines, this
/// is all that components of the world `wasi:http/proxy` import. Functions that are unstable in WASI are not defined.
///
/// # Errors
///
/// If one of the names is taken, and the linker does not allow shadowing.
///
/// # Examples
///
/// See [`exchange`] for the store's data.
///
/// ```
/// use wasmtime::Result;
/// use wasmtime::component::Linker;
/// use wasmtime_async_wasi::{http, p2};
///
/// /// For requests that are handled on `SendFiberStack`s.
/// fn define<T: p2::View + http::View + Send + 'static>(linker: &mut Linker<T>) -> Result<()> {
///     p2::add_to_linker_send(linker)?;
///     http::add_to_linker(linker)
/// }
/// ```
pub fn add_to_linker<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    outgoing_handler::add_to_linker::<T, WasiHttp>(linker, T::http)?;
    types::add_to_linker::<T, WasiHttp>(linker, &LinkOptions::default().into(), T::http)?;
    futures::replace(linker)
}
