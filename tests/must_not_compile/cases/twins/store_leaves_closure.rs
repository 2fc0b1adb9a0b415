//! It can leave what it takes from its store.

use futures::executor::block_on;
use wasmtime::{Engine, Store};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut kept = None;
    let call = stack.run(&mut store, |store| {
        kept = Some(*store.data());
        Ok(())
    });
    block_on(call).unwrap();
    assert_eq!(kept, Some(1));
}
