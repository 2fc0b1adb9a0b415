//! Each function that can wait leaves the thread to others, goes on when what it waits for happens, and does not come back to
//! the guest when its call is dropped.

use super::cases::{Case, Handles, Scene};
use super::driver::DRIVER;
use super::{Guest, OnStack};
use crate::common::{Wakes, keep_busy, on_each_stack, open_in, poll_and_drop, runtime};
use crate::stacks::Kind;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use wasmtime_async_wasi::HOST_CALLS_IN_A_ROW;
use wasmtime_wasi::WasiCtx;

on_each_stack! { each_waits each_can_be_cancelled a_busy_lookup_gives_way }

/// Runs a test for each case, in a scene of its own.
fn for_each<S: Kind>(cases: fn(&Handles) -> Vec<Case>, test: fn(Scene<S>, Case)) {
    let number = cases(&Scene::<S>::new().handles).len();
    for case in 0..number {
        let mut scene = Scene::<S>::new();
        let case = cases(&scene.handles).swap_remove(case);
        for (name, arguments) in &case.before {
            scene.runtime.block_on(scene.guest.call(name, arguments));
        }
        test(scene, case);
    }
}

fn each_waits<S: Kind>() {
    for_each::<S>(Handles::cases, |mut scene, Case { name, arguments, .. }| {
        let answer = {
            let mut call = pin!(scene.guest.call(&name, &arguments));
            let entered = scene.runtime.enter();
            assert!(Arc::new(Wakes::default()).poll(call.as_mut()).is_pending(), "{name} did not wait");
            drop((scene.busy, entered));
            scene.runtime.block_on(async {
                tokio::select! {
                    answer = call => answer,
                    () = scene.other_ends.act() => panic!("{name}: the guest is gone"),
                }
            })
        };
        assert!(!DRIVER.exports[&name] || answer.0[0] == 0, "{name}: error {}", answer.0[4]);
    });
}

fn each_can_be_cancelled<S: Kind>() {
    let cases = |handles: &Handles| {
        let mut cases = handles.cases();
        cases.push(handles.until_tomorrow());
        cases
    };
    for_each::<S>(cases, |mut scene, Case { name, arguments, .. }| {
        let before = scene.guest.returned();
        {
            let _entered = scene.runtime.enter();
            poll_and_drop(scene.guest.call(&name, &arguments));
        }
        assert_eq!(scene.guest.returned(), before, "{name}: the guest went on");

        // All that the guest had open is closed with its store.
        drop((scene.guest, scene.busy));
        scene.runtime.block_on(async {
            for pipe in [&mut scene.other_ends.input, &mut scene.other_ends.output] {
                pipe.read_to_end(&mut Vec::new()).await.unwrap();
            }
            scene.other_ends.server.read_to_end(&mut Vec::new()).await.unwrap();
        });
        // Waits for operations on files that were under way.
        drop(scene.runtime);
        assert_eq!(open_in(scene.dir.path()), 0, "{name}");
    });
}

/// Asks for the addresses again and again, without waiting for them.
fn a_busy_lookup_gives_way<S: Kind>() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let _busy = keep_busy(&runtime);
    let mut guest =
        runtime.block_on(Guest::<OnStack<S>>::on_stack(WasiCtx::builder().allow_ip_name_lookup(true).build_p1()));
    let mut asking = pin!(async {
        let network = guest.call("instance-network-instance-network", []).await.u32(0);
        guest.poke(0, b"localhost").await;
        let found = guest.call("ip-name-lookup-resolve-addresses", [network, 0, 9]).await.handle();
        for _ in 0..2 * HOST_CALLS_IN_A_ROW {
            let answer = guest.call("ip-name-lookup-resolve-address-stream-resolve-next-address", [found]).await;
            assert_eq!(answer.0[..3], [1, 0, 8], "would-block");
        }
    });
    let wakes = Arc::new(Wakes::default());
    assert!(wakes.poll(asking.as_mut()).is_pending(), "it asked for ever");
    assert_eq!(wakes.count(), 1);
}
