//! Nothing else can use the store while its call is pending.

use std::future::pending;
use std::pin::pin;
use std::task::{Context, Waker};
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let wait = Func::wrap_suspending(&mut store, async || pending::<()>().await);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut call = pin!(wait.call_on(&mut stack, &mut store, &[], &mut []));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    *store.data_mut() += 1;
    let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}
