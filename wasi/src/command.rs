//! Programs: modules that begin at `_start` and end with an exit code.

use crate::{Error, Result};
use wasmtime::{Linker, Module};
use wasmtime_async::{AsyncFunc, Carries, LinkerExt, Stack, Store};
use wasmtime_wasi::I32Exit;

/// Runs a program on `stack` to its end: instantiates the module, and calls `_start`. The result is the exit code, 0 for
/// success.
///
/// The linker's functions are those of [`p1::add_to_linker`](crate::p1::add_to_linker) and its like, and whatever else the
/// program imports.
///
/// # Errors
///
/// - whatever makes the program trap;
/// - an import that the linker does not have, found before anything runs;
/// - [`Error::NotACommand`], found before anything runs;
/// - those of [`Stack::run`].
///
/// # Panics
///
/// If the module or the linker belongs to another engine than the store. A panic of a host function goes on in `poll`.
///
/// # Cancel safety
///
/// When the future is dropped, the program is cancelled wherever it waits: see [`Call`](wasmtime_async::Call). Files and sockets
/// that it has opened are closed with the context in the store's data.
///
/// # Examples
///
/// See [`p1::add_to_linker`](crate::p1::add_to_linker).
pub async fn run<S, T>(stack: &mut S, store: &mut Store<T>, linker: &Linker<T>, module: &Module) -> Result<i32>
where
    S: Stack + Carries<T>,
    T: 'static,
{
    if !is_command(module) {
        return Err(Error::NotACommand.into());
    }
    match start(stack, store, linker, module).await {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(error),
        },
    }
}

async fn start<S, T>(stack: &mut S, store: &mut Store<T>, linker: &Linker<T>, module: &Module) -> Result<()>
where
    S: Stack + Carries<T>,
    T: 'static,
{
    let instance = linker.instantiate_on(stack, store, module).await?;
    let start = AsyncFunc::from(instance.get_typed_func::<(), ()>(&mut *store, "_start")?);
    start.call(stack, store, ()).await
}

fn is_command(module: &Module) -> bool {
    let start = module.get_export("_start");
    start.as_ref().and_then(|start| start.func()).is_some_and(|start| start.params().len() + start.results().len() == 0)
}
