//! Calls on this stack are `Send`, so what they hold must be.

use std::rc::Rc;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, Stack, Store};

fn main() {
    let mut store = Store::new(&Engine::default(), Rc::new(1));
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let _call = nothing.call_on(&mut stack, &mut store, &[], &mut []);
}
