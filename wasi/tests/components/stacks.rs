//! The kinds of stack, which host functions each has, and a program on one.

use crate::common::NewStack;
use crate::guests::ENGINE;
use wasmtime::Result;
use wasmtime::component::{Component, Linker};
use wasmtime_async::{Carries, FiberStack, SendFiberStack, Store, ThreadStack};
use wasmtime_async_wasi::{command, p2};
use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) trait Kind: NewStack + Carries<WasiP1Ctx> {
    fn linker() -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker(&mut linker).unwrap();
        linker
    }
}

impl Kind for FiberStack {}

impl Kind for ThreadStack {}

impl Kind for SendFiberStack {
    fn linker() -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker_send(&mut linker).unwrap();
        linker
    }
}

/// Runs a program. What it has open is closed when this ends, and when this is dropped.
pub(crate) async fn run<S: Kind>(component: &Component, wasi: WasiP1Ctx) -> Result<i32> {
    let linker = S::linker();
    let mut store = Store::new(&ENGINE, wasi);
    let mut stack = S::new_stack();
    command::run_component(&mut stack, &mut store, &linker, component).await
}
