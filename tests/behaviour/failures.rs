//! How calls end with errors and panics of host functions and closures. After each ending, stack and store are used
//! again.

use crate::common::futures::{finish, pending, poll_caught, poll_once};
use crate::support::guest::{assert_refused, assert_usable, export, export_of, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::FusedFuture;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::task::Poll;
use wasmtime::{Caller, Func, FuncType, Result, Trap, WasmBacktrace};
use wasmtime_async::{Between, FuncExt, Stack, Store, suspend_until};

matrix!(errors_of_host_functions, errors_of_closures, panics);
matrix!(anything: panics_that_are_caught_on_the_stack);

/// An error of a host function.
#[derive(Debug, PartialEq)]
pub(crate) struct Broken(pub(crate) i32);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken in {} places", self.0)
    }
}

impl std::error::Error for Broken {}

/// A guest whose `deep` calls `inner`, which calls the host function `fails`, and does so again through the host
/// function `through`.
const FAILS: &str = r#"(module
    (import "" "fails" (func $fails))
    (import "" "through" (func $through))
    (func $inner (export "inner") (call $fails))
    (func $run (export "run") (call $inner))
    (func $deep (export "deep") (call $through)))"#;

/// Calls the guest's `inner` back.
fn through(store: &mut Store<Host>) -> Func {
    Func::wrap(store, |mut caller: Caller<'_, Host>| {
        let inner = export_of(&mut caller, "inner");
        inner.call(&mut caller, &[], &mut [])
    })
}

fn errors_of_host_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let nothing = FuncType::new(store.engine(), [], []);
    let at_once = [
        Func::wrap_suspending(&mut store, async || -> Result<()> { Err(Broken(1).into()) }),
        Func::wrap_suspending_send(&mut store, || async { Err::<(), _>(Broken(1).into()) }),
        Func::wrap(&mut store, || -> Result<()> { Err(Broken(1).into()) }),
    ];
    let mut after_a_while = vec![
        Func::wrap_suspending_send(&mut store, || async {
            pending(1).await;
            Err::<(), _>(Broken(1).into())
        }),
        Func::wrap_suspending_boxed(&mut store, |caller: Caller<'_, Host>, (): ()| {
            Box::new(async move {
                pending(1).await;
                Err::<(), _>(Broken(1 + caller.data().id).into())
            })
        }),
        Func::new_suspending_boxed(&mut store, nothing.clone(), |_, _, _| {
            Box::new(async {
                pending(1).await;
                Err(Broken(1).into())
            })
        }),
    ];
    if !K::MOVES {
        after_a_while.extend([
            Func::wrap_suspending(&mut store, async || -> Result<()> {
                pending(1).await;
                Err(Broken(1).into())
            }),
            Func::new_suspending(&mut store, nothing, async |_, _, _| {
                pending(1).await;
                Err(Broken(1).into())
            }),
        ]);
    }
    if K::ANYTHING {
        after_a_while.push(Func::wrap(&mut store, || -> Result<()> {
            suspend_until(pending(1))?;
            Err(Broken(1).into())
        }));
    }
    let functions = at_once.into_iter().map(|func| (func, true));
    for (fails, nests) in functions.chain(after_a_while.into_iter().map(|func| (func, K::ANYTHING))) {
        let through = through(&mut store);
        let instance = guest(&mut store, FAILS, [fails, through])?;
        for (name, frames) in [("run", ["inner", "run"]), ("deep", ["inner", "deep"])] {
            let func = export(&mut store, &instance, name);
            let result = finish(func.call_on(&mut stack, &mut store, &[], &mut []));
            if name == "deep" && !nests {
                assert_refused(result, Between::NestedCall);
                continue;
            }
            let error = result.unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&Broken(1)), "{error:?}");
            let trace = error.downcast_ref::<WasmBacktrace>().expect("errors in wasm have a backtrace");
            let names: Vec<_> = trace.frames().iter().filter_map(wasmtime::FrameInfo::func_name).collect();
            assert_eq!(names, frames);
            assert!(format!("{error:?}").contains("broken in 1 places"), "{error:?}");
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn errors_of_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, if K::ANYTHING { 2 } else { 0 });
    let text = r#"(module (import "" "" (func $wait)) (func (export "run") (call $wait) unreachable))"#;
    let run = runner(&mut store, text, [wait])?;
    // An error of the closure itself, and a trap that the closure turns into something else.
    let call = stack.run_send(&mut store, move |_| -> Result<()> { Err(Broken(2).into()) });
    assert_eq!(finish(call).unwrap_err().downcast_ref(), Some(&Broken(2)));
    let call = stack.run_send(&mut store, move |mut store| {
        let error = run.call(&mut store, &[], &mut []).unwrap_err();
        suspend_until(pending(usize::from(K::ANYTHING)))?;
        error.downcast::<Trap>()
    });
    assert_eq!(finish(call)?, Trap::UnreachableCodeReached);
    assert_usable(&mut stack, &mut store)
}

