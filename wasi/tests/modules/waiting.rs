//! Each function that can wait leaves the thread to others: its call is pending, and goes on when it is woken.
//!
//! Files are read and written on tokio's threads for blocking work. Here that is one, kept busy, so that what needs it waits.

use crate::common::{Wakes, dir, keep_busy, on_each_stack, runtime};
use crate::guest::{VERSIONS, Version};
use crate::same::{clock, stdin};
use crate::stacks::{Guest, Kind};
use crate::steps::{Step, call};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use tokio::runtime::Runtime;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx};

on_each_stack! { files_wait sleepers_wait standard_input_waits standard_output_waits }

/// Where the names lie that the calls below use, and what else they need.
const FILE: i32 = 100;
const OTHER: i32 = 110;
const LINK: i32 = 120;
const EMPTY_DIR: i32 = 130;
const IOVEC: i32 = 140;
pub(crate) const SUBSCRIPTION: i32 = 200;
const RESULT: i32 = 1000;

pub(crate) fn wasi(dir: &Path) -> WasiP1Ctx {
    WasiCtx::builder().preopened_dir(dir, "/dir", FsPerms::ReadWrite).unwrap().build_p1()
}

/// Calls that wait for files.
pub(crate) fn file_calls() -> Vec<Step> {
    vec![
        call!(fd_read 4, IOVEC, 1, RESULT),
        call!(fd_pread 4, IOVEC, 1, 3i64, RESULT),
        call!(fd_write 4, IOVEC, 1, RESULT),
        call!(fd_pwrite 4, IOVEC, 1, 3i64, RESULT),
        call!(fd_advise 4, 0i64, 0i64, 0),
        call!(fd_datasync 4),
        call!(fd_sync 4),
        call!(fd_fdstat_get 4, RESULT),
        call!(fd_filestat_get 4, RESULT),
        call!(fd_filestat_set_size 4, 3i64),
        call!(fd_filestat_set_times 4, 1i64, 1i64, 5),
        call!(fd_readdir 3, RESULT, 100, 0i64, RESULT + 100),
        call!(path_create_directory 3, OTHER, 5),
        call!(path_filestat_get 3, 0, FILE, 4, RESULT),
        call!(path_filestat_set_times 3, 0, FILE, 4, 1i64, 1i64, 5),
        call!(path_link 3, 0, FILE, 4, 3, OTHER, 5),
        call!(path_open 3, 0, FILE, 4, 0, 2i64, 2i64, 0, RESULT),
        call!(path_readlink 3, LINK, 4, RESULT, 10, RESULT + 100),
        call!(path_remove_directory 3, EMPTY_DIR, 5),
        call!(path_rename 3, FILE, 4, 3, OTHER, 5),
        call!(path_symlink FILE, 4, 3, OTHER, 5),
        call!(path_unlink_file 3, FILE, 4),
        call!(poll_oneoff SUBSCRIPTION, RESULT, 1, RESULT + 100),
    ]
}

/// A guest that has opened the file, as its descriptor 4.
pub(crate) fn guest_with_file<S: Kind>(runtime: &Runtime, version: Version, dir: &Path) -> Guest<S> {
    let _entered = runtime.enter();
    let mut guest = Guest::<S>::new(version, wasi(dir));
    for (at, name) in [(FILE, "file"), (OTHER, "other"), (LINK, "link"), (EMPTY_DIR, "empty")] {
        guest.write(usize::try_from(at).unwrap(), name.as_bytes());
    }
    guest.write(140, &[RESULT.to_le_bytes(), 8i32.to_le_bytes()].concat());
    let mut subscription = stdin(version, 1);
    subscription[16] = 4;
    guest.write(200, &subscription);
    let rights = (1i64 << 28) - 1;
    let Step::Call(name, arguments) = call!(path_open 3, 0, FILE, 4, 0, rights, rights, 0, RESULT) else {
        unreachable!()
    };
    assert_eq!(runtime.block_on(guest.call(name, &arguments)).unwrap(), 0);
    assert_eq!(i32::from_le_bytes(guest.read(1000)), 4);
    guest
}

fn files_wait<S: Kind>() {
    for version in VERSIONS {
        for step in file_calls() {
            let (runtime, dir) = (runtime(), dir());
            let mut guest = guest_with_file::<S>(&runtime, version, dir.path());
            let busy = keep_busy(&runtime);
            let Step::Call(name, arguments) = &step else { unreachable!() };
            let entered = runtime.enter();
            let mut call = pin!(guest.call(name, arguments));
            assert!(Arc::new(Wakes::default()).poll(call.as_mut()).is_pending(), "{version:?} {step:?} did not wait");
            drop((busy, entered));
            assert_eq!(runtime.block_on(call).unwrap(), 0, "{version:?} {step:?}");
        }
    }
}

