//! An async host function only has its caller while it runs.

use std::sync::Mutex;
use wasmtime::{Caller, Engine, Func};
use wasmtime_async::{FuncExt, Store};

static KEPT: Mutex<Option<Caller<'static, i32>>> = Mutex::new(None);

fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    Func::wrap_suspending(&mut store, async |caller: Caller<'_, i32>| {
        *KEPT.lock().unwrap() = Some(caller);
    });
}