/// Panics when it is dropped.
struct PanicsOnDrop(i32);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic_any(Broken(self.0));
    }
}

fn panics<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let nothing = FuncType::new(store.engine(), [], []);
    // wasmtime has no type for a function that only returns by panicking.
    let broken = |n: i32| -> () { panic_any(Broken(n)) };
    let at_once = [
        Func::wrap_suspending(&mut store, async move || broken(3)),
        Func::wrap_suspending_send(&mut store, move || async move { broken(3) }),
        Func::wrap(&mut store, move || broken(3)),
        // Resumes a panic, which skips the hook.
        Func::wrap_suspending(&mut store, async || -> Result<()> { resume_unwind(Box::new(Broken(3))) }),
        // Panics before there is a future.
        Func::wrap_suspending_send(&mut store, move || {
            broken(3);
            pending(1)
        }),
    ];
    let mut after_a_while = vec![
        Func::wrap_suspending_send(&mut store, move || async move {
            pending(2).await;
            broken(3);
        }),
        Func::new_suspending_boxed(&mut store, nothing.clone(), move |_, _, _| {
            Box::new(async move {
                pending(1).await;
                broken(3);
                Ok(())
            })
        }),
        Func::wrap_suspending_send(&mut store, || async {
            let _bomb = PanicsOnDrop(3);
            pending(1).await;
        }),
    ];
    if !K::MOVES {
        after_a_while.extend([
            Func::wrap_suspending(&mut store, async move || {
                pending(2).await;
                broken(3);
            }),
            Func::new_suspending(&mut store, nothing, async move |_, _, _| {
                pending(1).await;
                broken(3);
                Ok(())
            }),
            Func::wrap_suspending(&mut store, async || {
                let _bomb = PanicsOnDrop(3);
                pending(1).await;
            }),
        ]);
    }
    if K::ANYTHING {
        after_a_while.push(Func::wrap(&mut store, move || {
            suspend_until(pending(1)).expect("is on a stack");
            broken(3);
        }));
    }
    let functions = at_once.into_iter().map(|func| (func, true));
    for (fails, nests) in functions.chain(after_a_while.into_iter().map(|func| (func, K::ANYTHING))) {
        let through = through(&mut store);
        let instance = guest(&mut store, FAILS, [fails, through])?;
        for name in if nests { &["run", "deep"][..] } else { &["run"] } {
            let func = export(&mut store, &instance, name);
            let mut call = func.call_on(&mut stack, &mut store, &[], &mut []);
            let payload = loop {
                match poll_caught(&mut call) {
                    Ok(Poll::Pending) => (),
                    Ok(Poll::Ready(result)) => panic!("ended in {result:?}"),
                    Err(payload) => break payload,
                }
            };
            assert_eq!(payload.downcast_ref(), Some(&Broken(3)));
            assert!(call.is_terminated());
            drop(call);
        }
        assert_usable(&mut stack, &mut store)?;
    }

    // With a message, and in the closure.
    let place = String::from("root");
    let mut call = stack.run_send(&mut store, move |_| -> Result<()> { panic!("at the {place}") });
    let payload = poll_caught(&mut call).expect_err("it panics now");
    assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("at the root"));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn panics_that_are_caught_on_the_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let fails = Func::wrap_suspending(&mut store, async || -> Result<()> {
        pending(1).await;
        panic_any(Broken(4))
    });
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let inner = export_of(&mut caller, "inner");
        let caught = catch_unwind(AssertUnwindSafe(|| inner.call(&mut caller, &[], &mut [])));
        assert_eq!(caught.expect_err("panics").downcast_ref(), Some(&Broken(4)));
        // The stack continues as if nothing had happened.
        Ok(suspend_until(pending(2))?)
    });
    let instance = guest(&mut store, FAILS, [fails, through])?;
    let deep = export(&mut store, &instance, "deep");
    let mut call = deep.call_on(&mut stack, &mut store, &[], &mut []);
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    finish(call)?;
    assert_usable(&mut stack, &mut store)
}
