//! How to find the context in a store's data, and the parts of it that functions need.

use wasmtime::component::ResourceTable;
use wasmtime_wasi::WasiCtxView;
use wasmtime_wasi::cli::WasiCliCtxView;
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::random::WasiRandomCtx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;

/// A store's data that has a context for WASI. Unlike wasmtime-wasi's [`WasiView`](wasmtime_wasi::WasiView), it does not require
/// `Send`. Every type that implements `WasiView` implements this, too.
pub trait View {
    /// The context, and the table of the guest's resources.
    fn ctx(&mut self) -> WasiCtxView<'_>;
}

impl<T: wasmtime_wasi::WasiView> View for T {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        wasmtime_wasi::WasiView::ctx(self)
    }
}

pub(super) fn table<T: View>(data: &mut T) -> &mut ResourceTable {
    data.ctx().table
}

pub(super) fn random<T: View>(data: &mut T) -> &mut WasiRandomCtx {
    data.ctx().ctx.random()
}

macro_rules! parts {
    ($($part:ident $View:ident;)*) => {$(
        pub(super) fn $part<T: View>(data: &mut T) -> $View<'_> {
            let WasiCtxView { ctx, table } = data.ctx();
            $View { ctx: ctx.$part(), table }
        }
    )*};
}
parts! {
    cli WasiCliCtxView;
    clocks WasiClocksCtxView;
    filesystem WasiFilesystemCtxView;
    sockets WasiSocketsCtxView;
}
