//! A call that is dropped stops its program right where it waits, and what the program has open is closed.

use crate::common::{keep_busy, on_each_stack, open_in, poll_and_drop, runtime, stays_pending};
use crate::guests::visitor;
use crate::stacks::{Kind, run};
use std::fs;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::{FsPerms, WasiCtx};

on_each_stack! { asleep at_a_file at_standard_input }

/// Runs a program until it waits for what never comes, and drops it. Returns what is in its file, if there is one.
fn dropped<S: Kind>(sleep: u64, with_files: bool) -> Option<Vec<u8>> {
    let component = visitor(sleep);
    let dir = TempDir::new().unwrap();
    let runtime = runtime();
    let (input, mut input_end) = tokio::io::duplex(10);
    let (output, mut output_end) = tokio::io::duplex(10);
    let program = {
        let _entered = runtime.enter();
        let mut wasi = WasiCtx::builder();
        wasi.allow_blocking_current_thread(with_files);
        wasi.preopened_dir(dir.path(), "/dir", FsPerms::ReadWrite).unwrap();
        wasi.stdin(AsyncStdinStream::new(input)).stdout(AsyncStdoutStream::new(10, output));
        run::<S>(&component, wasi.build_p1())
    };
    let busy = keep_busy(&runtime);
    runtime.block_on(async {
        let mut program = Box::pin(program);
        stays_pending(program.as_mut()).await;
        poll_and_drop(program);
        // Both pipes end, without a word.
        let (mut input, mut output) = (Vec::new(), Vec::new());
        input_end.read_to_end(&mut input).await.unwrap();
        output_end.read_to_end(&mut output).await.unwrap();
        assert!(output.is_empty());
    });
    drop(busy);
    // Waits for what was under way.
    drop(runtime);
    assert_eq!(open_in(dir.path()), 0);
    fs::read(dir.path().join("file")).ok()
}

fn asleep<S: Kind>() {
    assert_eq!(dropped::<S>(3_600_000_000_000, true), None);
}

/// The operation that was under way still comes to pass, the next does not.
fn at_a_file<S: Kind>() {
    assert_eq!(dropped::<S>(0, false).unwrap_or_default(), b"");
}

fn at_standard_input<S: Kind>() {
    assert_eq!(dropped::<S>(0, true).unwrap(), b"before ");
}
