//! A task with a call on a fiber stack cannot run on a multi-threaded runtime.

use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Stack, Store};

fn main() {
    tokio::spawn(async {
        let mut store = Store::new(&Engine::default(), ());
        let nothing = Func::wrap(&mut store, || ());
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
        nothing.call_on(&mut stack, &mut store, &[], &mut []).await.unwrap();
    });
}
