//! What a `Send` host function holds while it waits moves from thread to thread.

use std::future::ready;
use std::rc::Rc;
use wasmtime::{Engine, Func};
use wasmtime_async::{FuncExt, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    Func::wrap_suspending_send(&mut store, |n: i32| async move {
        let held = Rc::new(n);
        ready(()).await;
        *held
    });
}
