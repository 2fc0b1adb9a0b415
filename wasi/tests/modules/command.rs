//! Programs: how they end, and what is none.

use crate::common::on_each_stack;
use crate::guest::Version;
use crate::stacks::Kind;
use futures::executor::block_on;
use wasmtime::{Engine, Module, Result, Trap};
use wasmtime_async::{SendFiberStack, SendStack, Store, ThreadStack};
use wasmtime_async_wasi::{Error, command};
use wasmtime_wasi::WasiCtx;

on_each_stack! { exit_codes traps what_is_no_program without_a_memory }

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))"#;

fn run<S: Kind>(rest: &str) -> Result<i32> {
    let engine = Engine::default();
    let module = Module::new(&engine, format!("(module {IMPORTS} {rest})"))?;
    let linker = S::linker(&engine, Version::P1);
    let mut store = Store::new(&engine, WasiCtx::builder().build_p1());
    let mut stack = S::new_stack();
    block_on(command::run(&mut stack, &mut store, &linker, &module))
}

fn program<S: Kind>(body: &str) -> Result<i32> {
    run::<S>(&format!(r#"(memory (export "memory") 1) (func (export "_start") (drop (call $yield)) {body})"#))
}

fn exit_codes<S: Kind>() {
    assert_eq!(program::<S>("").unwrap(), 0);
    for code in [0, 1, 3, 125] {
        assert_eq!(program::<S>(&format!("(call $exit (i32.const {code}))")).unwrap(), code);
    }
    // In a start function, too.
    let early = r#"
        (memory (export "memory") 1)
        (func $early (drop (call $yield)) (call $exit (i32.const 5)))
        (start $early)
        (func (export "_start"))"#;
    assert_eq!(run::<S>(early).unwrap(), 5);
}

fn traps<S: Kind>() {
    let error = program::<S>("unreachable").unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached));
    let error = program::<S>("(call $exit (i32.const 126))").unwrap_err();
    assert!(error.root_cause().to_string().contains("exit status"), "{error:?}");
}

fn what_is_no_program<S: Kind>() {
    let library = r#"(memory (export "memory") 1) (func (export "_initialize"))"#;
    for rest in [library, r#"(func (export "_start") (param i32))"#, r#"(memory (export "_start") 1)"#] {
        let error = run::<S>(rest).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::NotACommand)), "{error:?}");
    }
    let error = run::<S>(r#"(import "elsewhere" "f" (func)) (func (export "_start"))"#).unwrap_err();
    assert!(error.to_string().contains("elsewhere::f"), "{error:?}");
}

fn without_a_memory<S: Kind>() {
    for rest in [
        r#"(func (export "_start") (drop (call $yield)))"#,
        r#"(func (export "_start") (drop (call $yield))) (func (export "memory"))"#,
        r#"(func (export "_start") (call $exit (i32.const 0)))"#,
    ] {
        let error = run::<S>(rest).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::NoMemory)), "{error:?}");
    }
}

/// Goes from thread to thread.
async fn spawned<S: Kind + SendStack + 'static>()
where
    S::Runner: Send,
{
    let engine = Engine::default();
    let body =
        r#"(memory (export "memory") 1) (func (export "_start") (drop (call $yield)) (call $exit (i32.const 7)))"#;
    let module = Module::new(&engine, format!("(module {IMPORTS} {body})")).unwrap();
    let mut store = Store::new(&engine, WasiCtx::builder().build_p1());
    let linker = S::linker(&engine, Version::P1);
    let mut stack = S::new_stack();
    let program = tokio::spawn(async move { command::run(&mut stack, &mut store, &linker, &module).await });
    assert_eq!(program.await.unwrap().unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_on_a_send_fiber_stack() {
    spawned::<SendFiberStack>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_on_a_thread_stack() {
    spawned::<ThreadStack>().await;
}
