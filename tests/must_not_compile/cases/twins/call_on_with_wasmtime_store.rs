//! This crate's store is made from wasmtime's, and can be converted back.

use futures::executor::block_on;
use wasmtime::{Engine, Func, Store};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut store = wasmtime_async::Store::from(store);
    block_on(nothing.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
    let mut store = Store::from(store);
    nothing.call(&mut store, &[], &mut []).unwrap();
}
