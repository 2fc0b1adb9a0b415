//! The store can hold data that is `Send`, and then a call is `Send`.

use futures::executor::block_on;
use std::cell::Cell;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), Cell::new(1));
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = nothing.call_on(&mut stack, &mut store, &[], &mut []);
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(call).unwrap());
    });
}
