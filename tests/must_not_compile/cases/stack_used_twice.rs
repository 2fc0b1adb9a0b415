//! A stack runs one call at a time.

use futures::executor::block_on;
use futures::join;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

fn main() {
    let engine = Engine::default();
    let (mut store_a, mut store_b) = (Store::new(&engine, ()), Store::new(&engine, ()));
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let a = stack.run(&mut store_a, |_| Ok(1));
    let b = stack.run(&mut store_b, |_| Ok(2));
    block_on(async { join!(a, b) });
}
