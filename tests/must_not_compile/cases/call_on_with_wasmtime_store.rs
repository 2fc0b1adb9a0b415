//! wasmtime's own store cannot tell that a call in it was forgotten.

use futures::executor::block_on;
use wasmtime::{Engine, Func, Store};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    block_on(nothing.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
}
