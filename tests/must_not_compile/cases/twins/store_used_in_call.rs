//! It is there again when the call is dropped.

use std::pin::pin;
use std::task::{Context, Waker};
use wasmtime::{Engine, Store};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, yield_now};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    {
        let mut call = pin!(stack.run(&mut store, |_| Ok(yield_now()?)));
        let pending = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(pending.is_pending());
    }
    *store.data_mut() += 1;
    assert_eq!(*store.data(), 2);
}
