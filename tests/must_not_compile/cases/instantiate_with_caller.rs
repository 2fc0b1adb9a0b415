//! A caller cannot be the store of an instance that is made on a stack.

use futures::executor::block_on;
use wasmtime::{Caller, Engine, Func, Linker, Module, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, LinkerExt, Stack, Store};

fn main() {
    let engine = Engine::default();
    let (linker, module) = (Linker::new(&engine), Module::new(&engine, "(module)").unwrap());
    let mut store = Store::new(&engine, ());
    Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| -> Result<()> {
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
        block_on(linker.instantiate_on(&mut stack, &mut caller, &module))?;
        Ok(())
    });
}
