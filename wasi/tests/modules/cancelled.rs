//! A call that is dropped stops its guest right where it waits: the host function does not come back to it, not even with
//! an errno. What the guest had open is closed with its store.

use crate::common::{dir, keep_busy, on_each_stack, open_in, poll_and_drop, runtime};
use crate::guest::VERSIONS;
use crate::same::{clock, stdin};
use crate::stacks::{Guest, Kind};
use crate::steps::{Step, call};
use crate::waiting::{SUBSCRIPTION, file_calls, guest_with_file};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};

on_each_stack! { at_files at_pipes_and_clocks }

fn at_files<S: Kind>() {
    for version in VERSIONS {
        for step in file_calls() {
            let (runtime, dir) = (runtime(), dir());
            let mut guest = guest_with_file::<S>(&runtime, version, dir.path());
            let busy = keep_busy(&runtime);
            let Step::Call(name, arguments) = &step else { unreachable!() };
            let before = guest.returned();
            let entered = runtime.enter();
            poll_and_drop(guest.call(name, arguments));
            assert_eq!(guest.returned(), before, "{version:?} {step:?}: the guest went on");
            assert_eq!(open_in(dir.path()), 2, "{version:?} {step:?}: the directory and the file");

            // Stack and store are as good as before.
            drop((busy, entered));
            let Step::Call(name, arguments) = call!(random_get 3000, 1) else { unreachable!() };
            assert_eq!(runtime.block_on(guest.call(name, &arguments)).unwrap(), 0);
            drop(guest);
            // Waits for what was under way.
            drop(runtime);
            assert_eq!(open_in(dir.path()), 0, "{version:?} {step:?}");
        }
    }
}

fn at_pipes_and_clocks<S: Kind>() {
    let calls = [
        call!(fd_read 0, 140, 1, 2000),
        call!(fd_write 1, 140, 1, 2000),
        call!(sched_yield),
        call!(poll_oneoff SUBSCRIPTION, 3000, 1, 2000),
        call!(poll_oneoff SUBSCRIPTION + 104, 3000, 1, 2000),
    ];
    for version in VERSIONS {
        for step in &calls {
            let runtime = runtime();
            let entered = runtime.enter();
            let (input, mut input_end) = tokio::io::duplex(1);
            let (output, mut output_end) = tokio::io::duplex(1);
            let wasi = WasiCtx::builder()
                .stdin(AsyncStdinStream::new(input))
                .stdout(AsyncStdoutStream::new(1, output))
                .build_p1();
            let mut guest = Guest::<S>::new(version, wasi);
            guest.write(140, &[1000i32.to_le_bytes(), 100i32.to_le_bytes()].concat());
            guest.write(200, &clock(version, 1, 1, 3_600_000_000_000));
            guest.write(304, &stdin(version, 1));
            let Step::Call(name, arguments) = step else { unreachable!() };
            poll_and_drop(guest.call(name, arguments));
            assert_eq!(guest.returned(), 0, "{version:?} {step:?}: the guest went on");
            drop(guest);
            drop(entered);
            // Both pipes end, once the guest's ends are closed.
            runtime.block_on(async {
                use tokio::io::AsyncReadExt;
                let (mut input, mut output) = (Vec::new(), Vec::new());
                input_end.read_to_end(&mut input).await.unwrap();
                output_end.read_to_end(&mut output).await.unwrap();
                assert!(input.is_empty());
            });
        }
    }
}
