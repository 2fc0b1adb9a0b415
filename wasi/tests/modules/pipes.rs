//! Two guests on one thread, one of which waits for the other: if a host function blocked, neither would ever end.

use crate::common::on_each_stack;
use crate::guest::{VERSIONS, Version};
use crate::same::stdin;
use crate::stacks::{Guest, Kind};
use crate::steps::{Step, call};
use futures::executor::block_on;
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;

on_each_stack! { under_another_executor in_tokio }

/// What goes through the pipe, 64 bytes at a time.
const LEN: usize = 10_000;

fn under_another_executor<S: Kind>() {
    for version in VERSIONS {
        let guests = with_ambient_tokio_runtime(|| guests::<S>(version));
        block_on(one_feeds_the_other(version, guests));
    }
}

fn in_tokio<S: Kind>() {
    for version in VERSIONS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { one_feeds_the_other(version, guests::<S>(version)).await });
    }
}

/// One that writes to a pipe, and one that reads from it. (What carries bytes between a pipe and a guest is a task of tokio's.)
fn guests<S: Kind>(version: Version) -> [Guest<S>; 2] {
    let (near, far) = tokio::io::duplex(64);
    [
        WasiCtx::builder().stdout(AsyncStdoutStream::new(64, near)).build_p1(),
        WasiCtx::builder().stdin(AsyncStdinStream::new(far)).build_p1(),
    ]
    .map(|wasi| Guest::new(version, wasi))
}

async fn one_feeds_the_other<S: Kind>(version: Version, [mut writer, mut reader]: [Guest<S>; 2]) {
    let message: Vec<u8> = (0..LEN).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let read = async {
        let mut received = Vec::new();
        while received.len() < LEN {
            reader.write(140, &[1000i32.to_le_bytes(), 5000i32.to_le_bytes()].concat());
            reader.write(200, &stdin(version, 1));
            for step in [call!(poll_oneoff 200, 304, 1, 400), call!(fd_read 0, 140, 1, 500)] {
                let Step::Call(name, arguments) = step else { unreachable!() };
                assert_eq!(reader.call(name, &arguments).await.unwrap(), 0);
            }
            let len = usize::try_from(u32::from_le_bytes(reader.read(500))).unwrap();
            assert_ne!(len, 0, "the pipe was closed");
            received.extend_from_slice(&reader.read::<5000>(1000)[..len]);
        }
        received
    };
    let write = async {
        writer.write(1000, &message);
        let mut sent = 0;
        while sent < LEN {
            let rest = [1000 + sent, LEN - sent].map(|n| u32::try_from(n).unwrap().to_le_bytes()).concat();
            writer.write(140, &rest);
            let Step::Call(name, arguments) = call!(fd_write 1, 140, 1, 500) else { unreachable!() };
            assert_eq!(writer.call(name, &arguments).await.unwrap(), 0);
            sent += usize::try_from(u32::from_le_bytes(writer.read(500))).unwrap();
        }
    };
    let (received, ()) = futures::join!(read, write);
    assert!(received == message, "{} bytes came", received.len());
}
