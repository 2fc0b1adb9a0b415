//! How the activations of suspended calls are parked.

use wasmtime_async::{FiberStack, Parking};

/// All tests of fiber stacks ran with this way of parking.
#[test]
fn is_direct_where_it_is_known_to_work() {
    let expected = if cfg!(all(feature = "direct-parking", not(call_hook))) { Parking::Direct } else { Parking::Fiber };
    if cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
        || expected == Parking::Fiber
    {
        assert_eq!(FiberStack::parking(), expected);
    }
    // It is the same on each thread.
    let here = FiberStack::parking();
    assert_eq!(std::thread::spawn(FiberStack::parking).join().expect("does not panic"), here);
}

/// A nested call is linked to activations that are not its own.
#[test]
fn is_by_a_fiber_within_another_call() -> wasmtime::Result<()> {
    use wasmtime::{Engine, Func};

    let mut store = wasmtime::Store::new(&Engine::default(), ());
    let within = Func::wrap(&mut store, || assert_eq!(FiberStack::parking(), Parking::Fiber));
    within.call(&mut store, &[], &mut [])
}
