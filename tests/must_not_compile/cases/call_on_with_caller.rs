//! A host function has no store of its own to call on a stack with.

use futures::executor::block_on;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let inner = Func::wrap(&mut store, || 1);
    Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| -> Result<()> {
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
        block_on(inner.call_on(&mut stack, &mut caller, &[], &mut []))
    });
}
