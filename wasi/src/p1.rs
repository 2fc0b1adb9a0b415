//! WASI for modules: version 1, `wasi_snapshot_preview1`, which programs for the target `wasm32-wasip1` import.

use crate::Result;
use crate::functions::{define, define_send, for_each_function};
use crate::sleep::define_sleep;
use std::future::Future;
use std::time::Duration;
use wasmtime::{Caller, Linker};
use wasmtime_async::LinkerExt;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1};
use wiggle::{GuestMemory, GuestPtr};

define_sleep!(wasmtime_wasi::p1::types);

/// Defines all functions of `wasi_snapshot_preview1`, for a [`FiberStack`](wasmtime_async::FiberStack) or a `ThreadStack`. The
/// store's data may be anything.
///
/// `get` finds the context in the store's data. It is called in each host call.
///
/// If a tokio runtime polls the program, it must have time and I/O enabled
/// ([`enable_all`](tokio::runtime::Builder::enable_all)). Otherwise, the first function that sleeps panics.
///
/// # Errors
///
/// If one of the names is taken, and the linker does not allow shadowing.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use wasmtime::{Engine, Linker, Module};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};
/// use wasmtime_async_wasi::{command, p1};
/// use wasmtime_wasi::WasiCtx;
/// use wasmtime_wasi::p1::WasiP1Ctx;
///
/// struct Data {
///     wasi: WasiP1Ctx,
///     not_send: Rc<()>,
/// }
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::new(&engine);
/// p1::add_to_linker(&mut linker, |data: &mut Data| &mut data.wasi)?;
///
/// let module = Module::new(
///     &engine,
///     r#"(module
///         (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
///         (memory (export "memory") 1)
///         (func (export "_start") (call $exit (i32.const 3))))"#,
/// )?;
/// let wasi = WasiCtx::builder().arg("program").inherit_stdout().build_p1();
/// let mut store = Store::new(&engine, Data { wasi, not_send: Rc::new(()) });
/// let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
/// let program = command::run(&mut stack, &mut store, &linker, &module);
/// assert_eq!(futures::executor::block_on(program)?, 3);
/// # Ok(())
/// # }
/// ```
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
) -> Result<()> {
    for_each_function!(define linker, get, wasi_snapshot_preview1:);
    define!(linker, get, wasi_snapshot_preview1: now sock_accept(a: i32, b: i32, c: i32) -> i32;);
    Ok(())
}

/// Defines all functions of `wasi_snapshot_preview1`, for every stack, including
/// [`SendFiberStack`](wasmtime_async::SendFiberStack). The store's data must be `Send`, and each host call allocates a box.
///
/// `get` finds the context in the store's data. It is called in each host call.
///
/// # Errors
///
/// As for [`add_to_linker`].
pub fn add_to_linker_send<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
) -> Result<()> {
    for_each_function!(define_send linker, get, wasi_snapshot_preview1:);
    define_send!(linker, get, wasi_snapshot_preview1: now sock_accept(a: i32, b: i32, c: i32) -> i32;);
    Ok(())
}
