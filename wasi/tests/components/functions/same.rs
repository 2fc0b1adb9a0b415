//! Each function gives the guest what wasmtime-wasi's own synchronous function gives it.

use super::driver::DRIVER;
use super::{Guest, Host, OnStack, files, sockets, streams};
use crate::common::{dir, on_each_stack};
use crate::stacks::Kind;
use futures::executor::block_on;
use std::path::Path;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, WasiCtx};

on_each_stack! { same_results }

/// What the test does not call: what does not return, and what needs a terminal.
const LEFT_OUT: [&str; 4] =
    ["exit-exit", "exit-exit-with-code", "terminal-input-drop-terminal-input", "terminal-output-drop-terminal-output"];

fn wasi(dir: &Path, output: &MemoryOutputPipe, may_block: bool) -> WasiP1Ctx {
    let mut wasi = WasiCtx::builder();
    wasi.allow_blocking_current_thread(may_block).preopened_dir(dir, "/dir", FsPerms::ReadWrite).unwrap();
    wasi.args(&["program", "argument"])
        .env("NAME", "value")
        .inherit_network()
        .allow_tcp(true)
        .allow_udp(true)
        .allow_ip_name_lookup(true);
    wasi.stdin(MemoryInputPipe::new("what is there to read, and more")).stdout(output.clone()).build_p1()
}

async fn script<H: Host>(mut guest: Guest<H>) -> Guest<H> {
    streams::surroundings(&mut guest).await;
    streams::streams(&mut guest).await;
    files::files(&mut guest).await;
    sockets::tcp(&mut guest).await;
    sockets::udp(&mut guest).await;
    sockets::names(&mut guest).await;
    guest
}

/// What is called, with its results, and what is printed.
fn same_results<S: Kind>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for may_block in [false, true] {
        let (expected_dir, expected_output) = (dir(), MemoryOutputPipe::new(1 << 20));
        let expected = block_on(async {
            script(Guest::upstream(wasi(expected_dir.path(), &expected_output, may_block)).await).await
        });
        for in_tokio in [false, true] {
            let (dir, output) = (dir(), MemoryOutputPipe::new(1 << 20));
            let found =
                async { script(Guest::<OnStack<S>>::on_stack(wasi(dir.path(), &output, may_block)).await).await };
            let found = if in_tokio { runtime.block_on(found) } else { block_on(found) };
            assert_eq!(found.log.len(), expected.log.len());
            for (found, expected) in found.log.iter().zip(&expected.log) {
                assert_eq!(found, expected);
            }
            assert_eq!(output.contents(), expected_output.contents());
            let never: Vec<_> = DRIVER.exports.keys().filter(|name| !found.succeeded.contains(*name)).collect();
            assert_eq!(never, LEFT_OUT, "never called with success");
        }
    }
}
