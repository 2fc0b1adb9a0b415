//! The store can hold data that is `Send`, and then a call is `Send`. On a fiber it can hold other data, too.

use futures::executor::block_on;
use std::rc::Rc;
use std::sync::Arc;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store, ThreadStack};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), Arc::new(1));
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let call = nothing.call_on(&mut stack, &mut store, &[], &mut []);
    std::thread::scope(|scope| {
        scope.spawn(|| block_on(call).unwrap());
    });

    let mut store = Store::new(&Engine::default(), Rc::new(1));
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    block_on(nothing.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
}
