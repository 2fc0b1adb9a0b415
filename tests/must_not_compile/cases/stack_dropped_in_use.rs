//! A stack lives as long as the call on it.

use futures::executor::block_on;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = stack.run(&mut store, |_| Ok(1));
    drop(stack);
    block_on(call).unwrap();
}
