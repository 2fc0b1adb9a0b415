//! Programs as components: modules by the adapter that makes functions of the old WASI of those of the new.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasmtime::Engine;
use wasmtime::component::Component;
use wit_component::ComponentEncoder;

/// For all tests.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

/// A component of a module's text, which is a program. It is compiled once for all tests.
pub(crate) fn component(module: &str) -> Component {
    static COMPONENTS: LazyLock<Mutex<HashMap<String, Component>>> = LazyLock::new(Mutex::default);
    COMPONENTS.lock().unwrap().entry(module.into()).or_insert_with(|| compile(module)).clone()
}

fn compile(module: &str) -> Component {
    let module = wat::parse_str(module).unwrap();
    let component = ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        .unwrap()
        .encode()
        .unwrap();
    Component::from_binary(&ENGINE, &component).unwrap()
}

/// Sleeps for so long, writes what comes on standard input to the file `file` in its first directory, after `before `, and prints
/// all of the file. Fails at the end.
pub(crate) fn visitor(sleep: u64) -> Component {
    component(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_pread" (func $fd_pread (param i32 i32 i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "filebefore ")
            (func $must (param $errno i32) (if (local.get $errno) (then unreachable)))
            ;; Writes bytes to a descriptor.
            (func $write (param $fd i32) (param $at i32) (param $len i32)
                (i32.store (i32.const 32) (local.get $at))
                (i32.store (i32.const 36) (local.get $len))
                (call $must (call $fd_write (local.get $fd) (i32.const 32) (i32.const 1) (i32.const 40))))
            (func (export "_start")
                (local $fd i32)
                (i64.store (i32.const 112) (i64.const 0)) ;; a clock
                (i32.store (i32.const 120) (i32.const 1)) ;; the monotonic one
                (i64.store (i32.const 128) (i64.const {sleep}))
                (call $must (call $poll_oneoff (i32.const 104) (i32.const 160) (i32.const 1) (i32.const 200)))
                (call $must (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1)
                    (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 204)))
                (local.set $fd (i32.load (i32.const 204)))
                (call $write (local.get $fd) (i32.const 4) (i32.const 7))
                (i32.store (i32.const 32) (i32.const 1000))
                (i32.store (i32.const 36) (i32.const 100))
                (call $must (call $fd_read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 208)))
                (call $write (local.get $fd) (i32.const 1000) (i32.load (i32.const 208)))
                (call $must (call $fd_sync (local.get $fd)))
                (call $must (call $fd_filestat_get (local.get $fd) (i32.const 256)))
                (call $must (call $fd_readdir (i32.const 3) (i32.const 4000) (i32.const 500) (i64.const 0) (i32.const 212)))
                ;; As much as the file is long.
                (i32.store (i32.const 32) (i32.const 2000))
                (i32.store (i32.const 36) (i32.load (i32.const 288)))
                (call $must (call $fd_pread (local.get $fd) (i32.const 32) (i32.const 1) (i64.const 0) (i32.const 216)))
                (call $must (call $fd_close (local.get $fd)))
                (call $write (i32.const 1) (i32.const 2000) (i32.load (i32.const 216)))
                (call $proc_exit (i32.const 3))))"#
    ))
}

/// Writes for ever, one byte after the other.
pub(crate) fn chatterbox() -> Component {
    component(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 100))
                (i32.store (i32.const 4) (i32.const 1))
                (loop
                    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
                    (br 0))))"#,
    )
}
