//! A closure has no name, so generic code cannot ask for a stack that carries it.

use wasmtime::{Result, component};
use wasmtime_async::{Carries, Stack, Store};

async fn instantiate<S, T>(stack: &mut S, store: &mut Store<T>, pre: component::InstancePre<T>) -> Result<()>
where
    S: Stack + Carries<T>,
    T: Send + 'static,
{
    stack.run(store, move |store| pre.instantiate(store)).await?;
    Ok(())
}

fn main() {}
