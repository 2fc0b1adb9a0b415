//! It calls on the current stack.

use futures::executor::block_on;
use wasmtime::{Caller, Engine, Func, Result, Val};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let inner = Func::wrap(&mut store, || 1);
    let outer = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| -> Result<i32> {
        let mut results = [Val::I32(0)];
        inner.call(&mut caller, &[], &mut results)?;
        Ok(results[0].unwrap_i32())
    });
    let outer = outer.get_async(&store).get0::<i32>().unwrap();
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(block_on(outer.call(&mut stack, &mut store, ())).unwrap(), 1);
}
