//! A call on a fiber stack stays on its thread, whatever its store holds.

use futures::executor::block_on;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = stack.run(&mut store, |_| Ok(1));
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(call));
    });
}
