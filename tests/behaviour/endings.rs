//! How calls end by themselves: results, traps, errors and panics. After each, stack and store are used again.

use crate::common::futures::{finish, pending, poll_caught, poll_once};
use crate::support::guest::{assert_usable, export, guest, runner, stack, store};
use crate::support::{AnyStack, Code, Host, matrix};
use futures::future::FusedFuture;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::task::Poll;
use wasmtime::{Caller, Func, FuncType, Linker, Module, Result, Store, Trap, Val, WasmBacktrace};
use wasmtime_async::{Error, FuncExt, InstancePreExt, LinkerExt, suspend_until};

matrix!(
    results_of_each_way_to_call,
    traps,
    traps_in_start_functions,
    errors_of_host_functions,
    errors_of_closures,
    panics,
    panics_that_are_caught_on_the_stack,
    polled_after_the_end,
);

/// A host function that is pending twice.
fn wait(store: &mut Store<Host>) -> Func {
    Func::wrap_suspending(store, async || pending(2).await)
}

fn results_of_each_way_to_call<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let text = r#"(module
        (import "" "wait" (func $wait))
        (global (export "started") (mut i32) (i32.const 0))
        (func $start (call $wait) (global.set 0 (i32.const 7)))
        (start $start)
        (func (export "run") (param i32 i64) (result i64 i32) (call $wait) (local.get 1) (local.get 0)))"#;
    let module = Module::new(store.engine(), text)?;
    let mut linker = Linker::new(store.engine());
    linker.func_wrap_suspending("", "wait", async || pending(2).await)?;

    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    let again = finish(linker.instantiate_pre(&module)?.instantiate_on(&mut stack, &mut store))?;
    for instance in [instance, again] {
        let started = instance.get_global(&mut store, "started").expect("is exported").get(&mut store);
        assert_eq!(started.unwrap_i32(), 7);

        let run = export(&mut store, &instance, "run");
        let mut results = [Val::I32(0), Val::I32(0)];
        finish(run.call_on(&mut stack, &mut store, &[Val::I32(1), Val::I64(2)], &mut results))?;
        assert_eq!((results[0].unwrap_i64(), results[1].unwrap_i32()), (2, 1));
        let mut results = [Val::I32(0), Val::I32(0)];
        finish(FuncExt::call_async(&run, &mut stack, &mut store, &[Val::I32(3), Val::I64(4)], &mut results))?;
        assert_eq!((results[0].unwrap_i64(), results[1].unwrap_i32()), (4, 3));

        let typed = run.get_async(&store).get2::<i32, i64, (i64, i32)>()?;
        for n in 0..3 {
            assert_eq!(finish(typed.call(&mut stack, &mut store, (n, 6)))?, (6, n));
        }
        let call = stack.go(&mut store, |mut store| {
            let first = typed.as_typed().call(&mut store, (1, 2))?;
            let one = suspend_until(async {
                pending(3).await;
                1
            })?;
            let second = typed.as_typed().call(&mut store, (3, 4))?;
            Ok((first, one, second))
        });
        assert_eq!(finish(call)?, ((2, 1), 1, (4, 3)));
    }
    Ok(())
}

