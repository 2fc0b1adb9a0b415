//! The guest, and the data of its store.

use std::sync::LazyLock;
use wasmtime::Engine;
use wasmtime::component::{Component, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// For all tests.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

/// The guest in `guest.wat`.
pub(crate) static GUEST: LazyLock<Component> = LazyLock::new(|| Component::from_binary(&ENGINE, &COMPONENT).unwrap());

/// The same, as it would be in a file.
pub(crate) static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut wit = Resolve::default();
    let package = wit.push_str("guest.wit", include_str!("guest.wit")).unwrap();
    let world = wit.select_world(&[package], None).unwrap();
    let mut module = wat::parse_str(include_str!("guest.wat")).unwrap();
    embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
});

/// What its function `send` returns: a status, and a body.
pub(crate) type Got = (u16, Vec<u8>);

/// The number that `send` returns for `connection-refused`.
pub(crate) const REFUSED: u8 = 6;

/// Contexts that allow nothing else than requests.
#[derive(Default)]
pub(crate) struct Data {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl Data {
    /// Has no place for resources.
    pub(crate) fn full() -> Self {
        let mut data = Self::default();
        data.table.set_max_capacity(0);
        data
    }
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}
