//! An async host function has no store of its own, so a typed call does not work either.

use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let inner = Func::wrap(&mut store, || 1);
    Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, ()>| -> Result<i32> {
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
        let inner = AsyncFunc::from(inner.typed::<(), i32>(&caller)?);
        inner.call(&mut stack, &mut caller, ()).await
    });
}
