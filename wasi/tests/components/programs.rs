//! Programs do what they do on wasmtime-wasi's own synchronous functions, and end with an exit code.

use crate::common::{Wakes, on_each_stack};
use crate::guests::{ENGINE, chatterbox, component, visitor};
use crate::stacks::{Kind, run};
use futures::executor::block_on;
use std::fs;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tempfile::TempDir;
use wasmtime::component::{Component, Linker};
use wasmtime::{Trap, error::Context as _};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};
use wasmtime_async_wasi::p2::{self, View};
use wasmtime_async_wasi::{Error, HOST_CALLS_IN_A_ROW, command};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxView};

on_each_stack! { same_as_upstream exit_codes_and_traps what_is_no_program a_busy_program_gives_way }

/// A directory, what is printed, and a context with both.
fn surroundings(may_block: bool) -> (TempDir, MemoryOutputPipe, WasiP1Ctx) {
    let (dir, output) = (TempDir::new().unwrap(), MemoryOutputPipe::new(1 << 20));
    let mut wasi = WasiCtx::builder();
    wasi.allow_blocking_current_thread(may_block).preopened_dir(dir.path(), "/dir", FsPerms::ReadWrite).unwrap();
    let wasi = wasi.stdin(MemoryInputPipe::new("input")).stdout(output.clone()).build_p1();
    (dir, output, wasi)
}

/// What a program has left behind: its exit code, what it printed, and the file.
type Left = (i32, Vec<u8>, Vec<u8>);

fn upstream(component: &Component, may_block: bool) -> Left {
    let (dir, output, wasi) = surroundings(may_block);
    let mut linker = Linker::new(&ENGINE);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
    let mut store = wasmtime::Store::new(&ENGINE, wasi);
    let program = wasmtime_wasi::p2::bindings::sync::Command::instantiate(&mut store, component, &linker).unwrap();
    let code = match program.wasi_cli_run().call_run(&mut store) {
        Ok(ended) => ended.map_or(1, |()| 0),
        Err(error) => error.downcast_ref::<I32Exit>().unwrap().0,
    };
    (code, output.contents().to_vec(), fs::read(dir.path().join("file")).unwrap())
}

fn same_as_upstream<S: Kind>() {
    let component = visitor(1_000_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for may_block in [false, true] {
        let expected = upstream(&component, may_block);
        assert_eq!(expected, (1, b"before input".into(), b"before input".into()));
        for in_tokio in [false, true] {
            let (dir, output, wasi) = surroundings(may_block);
            let program = run::<S>(&component, wasi);
            let code = if in_tokio { runtime.block_on(program) } else { block_on(program) }.unwrap();
            assert_eq!((code, output.contents().to_vec(), fs::read(dir.path().join("file")).unwrap()), expected);
        }
    }
}

fn exit_codes_and_traps<S: Kind>() {
    let exit = |body: &str| {
        let module = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") {body}))"#
        );
        block_on(run::<S>(&component(&module), WasiCtx::builder().build_p1()))
    };
    assert_eq!(exit("").unwrap(), 0);
    assert_eq!(exit("(call $exit (i32.const 0))").unwrap(), 0);
    assert_eq!(exit("(call $exit (i32.const 1))").unwrap(), 1);
    let error = exit("unreachable").unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
}

fn what_is_no_program<S: Kind>() {
    let run = |text: &str| {
        let component = Component::new(&ENGINE, text).context("the test's own").unwrap();
        block_on(run::<S>(&component, WasiCtx::builder().build_p1())).unwrap_err()
    };
    let error = run("(component)");
    assert!(matches!(error.downcast_ref(), Some(Error::NotACommand)), "{error:?}");
    let error = run(r#"(component (import "elsewhere" (func)))"#);
    assert!(format!("{error:?}").contains("elsewhere"), "{error:?}");
}

fn a_busy_program_gives_way<S: Kind>() {
    let chatterbox = chatterbox();
    let output = MemoryOutputPipe::new(1 << 20);
    let mut program = pin!(run::<S>(&chatterbox, WasiCtx::builder().stdout(output.clone()).build_p1()));
    let wakes = Arc::new(Wakes::default());
    let mut written = Vec::new();
    for turn in 1..=4 {
        assert!(wakes.poll(program.as_mut()).is_pending());
        assert_eq!(wakes.count(), turn, "woken");
        written.push(output.contents().len());
    }
    // The first turn may have begun before, and a `ThreadStack` has turns of its own besides.
    let most = usize::try_from(HOST_CALLS_IN_A_ROW).unwrap();
    assert!(written.windows(2).all(|turn| turn[1] - turn[0] <= most), "{written:?}");
    assert!(written[3] - written[0] >= most, "{written:?}");
}

/// Data that is not `Send`.
struct Data {
    wasi: WasiP1Ctx,
    seen: Rc<()>,
}

impl View for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        assert_eq!(Rc::strong_count(&self.seen), 2);
        self.wasi.ctx()
    }
}

#[test]
fn data_may_be_anything() {
    let (_dir, output, wasi) = surroundings(false);
    let mut linker = Linker::new(&ENGINE);
    p2::add_to_linker(&mut linker).unwrap();
    let seen = Rc::new(());
    let mut store = Store::new(&ENGINE, Data { wasi, seen: Rc::clone(&seen) });
    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE).unwrap();
    let component = visitor(1);
    let program = command::run_component(&mut stack, &mut store, &linker, &component);
    assert_eq!(block_on(program).unwrap(), 1);
    assert_eq!(output.contents(), "before input");
}
