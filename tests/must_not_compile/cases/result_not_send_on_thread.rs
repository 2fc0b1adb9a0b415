//! What a closure returns moves to the poller's thread.

use std::rc::Rc;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let _call = stack.run(&mut store, |_| Ok(Rc::new(1)));
}
