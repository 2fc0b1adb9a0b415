//! A closure on a stack only has its store while it runs.

use std::sync::Mutex;
use wasmtime::{Engine, StoreContextMut};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};

static KEPT: Mutex<Option<StoreContextMut<'static, i32>>> = Mutex::new(None);

fn main() {
    let mut store = Store::new(&Engine::default(), 1);
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let _call = stack.run(&mut store, |store| {
        *KEPT.lock().unwrap() = Some(store);
        Ok(())
    });
}
