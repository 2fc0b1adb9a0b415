//! The kinds of stack, and which host functions each has.

use crate::common::NewStack;
use crate::guest::{Version, guest};
use wasmtime::{Engine, Instance, Linker, Module, Result, Val};
use wasmtime_async::{Carries, FiberStack, FuncExt, SendFiberStack, Store, ThreadStack};
use wasmtime_async_wasi::{p0, p1};
use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) trait Kind: NewStack + Carries<WasiP1Ctx> {
    fn add_to_linker(linker: &mut Linker<WasiP1Ctx>, version: Version) -> Result<()>;

    fn linker(engine: &Engine, version: Version) -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(engine);
        Self::add_to_linker(&mut linker, version).unwrap();
        linker
    }
}

fn add(linker: &mut Linker<WasiP1Ctx>, version: Version) -> Result<()> {
    match version {
        Version::P0 => p0::add_to_linker(linker, |wasi| wasi),
        Version::P1 => p1::add_to_linker(linker, |wasi| wasi),
    }
}

impl Kind for FiberStack {
    fn add_to_linker(linker: &mut Linker<WasiP1Ctx>, version: Version) -> Result<()> {
        add(linker, version)
    }
}

impl Kind for ThreadStack {
    fn add_to_linker(linker: &mut Linker<WasiP1Ctx>, version: Version) -> Result<()> {
        add(linker, version)
    }
}

impl Kind for SendFiberStack {
    fn add_to_linker(linker: &mut Linker<WasiP1Ctx>, version: Version) -> Result<()> {
        match version {
            Version::P0 => p0::add_to_linker_send(linker, |wasi| wasi),
            Version::P1 => p1::add_to_linker_send(linker, |wasi| wasi),
        }
    }
}

/// The guest of the functions one by one, on a stack.
pub(crate) struct Guest<S> {
    pub(crate) stack: S,
    pub(crate) store: Store<WasiP1Ctx>,
    pub(crate) instance: Instance,
}

impl<S: Kind> Guest<S> {
    pub(crate) fn new(version: Version, wasi: WasiP1Ctx) -> Self {
        Self::of(version, guest(version), wasi)
    }

    pub(crate) fn of(version: Version, module: &Module, wasi: WasiP1Ctx) -> Self {
        let stack = S::new_stack();
        let mut store = Store::new(module.engine(), wasi);
        let instance = S::linker(module.engine(), version).instantiate(&mut store, module).unwrap();
        Self { stack, store, instance }
    }

    /// Calls one of the functions. The result is its errno.
    pub(crate) async fn call(&mut self, name: &str, arguments: &[Val]) -> Result<i32> {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function.call_on(&mut self.stack, &mut self.store, arguments, &mut results).await?;
        Ok(results.first().map_or(0, Val::unwrap_i32))
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        let memory = self.instance.get_memory(&mut self.store, "memory").unwrap();
        memory.write(&mut self.store, at, bytes).unwrap();
    }

    pub(crate) fn read<const N: usize>(&mut self, at: usize) -> [u8; N] {
        let memory = self.instance.get_memory(&mut self.store, "memory").unwrap();
        memory.data(&self.store)[at..at + N].try_into().unwrap()
    }

    /// How many host functions came back to the guest.
    pub(crate) fn returned(&mut self) -> i32 {
        let returned = self.instance.get_global(&mut self.store, "returned").unwrap();
        returned.get(&mut self.store).unwrap_i32()
    }
}
