//! An idle fiber stack may move to another thread, and so may a store.

use futures::executor::block_on;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let call = stack.run(&mut store, |_| Ok(1));
            assert_eq!(block_on(call).unwrap(), 1);
        });
    });
}
