//! Data that is not `Send` goes into the store, and the future may hold it.

use futures::executor::block_on;
use futures::future::ready;
use std::rc::Rc;
use wasmtime::{Caller, Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), Rc::new(1));
    let shared = Func::wrap_suspending(&mut store, async |caller: Caller<'_, Rc<i32>>| {
        let shared = Rc::clone(caller.data());
        ready(()).await;
        *shared
    });
    let shared = shared.get_async(&store).get0::<i32>().unwrap();
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    assert_eq!(block_on(shared.call(&mut stack, &mut store, ())).unwrap(), 1);
}
