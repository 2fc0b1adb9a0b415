//! The result of a nested call can be kept.

use futures::executor::block_on;
use std::sync::Mutex;
use wasmtime::{Caller, Engine, Func, Val};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

static KEPT: Mutex<Option<i32>> = Mutex::new(None);

pub(crate) fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let double = Func::wrap(&mut store, |n: i32| n * 2).get_async(&store).typed::<i32, i32>().unwrap();
    let keeps = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, ()>, (n,): (i32,)| {
        let double = double.clone();
        Box::new(async move {
            let result = double.call_within(&mut caller, n).await.unwrap();
            *KEPT.lock().unwrap() = Some(result);
        })
    });
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    block_on(keeps.call_on(&mut stack, &mut store, &[Val::I32(21)], &mut [])).unwrap();
    assert_eq!(*KEPT.lock().unwrap(), Some(42));
}
