//! How calls end by themselves: with results and with traps. After each ending, stack and store are used again.

use crate::common::futures::{finish, pending, poll_caught, poll_once};
use crate::failures::Broken;
use crate::support::guest::{assert_refused, assert_usable, export, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::FusedFuture;
use std::panic::panic_any;
use std::task::Poll;
use wasmtime::{Caller, Func, Linker, Module, Result, Trap, Val, WasmBacktrace};
use wasmtime_async::{Between, Error, FuncExt, InstancePreExt, LinkerExt, Stack, suspend_until};

matrix!(results_of_each_way_to_call, traps, traps_in_start_functions, polled_after_the_end,);

fn results_of_each_way_to_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let text = r#"(module
        (import "" "wait" (func $wait))
        (global (export "started") (mut i32) (i32.const 0))
        (func $start (call $wait) (global.set 0 (i32.const 7)))
        (start $start)
        (func (export "run") (param i32 i64) (result i64 i32) (call $wait) (local.get 1) (local.get 0)))"#;
    let module = Module::new(store.engine(), text)?;
    let mut linker = Linker::new(store.engine());
    let wait = waits::<K, _>(&mut store, 2);
    linker.define(&mut store, "", "wait", wait)?;

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
        if K::ANYTHING {
            let call = stack.run_send(&mut store, move |mut store| {
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
    }
    let answer = runner(&mut store, r#"(module (func (export "run") (result i32) (i32.const 42)))"#, [])?;
    let call = stack.run_send(&mut store, move |mut store| {
        let answer = answer.typed::<(), i32>(&store)?.call(&mut store, ())?;
        Ok(answer + suspend_until(async { 1 })?)
    });
    assert_eq!(finish(call)?, 43);
    Ok(())
}

/// Functions that end in a trap, each with its trap.
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

fn traps<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, 2);
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
            let through = export_name != *name;
            for waits in [0, 1] {
                let params = [Val::I32(waits)];
                let mut call = func.call_on(&mut stack, &mut store, &params, &mut []);
                if through && waits == 1 && !K::ANYTHING {
                    assert_refused(finish(call), Between::NestedCall);
                    continue;
                }
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

fn traps_in_start_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut linker = Linker::new(store.engine());
    let wait = waits::<K, _>(&mut store, 2);
    linker.define(&mut store, "", "wait", wait)?;
    let text = r#"(module (import "" "wait" (func $wait)) (func $start (call $wait) unreachable) (start $start))"#;
    let module = Module::new(store.engine(), text)?;
    let error = finish(linker.instantiate_on(&mut stack, &mut store, &module)).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
    let error = finish(linker.instantiate_pre(&module)?.instantiate_on(&mut stack, &mut store)).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
    assert_usable(&mut stack, &mut store)
}

fn polled_after_the_end<K: Kind>(code: Code) -> Result<()> {
    fn assert_ended<T>(poll: Poll<Result<T>>) {
        let Poll::Ready(Err(error)) = poll else { panic!("polled after the end, and not told so") };
        assert!(matches!(error.downcast_ref(), Some(Error::Ended)), "{error:?}");
        assert!(error.to_string().contains("already ended"), "{error}");
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, 1);
    let mut call = wait.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(!call.is_terminated());
    assert!(poll_once(&mut call).is_pending());
    assert!(!call.is_terminated());
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(()))));
    assert!(call.is_terminated());
    assert_ended(poll_once(&mut call));
    assert_ended(poll_once(&mut call));
    drop(call);

    let mut call = stack.run_send(&mut store, move |_| -> Result<()> { Err(Broken(5).into()) });
    assert!(matches!(poll_once(&mut call), Poll::Ready(Err(_))));
    assert_ended(poll_once(&mut call));
    drop(call);

    let mut call = stack.run_send(&mut store, move |_| -> Result<()> { panic_any(Broken(5)) });
    assert!(poll_caught(&mut call).is_err());
    assert!(call.is_terminated());
    assert_ended(poll_once(&mut call));
    drop(call);
    assert_usable(&mut stack, &mut store)
}
