//! A task with a call on a `SendFiberStack` can, and a `LocalSet` takes either.

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use wasmtime::{Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, SendFiberStack, Stack, Store};

pub(crate) fn main() {
    let spawned = async {
        let task = tokio::spawn(async {
            let mut store = Store::new(&Engine::default(), ());
            let nothing = Func::wrap(&mut store, || ());
            let mut stack = SendFiberStack::new(DEFAULT_STACK_SIZE).unwrap();
            nothing.call_on(&mut stack, &mut store, &[], &mut []).await.unwrap();
        });
        task.await.unwrap();
    };
    Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(spawned);

    let spawned = async {
        let task = tokio::task::spawn_local(async {
            let mut store = Store::new(&Engine::default(), ());
            let nothing = Func::wrap(&mut store, || ());
            let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
            nothing.call_on(&mut stack, &mut store, &[], &mut []).await.unwrap();
        });
        task.await.unwrap();
    };
    LocalSet::new().block_on(&Builder::new_current_thread().build().unwrap(), spawned);
}
