//! A closure can return what it takes out of its store.

use futures::executor::block_on;
use std::sync::Mutex;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

static KEPT: Mutex<Option<i32>> = Mutex::new(None);

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = stack.run(&mut store, |store| {
        *KEPT.lock().unwrap() = Some(*store.data());
        Ok(())
    });
    block_on(call).unwrap();
    assert_eq!(*KEPT.lock().unwrap(), Some(1));
}
