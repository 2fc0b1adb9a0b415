//! A thread stack runs its calls on another thread.

use std::rc::Rc;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Stack, Store, ThreadStack};

fn main() {
    let mut store = Store::new(&Engine::default(), Rc::new(1));
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let _call = nothing.call_on(&mut stack, &mut store, &[], &mut []);
}