/// Also where files may block.
fn sleepers_wait<S: Kind>() {
    for version in VERSIONS {
        for may_block in [false, true] {
            let runtime = runtime();
            let mut guests: Vec<_> = (0..10)
                .map(|_| {
                    let wasi = WasiCtx::builder().allow_blocking_current_thread(may_block).build_p1();
                    let mut guest = Guest::<S>::new(version, wasi);
                    guest.write(200, &clock(version, 1, 1, 20_000_000));
                    guest
                })
                .collect();
            let Step::Call(name, arguments) = call!(poll_oneoff SUBSCRIPTION, RESULT, 1, RESULT + 100) else {
                unreachable!()
            };
            let mut sleeping: Vec<_> = guests.iter_mut().map(|guest| Box::pin(guest.call(name, &arguments))).collect();
            // All at once.
            let entered = runtime.enter();
            for call in &mut sleeping {
                assert!(Arc::new(Wakes::default()).poll(call.as_mut()).is_pending(), "{version:?} did not wait");
            }
            drop(entered);
            for ended in runtime.block_on(futures::future::join_all(sleeping)) {
                assert_eq!(ended.unwrap(), 0);
            }
            for guest in &mut guests {
                assert_eq!(i32::from_le_bytes(guest.read(1100)), 1, "events");
                let unchanged = clock(version, 1, 1, 20_000_000);
                assert_eq!(guest.read::<48>(200), unchanged[..48], "the guest's subscription");
            }
        }
    }
}

fn standard_input_waits<S: Kind>() {
    for version in VERSIONS {
        for with_poll in [false, true] {
            let runtime = runtime();
            let _entered = runtime.enter();
            let (input, mut far_end) = tokio::io::duplex(100);
            let wasi = WasiCtx::builder().stdin(AsyncStdinStream::new(input)).build_p1();
            let mut guest = Guest::<S>::new(version, wasi);
            guest.write(140, &[RESULT.to_le_bytes(), 8i32.to_le_bytes()].concat());
            guest.write(200, &stdin(version, 1));
            let wakes = Arc::new(Wakes::default());
            let call = async {
                if with_poll {
                    let Step::Call(name, arguments) = call!(poll_oneoff SUBSCRIPTION, RESULT, 1, 2000) else {
                        unreachable!()
                    };
                    assert_eq!(guest.call(name, &arguments).await.unwrap(), 0);
                }
                let Step::Call(name, arguments) = call!(fd_read 0, IOVEC, 1, 2000) else { unreachable!() };
                guest.call(name, &arguments).await.unwrap()
            };
            let mut call = Box::pin(call);
            assert!(wakes.poll(call.as_mut()).is_pending(), "{version:?} did not wait");
            let errno = runtime.block_on(async {
                tokio::io::AsyncWriteExt::write_all(&mut far_end, b"line").await.unwrap();
                call.as_mut().await
            });
            assert_eq!(errno, 0);
            drop(call);
            assert_eq!((&guest.read(1000), guest.read(2000)), (b"line", 4i32.to_le_bytes()));
        }
    }
}

fn standard_output_waits<S: Kind>() {
    for version in VERSIONS {
        let runtime = runtime();
        let _entered = runtime.enter();
        // Takes one byte at a time.
        let (output, mut far_end) = tokio::io::duplex(1);
        let wasi = WasiCtx::builder().stdout(AsyncStdoutStream::new(1, output)).build_p1();
        let mut guest = Guest::<S>::new(version, wasi);
        guest.write(140, &[RESULT.to_le_bytes(), 4i32.to_le_bytes()].concat());
        guest.write(1000, b"line");
        let Step::Call(name, arguments) = call!(fd_write 1, IOVEC, 1, 2000) else { unreachable!() };
        let mut call = pin!(guest.call(name, &arguments));
        assert!(Arc::new(Wakes::default()).poll(call.as_mut()).is_pending(), "{version:?} did not wait");
        let mut line = [0; 4];
        let (errno, read) = runtime
            .block_on(async { futures::join!(call, tokio::io::AsyncReadExt::read_exact(&mut far_end, &mut line)) });
        assert_eq!((errno.unwrap(), read.unwrap(), &line), (0, 4, b"line"));
    }
}
