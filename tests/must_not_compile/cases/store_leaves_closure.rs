//! A closure on a stack has its store only while it runs.

use wasmtime::{Engine, Store};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack};

fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut kept = None;
    let _call = stack.run(&mut store, |store| {
        kept = Some(store);
        Ok(())
    });
}
