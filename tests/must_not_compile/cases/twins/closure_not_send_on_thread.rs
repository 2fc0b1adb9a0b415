//! A closure can make and use a value that is not `Send`.

use futures::executor::block_on;
use std::rc::Rc;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack, yield_now};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let held = 1;
    let call = stack.run(&mut store, move |_| {
        let counted = Rc::new(held);
        yield_now()?;
        Ok(*counted)
    });
    assert_eq!(block_on(call).unwrap(), 1);
}
