//! What a pool returns is not a stack, but contains one.

use futures::executor::block_on;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Pool, Store};

fn main() {
    let pool = Pool::<FiberStack>::new(1, DEFAULT_STACK_SIZE).unwrap();
    let mut pooled = block_on(pool.get()).unwrap();
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let _call = nothing.call_on(&mut pooled, &mut store, &[], &mut []);
}
