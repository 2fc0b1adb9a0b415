//! A guest that waits for a file asks for the result before its thread sleeps. This is a program of its own, with one test,
//! because guests do not ask while others wait.

#[expect(dead_code, unused_imports, unused_macros, reason = "it is for other tests, too")]
mod common;
#[expect(dead_code, reason = "it is for other tests, too")]
#[path = "components/guests.rs"]
mod guests;

use common::{NewStack, Wakes, dir, keep_busy, runtime};
use guests::{ENGINE, component};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::thread::available_parallelism;
use wasmtime::{Linker, Module, component};
use wasmtime_async::{FiberStack, Store};
use wasmtime_async_wasi::{command, p1, p2};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx};

/// Looks at its first directory.
const PROGRAM: &str = r#"
    (module
        (import "wasi_snapshot_preview1" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (if (call $fd_filestat_get (i32.const 3) (i32.const 0)) (then unreachable))))"#;

fn wasi(dir: &Path) -> WasiP1Ctx {
    WasiCtx::builder().preopened_dir(dir, "/dir", FsPerms::ReadWrite).unwrap().build_p1()
}

/// How often the program wakes its task when it is polled once, on a thread that has never waited.
fn wakes<F: Future<Output = wasmtime::Result<i32>>>(program: impl FnOnce(WasiP1Ctx) -> F + Send) -> usize {
    let (runtime, dir) = (runtime(), dir());
    let _busy = keep_busy(&runtime);
    let wakes = Arc::new(Wakes::default());
    let poll = || {
        let _entered = runtime.enter();
        assert!(wakes.poll(pin!(program(wasi(dir.path())))).is_pending());
    };
    thread::scope(|scope| scope.spawn(poll).join()).unwrap();
    wakes.count()
}

#[test]
fn guests_ask_for_files() {
    // With one processor, the thread that works on the file would have to wait for those that ask.
    let expected = usize::from(available_parallelism().unwrap().get() > 1);
    let of_module = wakes(async |wasi| {
        let mut linker = Linker::new(&ENGINE);
        p1::add_to_linker(&mut linker, |wasi| wasi)?;
        let module = Module::new(&ENGINE, PROGRAM)?;
        command::run(&mut FiberStack::new_stack(), &mut Store::new(&ENGINE, wasi), &linker, &module).await
    });
    assert_eq!(of_module, expected);
    let of_component = wakes(async |wasi| {
        let mut linker = component::Linker::new(&ENGINE);
        p2::add_to_linker(&mut linker)?;
        let program = component(PROGRAM);
        command::run_component(&mut FiberStack::new_stack(), &mut Store::new(&ENGINE, wasi), &linker, &program).await
    });
    assert_eq!(of_component, expected);
}
