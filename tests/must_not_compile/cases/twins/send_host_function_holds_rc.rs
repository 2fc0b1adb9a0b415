//! What it holds between two waits does not move.

use futures::executor::block_on;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let f = Func::wrap_suspending_send(&mut store, |n: i32| async move {
        let held = Arc::new(n);
        ready(()).await;
        *Rc::new(*held)
    });
    let f = f.get_async(&store).get1::<i32, i32>().unwrap();
    let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(block_on(f.call(&mut stack, &mut store, (1,))).unwrap(), 1);
}
