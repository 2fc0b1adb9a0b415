//! A stack that is `Send` may have calls that are not.

use tokio::task::JoinHandle;
use wasmtime::{Func, Result};
use wasmtime_async::{Carries, FuncExt, Stack, Store};

fn spawn<S, T>(mut stack: S, mut store: Store<T>, func: Func) -> JoinHandle<Result<()>>
where
    S: Stack + Carries<T> + Send + 'static,
    T: Send + 'static,
{
    tokio::spawn(async move { func.call_on(&mut stack, &mut store, &[], &mut []).await })
}

fn main() {}
