//! Programs: modules that begin at `_start`, and components that export `wasi:cli/run`. They end with an exit code.

use crate::{Error, Result};
use wasmtime::component::{self, Component};
use wasmtime::{Linker, Module};
use wasmtime_async::component::{AsyncFunc as ComponentFunc, InstancePreExt};
use wasmtime_async::{AsyncFunc, Carries, LinkerExt, Stack, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::{Command, CommandPre};

/// Runs a program on `stack` to its end: instantiates the module, and calls `_start`. Returns the exit code, which is 0 for
/// success.
///
/// The linker has the functions of [`p1::add_to_linker`](crate::p1::add_to_linker) or a similar function, and whatever else
/// the program imports.
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
/// If the module or the linker belongs to another engine than the store. `poll` propagates a panic of a host function.
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
    or_exit(start(stack, store, linker, module).await.map(|()| 0))
}

/// Runs a component on `stack` to its end: instantiates it, and calls `wasi:cli/run`. Returns the exit code. It is 0 for
/// success, and 1 for a failure without a code.
///
/// The linker has the functions of [`p2::add_to_linker`](crate::p2::add_to_linker), and whatever else the program imports.
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
/// As [`run`].
///
/// # Cancel safety
///
/// As [`run`].
///
/// # Examples
///
/// ```
/// use wasmtime::component::{Component, Linker, ResourceTable};
/// use wasmtime::Engine;
/// use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};
/// use wasmtime_async_wasi::p2::{self, View};
/// use wasmtime_async_wasi::command;
/// use wasmtime_wasi::{WasiCtx, WasiCtxView};
///
/// struct Data {
///     wasi: WasiCtx,
///     table: ResourceTable,
/// }
///
/// impl View for Data {
///     fn ctx(&mut self) -> WasiCtxView<'_> {
///         WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
///     }
/// }
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::new(&engine);
/// p2::add_to_linker(&mut linker)?;
/// # let program = r#"(component
/// #     (core module $program (func (export "run") (result i32) (i32.const 0)))
/// #     (core instance $program (instantiate $program))
/// #     (func $run (result (result)) (canon lift (core func $program "run")))
/// #     (instance $exports (export "run" (func $run)))
/// #     (export "wasi:cli/run@0.2.0" (instance $exports)))"#;
/// let component = Component::new(&engine, program)?;
///
/// let wasi = WasiCtx::builder().arg("program").inherit_stdout().build();
/// let mut store = Store::new(&engine, Data { wasi, table: ResourceTable::new() });
/// let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
/// let program = command::run_component(&mut stack, &mut store, &linker, &component);
/// assert_eq!(futures::executor::block_on(program)?, 0);
/// # Ok(())
/// # }
/// ```
pub async fn run_component<S, T>(
    stack: &mut S,
    store: &mut Store<T>,
    linker: &component::Linker<T>,
    component: &Component,
) -> Result<i32>
where
    S: Stack + Carries<T>,
    T: 'static,
{
    let program = linker.instantiate_pre(component)?;
    let program = CommandPre::new(program).map_err(|_| Error::NotACommand)?;
    or_exit(start_component(stack, store, &program).await)
}

async fn start_component<S, T>(stack: &mut S, store: &mut Store<T>, program: &CommandPre<T>) -> Result<i32>
where
    S: Stack + Carries<T>,
    T: 'static,
{
    let instance = program.instance_pre().instantiate_on(stack, store).await?;
    let run = Command::new(&mut *store, &instance)?.wasi_cli_run().func_run();
    let (ended,) = ComponentFunc::from(run).call(stack, store, ()).await?;
    Ok(ended.map_or(1, |()| 0))
}

/// The exit code of a program, which may have ended by asking for one.
fn or_exit(ended: Result<i32>) -> Result<i32> {
    ended.or_else(|error| match error.downcast_ref::<I32Exit>() {
        Some(exit) => Ok(exit.0),
        None => Err(error),
    })
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
