//! Who runs the guest: wasmtime-wasi, synchronous and async, and this crate on each kind of stack.

use futures::future::join_all;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wasmtime::{Engine, Linker, Module, Result, Store};
use wasmtime_async::{AsyncFunc, Carries, DEFAULT_STACK_SIZE, LinkerExt, SendStack, Stack};
use wasmtime_async_wasi::p1;
use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) trait Side {
    fn name(&self) -> &'static str;

    /// How long it takes to make the stores of these guests, and to call an exported function in all of them at once.
    fn time(&self, guests: Vec<WasiP1Ctx>, function: &str, parameter: i32) -> Result<Duration>;
}

/// Runs guests one after the other.
pub(crate) struct Sync {
    module: Module,
    linker: Linker<WasiP1Ctx>,
}

impl Sync {
    pub(crate) fn new(module: &Module) -> Result<Self> {
        let mut linker = Linker::new(module.engine());
        wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi| wasi)?;
        Ok(Self { module: module.clone(), linker })
    }
}

impl Side for Sync {
    fn name(&self) -> &'static str {
        "sync"
    }

    fn time(&self, guests: Vec<WasiP1Ctx>, function: &str, parameter: i32) -> Result<Duration> {
        let begun = Instant::now();
        for wasi in guests {
            let mut store = Store::new(self.module.engine(), wasi);
            let instance = self.linker.instantiate(&mut store, &self.module)?;
            instance.get_typed_func::<i32, ()>(&mut store, function)?.call(&mut store, parameter)?;
        }
        Ok(begun.elapsed())
    }
}

pub(crate) struct Async {
    module: Module,
    linker: Linker<WasiP1Ctx>,
    runtime: Runtime,
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl Async {
    pub(crate) fn new(module: &Module) -> Result<Self> {
        let mut linker = Linker::new(module.engine());
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |wasi| wasi)?;
        Ok(Self { module: module.clone(), linker, runtime: runtime()? })
    }
}

impl Side for Async {
    fn name(&self) -> &'static str {
        "async"
    }

    fn time(&self, guests: Vec<WasiP1Ctx>, function: &str, parameter: i32) -> Result<Duration> {
        let begun = Instant::now();
        let calls = guests.into_iter().map(async |wasi| {
            let mut store = Store::new(self.module.engine(), wasi);
            let instance = self.linker.instantiate_async(&mut store, &self.module).await?;
            instance.get_typed_func::<i32, ()>(&mut store, function)?.call_async(&mut store, parameter).await
        });
        for ended in self.runtime.block_on(join_all(calls)) {
            ended?;
        }
        Ok(begun.elapsed())
    }
}

pub(crate) struct Ours<S> {
    name: &'static str,
    module: Module,
    linker: Linker<WasiP1Ctx>,
    runtime: Runtime,
    new_stack: NewStack<S>,
}

type NewStack<S> = fn(usize) -> Result<S, wasmtime_async::Error>;
type AddToLinker = fn(&mut Linker<WasiP1Ctx>) -> Result<()>;

impl<S: Stack> Ours<S> {
    /// Host functions whose futures need not be `Send`.
    pub(crate) fn new(name: &'static str, module: &Module, new_stack: NewStack<S>) -> Result<Self> {
        Self::with(name, module, new_stack, |linker| p1::add_to_linker(linker, |wasi| wasi))
    }

    fn with(name: &'static str, module: &Module, new_stack: NewStack<S>, add: AddToLinker) -> Result<Self> {
        let mut linker = Linker::new(module.engine());
        add(&mut linker)?;
        Ok(Self { name, module: module.clone(), linker, runtime: runtime()?, new_stack })
    }
}

impl<S: SendStack> Ours<S> {
    pub(crate) fn new_send(name: &'static str, module: &Module, new_stack: NewStack<S>) -> Result<Self> {
        Self::with(name, module, new_stack, |linker| p1::add_to_linker_send(linker, |wasi| wasi))
    }
}

impl<S: Stack + Carries<WasiP1Ctx>> Side for Ours<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn time(&self, guests: Vec<WasiP1Ctx>, function: &str, parameter: i32) -> Result<Duration> {
        let engine: &Engine = self.module.engine();
        let begun = Instant::now();
        let calls = guests.into_iter().map(async |wasi| {
            let mut store = wasmtime_async::Store::new(engine, wasi);
            let mut stack = (self.new_stack)(DEFAULT_STACK_SIZE)?;
            let instance = self.linker.instantiate_on(&mut stack, &mut store, &self.module).await?;
            let function = AsyncFunc::from(instance.get_typed_func::<i32, ()>(&mut store, function)?);
            function.call(&mut stack, &mut store, parameter).await
        });
        for ended in self.runtime.block_on(join_all(calls)) {
            ended?;
        }
        Ok(begun.elapsed())
    }
}
