//! The future that a closure returns cannot keep the closure's caller.

use std::future::ready;
use wasmtime::{Caller, Engine, Func};
use wasmtime_async::{FuncExt, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    Func::wrap_suspending_send(&mut store, async |caller: Caller<'_, i32>, n: i32| {
        ready(()).await;
        n + *caller.data()
    });
}
