//! All stacks carry a closure that is `Send` and has a `Send` result.

use futures::executor::block_on;
use wasmtime::{Engine, Result, component};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, FiberStack, SendFiberStack, Stack, Store, ThreadStack};

async fn instantiate<S, T>(stack: &mut S, store: &mut Store<T>, pre: component::InstancePre<T>) -> Result<()>
where
    S: Stack + Carries<T>,
    T: Send + 'static,
{
    stack.run_send(store, move |store| pre.instantiate(store)).await?;
    Ok(())
}

fn instantiate_on<S: Stack + Carries<i32>>() -> Result<()> {
    let engine = Engine::default();
    let component = component::Component::new(&engine, "(component)")?;
    let pre = component::Linker::new(&engine).instantiate_pre(&component)?;
    let mut stack = S::new(DEFAULT_STACK_SIZE)?;
    block_on(instantiate(&mut stack, &mut Store::new(&engine, 1), pre))
}

pub(crate) fn main() {
    instantiate_on::<FiberStack>().unwrap();
    instantiate_on::<SendFiberStack>().unwrap();
    instantiate_on::<ThreadStack>().unwrap();
}
