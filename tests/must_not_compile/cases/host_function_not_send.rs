//! A host function may be called wherever its store goes, so everything that it holds must be `Send`.

use std::rc::Rc;
use wasmtime::{Engine, Func};
use wasmtime_async::{FuncExt, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), ());
    let shared = Rc::new(1);
    Func::wrap_suspending(&mut store, async move || *shared);
}
