//! The future has what the closure took out of the caller. A boxed future has the caller itself.

use futures::executor::block_on;
use std::future::ready;
use wasmtime::{Caller, Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, Stack, Store};

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let takes = Func::wrap_suspending_send(&mut store, |caller: Caller<'_, i32>, n: i32| {
        let data = *caller.data();
        async move {
            ready(()).await;
            n + data
        }
    });
    let keeps = Func::wrap_suspending_boxed(&mut store, |caller: Caller<'_, i32>, (n,): (i32,)| {
        Box::new(async move {
            ready(()).await;
            n + *caller.data()
        })
    });
    let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    for f in [takes, keeps] {
        let f = f.get_async(&store).get1::<i32, i32>().unwrap();
        assert_eq!(block_on(f.call(&mut stack, &mut store, (1,))).unwrap(), 2);
    }
}
