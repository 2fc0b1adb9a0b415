//! It calls on the current stack, before it waits and afterwards.

use futures::executor::block_on;
use futures::future::ready;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let inner = Func::wrap(&mut store, || 1);
    let outer = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, ()>| -> Result<i32> {
        let inner = inner.typed::<(), i32>(&caller)?;
        let before = inner.call(&mut caller, ())?;
        ready(()).await;
        Ok(before + inner.call(&mut caller, ())?)
    });
    let outer = outer.get_async(&store).get0::<i32>().unwrap();
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(block_on(outer.call(&mut stack, &mut store, ())).unwrap(), 2);
}
