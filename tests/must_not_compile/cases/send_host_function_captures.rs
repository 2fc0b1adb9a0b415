//! The futures of an async closure borrow from it, and Rust cannot ask whether they are `Send`.

use std::future::ready;
use wasmtime::{Engine, Func};
use wasmtime_async::{FuncExt, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let step = 1;
    Func::wrap_suspending_send(&mut store, async move |n: i32| {
        ready(()).await;
        n + step
    });
}
