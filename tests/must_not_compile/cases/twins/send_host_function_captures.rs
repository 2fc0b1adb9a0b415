//! Rust can ask this for the futures that a closure returns. Each has a copy of what it needs.

use futures::executor::block_on;
use std::future::ready;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let step = 1;
    let f = Func::wrap_suspending_send(&mut store, move |n: i32| async move {
        ready(()).await;
        n + step
    });
    let f = f.get_async(&store).get1::<i32, i32>().unwrap();
    let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(block_on(f.call(&mut stack, &mut store, (1,))).unwrap(), 2);
}
