//! A result that is `Send` can move.

use futures::executor::block_on;
use std::sync::Arc;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = stack.run(&mut store, |_| Ok(Arc::new(1)));
    assert_eq!(*block_on(call).unwrap(), 1);
}