/// Functions that end in a trap, and which.
const TRAPS: &[(&str, &str, Trap)] = &[
    ("unreachable", "unreachable", Trap::UnreachableCodeReached),
    ("div", "(drop (i32.div_s (i32.const 1) (i32.const 0)))", Trap::IntegerDivisionByZero),
    ("rem", "(drop (i64.rem_u (i64.const 1) (i64.const 0)))", Trap::IntegerDivisionByZero),
    ("overflow", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", Trap::IntegerOverflow),
    ("trunc", "(drop (i32.trunc_f64_s (f64.const 1e300)))", Trap::IntegerOverflow),
    ("nan", "(drop (i64.trunc_f32_u (f32.const nan)))", Trap::BadConversionToInteger),
    ("load", "(drop (i32.load (i32.const 65533)))", Trap::MemoryOutOfBounds),
    ("store", "(i64.store offset=0x10000 (i32.const -1) (i64.const 1))", Trap::MemoryOutOfBounds),
    ("fill", "(memory.fill (i32.const 65000) (i32.const 1) (i32.const 1000))", Trap::MemoryOutOfBounds),
    ("table", "(drop (table.get (i32.const 2)))", Trap::TableOutOfBounds),
    ("indirect", "(call_indirect (type $nothing) (i32.const 2))", Trap::TableOutOfBounds),
    ("null", "(call_indirect (type $nothing) (i32.const 0))", Trap::IndirectCallToNull),
    ("type", "(call_indirect (type $nothing) (i32.const 1))", Trap::BadSignature),
    ("recursion", "(drop (call $recurse (i32.const 0)))", Trap::StackOverflow),
];

fn module_with_traps() -> String {
    let functions = TRAPS.iter().map(|(name, body, _)| {
        format!(
            r#"(func ${name} (param i32) (if (local.get 0) (then (call $wait))) {body})
            (func (export "{name}") (param i32) (call ${name} (local.get 0)))
            (func (export "{name} through the host") (param i32)
                (table.set (i32.const 3) (ref.func ${name})) (call $through (local.get 0)))
            (elem declare func ${name})"#
        )
    });
    let functions: String = functions.collect();
    format!(
        r#"(module
            (import "" "wait" (func $wait))
            (import "" "through" (func $through (param i32)))
            (memory 1)
            (table 2 funcref)
            (table $called (export "called") 4 funcref)
            (elem (i32.const 1) $recurse)
            (type $nothing (func))
            (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
            {})"#,
        functions.replace("table.set", "table.set $called")
    )
}

fn traps<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>, wait: i32| {
        let table = caller.get_export("called").and_then(wasmtime::Extern::into_table).expect("is exported");
        let called = table.get(&mut caller, 3).expect("is that large");
        let called = *called.unwrap_func().expect("was set");
        called.call(&mut caller, &[Val::I32(wait)], &mut [])
    });
    let instance = guest(&mut store, &module_with_traps(), [wait, through])?;
    for (name, _, expected) in TRAPS {
        for export_name in [(*name).to_owned(), format!("{name} through the host")] {
            let func = export(&mut store, &instance, &export_name);
            for waits in [0, 1] {
                let params = [Val::I32(waits)];
                let mut call = func.call_on(&mut stack, &mut store, &params, &mut []);
                for _ in 0..2 * waits {
                    assert!(poll_once(&mut call).is_pending(), "{export_name}");
                }
                let Poll::Ready(Err(error)) = poll_once(&mut call) else { panic!("{export_name} did not trap") };
                drop(call);
                assert_eq!(error.downcast_ref(), Some(expected), "{export_name}: {error:?}");
                let trace = error.downcast_ref::<WasmBacktrace>().expect("traps have a backtrace");
                let innermost = trace.frames()[0].func_name().unwrap_or_default();
                assert!(innermost == *name || innermost == "recurse", "{export_name}: {trace}");
            }
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn traps_in_start_functions<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let mut linker = Linker::new(store.engine());
    linker.func_wrap_suspending("", "wait", async || pending(2).await)?;
    let text = r#"(module (import "" "wait" (func $wait)) (func $start (call $wait) unreachable) (start $start))"#;
    let module = Module::new(store.engine(), text)?;
    let error = finish(linker.instantiate_on(&mut stack, &mut store, &module)).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
    let error = finish(linker.instantiate_pre(&module)?.instantiate_on(&mut stack, &mut store)).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
    assert_usable(&mut stack, &mut store)
}

/// An error of a host function.
#[derive(Debug, PartialEq)]
struct Broken(i32);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken in {} places", self.0)
    }
}

impl std::error::Error for Broken {}

/// Calls `inner`, which calls the host function `fails`, and does so again by way of the host function `through`.
const FAILS: &str = r#"(module
    (import "" "fails" (func $fails))
    (import "" "through" (func $through))
    (func $inner (export "inner") (call $fails))
    (func $run (export "run") (call $inner))
    (func $deep (export "deep") (call $through)))"#;

/// Calls back the guest's `inner`.
fn through(store: &mut Store<Host>) -> Func {
    Func::wrap(store, |mut caller: Caller<'_, Host>| {
        let inner = caller.get_export("inner").and_then(wasmtime::Extern::into_func).expect("is exported");
        inner.call(&mut caller, &[], &mut [])
    })
}

