//! The instance is made on the current stack.

use futures::executor::block_on;
use wasmtime::{Caller, Engine, Func, Linker, Module, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

pub(crate) fn main() {
    let engine = Engine::default();
    let (linker, module) = (Linker::new(&engine), Module::new(&engine, "(module)").unwrap());
    let mut store = Store::new(&engine, ());
    let outer = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| -> Result<()> {
        linker.instantiate(&mut caller, &module)?;
        Ok(())
    });
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    block_on(outer.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
}
