//! Guests that never wait give way to others, as do those that ask to.

use crate::common::{Wakes, on_each_stack};
use crate::guest::{ENGINE, VERSIONS, Version};
use crate::stacks::{Guest, Kind};
use crate::steps::{Step, call};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use wasmtime::Module;
use wasmtime_async_wasi::HOST_CALLS_IN_A_ROW;
use wasmtime_wasi::WasiCtx;

on_each_stack! { a_busy_guest_gives_way a_guest_that_writes_gives_way sched_yield_gives_way }

/// Calls the host for ever, and counts how often.
fn busy_guest<S: Kind>(version: Version, import: &str, parameters: &str, arguments: &str) -> Guest<S> {
    let module = version.module();
    let text = format!(
        r#"(module
            (import "{module}" "{import}" (func $import {parameters} (result i32)))
            (memory (export "memory") 1)
            (global $returned (export "returned") (mut i32) (i32.const 0))
            (func (export "run")
                (loop
                    (call $import {arguments})
                    (if (then unreachable))
                    (global.set $returned (i32.add (global.get $returned) (i32.const 1)))
                    (br 0))))"#
    );
    Guest::of(version, &Module::new(&ENGINE, text).unwrap(), WasiCtx::builder().build_p1())
}

fn gives_way_in_time<S: Kind>(mut guest: impl FnMut(Version) -> Guest<S>) {
    let a_turn = i32::try_from(HOST_CALLS_IN_A_ROW).unwrap();
    for version in VERSIONS {
        for turns in [1, 2, 5] {
            let mut guest = guest(version);
            let wakes = Arc::new(Wakes::default());
            {
                let mut call = pin!(guest.call("run", &[]));
                // Begins a turn, whatever other guests did on this thread before.
                assert!(wakes.poll(call.as_mut()).is_pending());
                for turn in 1..=turns {
                    assert_eq!(wakes.count(), turn, "woken");
                    assert!(wakes.poll(call.as_mut()).is_pending());
                }
            }
            let turns = i32::try_from(turns).unwrap();
            let calls = guest.returned();
            assert!((turns * a_turn..=(turns + 1) * a_turn).contains(&calls), "{version:?} {turns}: {calls}");
        }
    }
}

fn a_busy_guest_gives_way<S: Kind>() {
    gives_way_in_time(|version| {
        let arguments = "(i32.const 1) (i64.const 0) (i32.const 104)";
        busy_guest::<S>(version, "clock_time_get", "(param i32 i64 i32)", arguments)
    });
}

/// To nowhere, which is always ready.
fn a_guest_that_writes_gives_way<S: Kind>() {
    gives_way_in_time(|version| {
        let arguments = "(i32.const 1) (i32.const 100) (i32.const 0) (i32.const 200)";
        busy_guest::<S>(version, "fd_write", "(param i32 i32 i32 i32)", arguments)
    });
}

fn sched_yield_gives_way<S: Kind>() {
    for version in VERSIONS {
        let mut guest = Guest::<S>::new(version, WasiCtx::builder().build_p1());
        let Step::Call(name, arguments) = call!(sched_yield) else { unreachable!() };
        let wakes = Arc::new(Wakes::default());
        let mut call = pin!(guest.call(name, &arguments));
        assert!(wakes.poll(call.as_mut()).is_pending());
        assert_eq!(wakes.count(), 1);
        let Poll::Ready(Ok(0)) = wakes.poll(call.as_mut()) else { panic!("{version:?} did not go on") };
    }
}