fn errors_of_host_functions<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let nothing = FuncType::new(store.engine(), [], []);
    let functions = [
        Func::wrap_suspending(&mut store, async || -> Result<()> { Err(Broken(1).into()) }),
        Func::wrap_suspending(&mut store, async || -> Result<()> {
            pending(1).await;
            Err(Broken(1).into())
        }),
        Func::wrap(&mut store, || -> Result<()> { Err(Broken(1).into()) }),
        Func::wrap(&mut store, || -> Result<()> {
            suspend_until(pending(1))?;
            Err(Broken(1).into())
        }),
        Func::new_suspending(&mut store, nothing, async |_, _, _| {
            pending(1).await;
            Err(Broken(1).into())
        }),
    ];
    for fails in functions {
        let through = through(&mut store);
        let instance = guest(&mut store, FAILS, [fails, through])?;
        for (name, frames) in [("run", ["inner", "run"]), ("deep", ["inner", "deep"])] {
            let func = export(&mut store, &instance, name);
            let error = finish(func.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
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

fn errors_of_closures<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let text = r#"(module (import "" "" (func $wait)) (func (export "run") (call $wait) unreachable))"#;
    let run = runner(&mut store, text, [wait])?;
    // An error of its own, and a trap that it makes something else of.
    let call = stack.go(&mut store, |_| -> Result<()> { Err(Broken(2).into()) });
    assert_eq!(finish(call).unwrap_err().downcast_ref(), Some(&Broken(2)));
    let call = stack.go(&mut store, |mut store| {
        let error = run.call(&mut store, &[], &mut []).unwrap_err();
        suspend_until(pending(1))?;
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

fn panics<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let nothing = FuncType::new(store.engine(), [], []);
    // What only returns by panicking has no type that wasmtime knows.
    let broken = |n: i32| -> () { panic_any(Broken(n)) };
    let functions = [
        Func::wrap_suspending(&mut store, async move || broken(3)),
        Func::wrap_suspending(&mut store, async move || {
            pending(2).await;
            broken(3);
        }),
        Func::wrap(&mut store, move || broken(3)),
        Func::wrap(&mut store, move || {
            suspend_until(pending(1)).expect("is on a stack");
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
        // As it goes on: without the hook.
        Func::wrap_suspending(&mut store, async || -> Result<()> { resume_unwind(Box::new(Broken(3))) }),
    ];
    for fails in functions {
        let through = through(&mut store);
        let instance = guest(&mut store, FAILS, [fails, through])?;
        for name in ["run", "deep"] {
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
    let mut call = stack.go(&mut store, |_| -> Result<()> {
        suspend_until(pending(1))?;
        panic!("at the {place}")
    });
    assert!(poll_once(&mut call).is_pending());
    let payload = poll_caught(&mut call).expect_err("it panics now");
    assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("at the root"));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn panics_that_are_caught_on_the_stack<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let fails = Func::wrap_suspending(&mut store, async || -> Result<()> {
        pending(1).await;
        panic_any(Broken(4))
    });
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let inner = caller.get_export("inner").and_then(wasmtime::Extern::into_func).expect("is exported");
        let caught = catch_unwind(AssertUnwindSafe(|| inner.call(&mut caller, &[], &mut [])));
        assert_eq!(caught.expect_err("panics").downcast_ref(), Some(&Broken(4)));
        // The stack goes on as if nothing had been.
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

fn polled_after_the_end<S: AnyStack>(code: Code) -> Result<()> {
    fn assert_ended<T>(poll: Poll<Result<T>>) {
        let Poll::Ready(Err(error)) = poll else { panic!("polled after the end, and not told so") };
        assert!(matches!(error.downcast_ref(), Some(Error::Ended)), "{error:?}");
        assert!(error.to_string().contains("already ended"), "{error}");
    }

    let mut stack = stack::<S>();
    let mut store = store(code);
    let mut call = stack.go(&mut store, |_| Ok(suspend_until(pending(1))?));
    assert!(!call.is_terminated());
    assert!(poll_once(&mut call).is_pending());
    assert!(!call.is_terminated());
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(()))));
    assert!(call.is_terminated());
    assert_ended(poll_once(&mut call));
    assert_ended(poll_once(&mut call));
    drop(call);

    let mut call = stack.go(&mut store, |_| -> Result<()> { Err(Broken(5).into()) });
    assert!(matches!(poll_once(&mut call), Poll::Ready(Err(_))));
    assert_ended(poll_once(&mut call));
    drop(call);

    let mut call = stack.go(&mut store, |_| -> Result<()> { panic_any(Broken(5)) });
    assert!(poll_caught(&mut call).is_err());
    assert!(call.is_terminated());
    assert_ended(poll_once(&mut call));
    drop(call);
    assert_usable(&mut stack, &mut store)
}
