//! The calls of a `SendStack` are `Send`.

use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use wasmtime::{Engine, Func, Result};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, FuncExt, SendFiberStack, SendStack, Store, ThreadStack};

fn spawn<S, T>(mut stack: S, mut store: Store<T>, func: Func) -> JoinHandle<Result<()>>
where
    S: SendStack + Carries<T> + 'static,
    T: Send + 'static,
{
    tokio::spawn(async move { func.call_on(&mut stack, &mut store, &[], &mut []).await })
}

fn spawn_on<S: SendStack + Carries<i32> + 'static>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), 1);
    let nothing = Func::wrap(&mut store, || ());
    let stack = S::new(DEFAULT_STACK_SIZE)?;
    let runtime = Builder::new_multi_thread().worker_threads(1).build()?;
    runtime.block_on(async { spawn(stack, store, nothing).await })?
}

pub(crate) fn main() {
    spawn_on::<SendFiberStack>().unwrap();
    spawn_on::<ThreadStack>().unwrap();
}
