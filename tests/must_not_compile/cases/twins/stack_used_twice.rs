//! Two calls at the same time on two stacks, and one after the other on one stack.

use futures::executor::block_on;
use futures::join;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

pub(crate) fn main() {
    let engine = Engine::default();
    let (mut store_a, mut store_b) = (Store::new(&engine, ()), Store::new(&engine, ()));
    let mut stack_a = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut stack_b = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let a = stack_a.run(&mut store_a, |_| Ok(1));
    let b = stack_b.run(&mut store_b, |_| Ok(2));
    let (a, b) = block_on(async { join!(a, b) });
    assert_eq!((a.unwrap(), b.unwrap()), (1, 2));
    assert_eq!(block_on(stack_a.run(&mut store_b, |_| Ok(3))).unwrap(), 3);
}
