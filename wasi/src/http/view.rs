//! How to find the context of `wasi:http` in a store's data.

use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

/// A store's data that has a context for `wasi:http`. Unlike wasmtime-wasi-http's [`WasiHttpView`], it does not require `Send`.
/// Every type that implements `WasiHttpView` implements this, too.
pub trait View {
    /// The context, the table of the guest's resources, and how requests are sent.
    fn http(&mut self) -> WasiHttpCtxView<'_>;
}

impl<T: WasiHttpView> View for T {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpView::http(self)
    }
}
