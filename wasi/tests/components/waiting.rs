//! A program that waits leaves its thread to others.

use crate::common::{Wakes, keep_busy, on_each_stack, runtime, stays_pending};
use crate::guests::visitor;
use crate::stacks::{Kind, run};
use futures::executor::block_on;
use futures::future::join_all;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;
use wasmtime_wasi::{FsPerms, WasiCtx};

on_each_stack! { sleepers input_and_output files }

/// All sleep at once, also where files may block.
fn sleepers<S: Kind>() {
    let component = visitor(20_000_000);
    let dir = TempDir::new().unwrap();
    let runtime = runtime();
    let entered = runtime.enter();
    let mut programs: Vec<_> = (0..10)
        .map(|copy| {
            let path = dir.path().join(copy.to_string());
            fs::create_dir(&path).unwrap();
            let mut wasi = WasiCtx::builder();
            wasi.allow_blocking_current_thread(true).preopened_dir(path, "/dir", FsPerms::ReadWrite).unwrap();
            Box::pin(run::<S>(&component, wasi.stdin(MemoryInputPipe::new("x")).build_p1()))
        })
        .collect();
    for program in &mut programs {
        assert!(Arc::new(Wakes::default()).poll(program.as_mut()).is_pending());
    }
    drop(entered);
    for ended in runtime.block_on(join_all(programs)) {
        assert_eq!(ended.unwrap(), 1);
    }
}

/// A program waits for the test to write, and the test for the program. Another executor than tokio's polls.
fn input_and_output<S: Kind>() {
    let component = visitor(1);
    let dir = TempDir::new().unwrap();
    let (input, mut input_end) = tokio::io::duplex(1);
    let (output, mut output_end) = tokio::io::duplex(1);
    let program = with_ambient_tokio_runtime(|| {
        let mut wasi = WasiCtx::builder();
        wasi.preopened_dir(dir.path(), "/dir", FsPerms::ReadWrite).unwrap();
        wasi.stdin(AsyncStdinStream::new(input)).stdout(AsyncStdoutStream::new(1, output));
        run::<S>(&component, wasi.build_p1())
    });
    let file = dir.path().join("file");
    let conversation = async {
        // It has come to read when the file is there.
        while fs::read(&file).unwrap_or_default() != b"before " {
            futures_timer::Delay::new(std::time::Duration::from_millis(1)).await;
        }
        input_end.write_all(b"x").await.unwrap();
        let mut printed = String::new();
        output_end.read_to_string(&mut printed).await.unwrap();
        printed
    };
    let (ended, printed) = block_on(futures::future::join(program, conversation));
    assert_eq!((ended.unwrap(), printed.as_str()), (1, "before x"));
}

fn files<S: Kind>() {
    let component = visitor(0);
    let dir = TempDir::new().unwrap();
    let runtime = runtime();
    let mut wasi = WasiCtx::builder();
    wasi.preopened_dir(dir.path(), "/dir", FsPerms::ReadWrite).unwrap().stdin(MemoryInputPipe::new("x"));
    let busy = keep_busy(&runtime);
    let mut program = Box::pin(run::<S>(&component, wasi.build_p1()));
    // It cannot get beyond the first operation on a file.
    runtime.block_on(stays_pending(program.as_mut()));
    drop(busy);
    assert_eq!(runtime.block_on(program).unwrap(), 1);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"before x");
}
