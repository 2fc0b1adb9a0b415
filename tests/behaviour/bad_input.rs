//! Input that is refused: what the error says, and that stack and store can be used afterwards.

use crate::common::futures::{finish, pending, poll_caught, poll_once};
use crate::support::guest::{ONCE, assert_usable, export, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wasmtime::{Caller, Engine, Func, FuncType, Linker, Module, Result, Trap, Val, ValType};
use wasmtime_async::{DEFAULT_STACK_SIZE, Error, FuncExt, LinkerExt, Stack, Store, suspend_until, yield_now};

matrix!(
    sizes_of_stacks,
    stacks_smaller_than_what_guests_may_use,
    parameters,
    results,
    signatures,
    missing_imports,
    functions_of_other_stores,
    without_a_stack,
    results_of_the_wrong_type_from_host_functions,
);

/// Asserts that an error mentions all of these.
#[track_caller]
fn assert_says(error: &wasmtime::Error, words: &[&str]) {
    let text = format!("{error:?}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

fn sizes_of_stacks<K: Kind>(code: Code) -> Result<()> {
    for size in [0, 1, 4096, 0xffff, usize::MAX, usize::MAX - 1, usize::MAX / 2] {
        let error = K::stack_of(size).map(|_| ()).expect_err("no size for a stack");
        let Error::StackSize { size: asked, min, max, .. } = error else { panic!("{size}: {error:?}") };
        assert_eq!(asked, size);
        assert!(!(min..=max).contains(&size));
        let text = error.to_string();
        for word in [&size.to_string(), &min.to_string(), &max.to_string()] {
            assert!(text.contains(word), "`{word}` is missing: {text}");
        }
        // The largest size is accepted, but no such memory exists. (With 32-bit addresses it does.)
        if cfg!(target_pointer_width = "32") {
            continue;
        }
        let error = K::stack_of(max).map(|_| ()).expect_err("there is no such memory");
        assert!(matches!(error, Error::StackMemory { .. } | Error::ThreadSpawn { .. }), "{error:?}");
        assert!(error.to_string().contains(&max.to_string()), "{error}");
    }

    // The smallest size works where guests may use little space. So does a size that is not a multiple of a page.
    let engine = Engine::new(code.config().max_wasm_stack(32 << 10))?;
    for size in [64 << 10, (100 << 10) + 1, DEFAULT_STACK_SIZE] {
        let mut stack = K::stack_of(size)?;
        assert_eq!(stack.size(), size);
        assert_usable(&mut stack, &mut Store::new(&engine, Host::default()))?;
    }
    Ok(())
}

/// Nothing runs on a stack on which an endless guest would reach the guard page before its limit.
fn stacks_smaller_than_what_guests_may_use<K: Kind>(code: Code) -> Result<()> {
    let (limit, room) = (512 << 10, 32 << 10);
    for (size, fits) in [(limit, false), (limit + room - 1, false), (limit + room, true)] {
        let engine = Engine::new(code.config().max_wasm_stack(limit))?;
        let (mut stack, mut store) = (K::stack_of(size)?, Store::new(&engine, Host::default()));
        let endless = runner(&mut store, r#"(module (func (export "run") (call 0)))"#, [])?;
        let ran = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&ran);
        let error = finish(stack.run_send(&mut store, move |store| {
            runs.store(true, Ordering::Relaxed);
            endless.call(store, &[], &mut [])
        }));
        let error = error.expect_err("it does not end by itself");
        // Pulley's guests have a stack of their own.
        let fits = fits || code == Code::Pulley;
        assert_eq!(ran.load(Ordering::Relaxed), fits, "{size}");
        match error.downcast_ref() {
            Some(error @ &Error::StackTooSmall { size: told, min, .. }) => {
                assert_eq!((told, min, fits), (size, limit + room, false));
                for word in [&size.to_string(), &min.to_string(), "max_wasm_stack"] {
                    assert!(error.to_string().contains(word), "`{word}` is missing: {error}");
                }
            }
            _ => assert_eq!((error.downcast_ref(), fits), (Some(&Trap::StackOverflow), true)),
        }
        // The stack still works for other engines.
        let engine = Engine::new(code.config().max_wasm_stack(64 << 10))?;
        assert_usable(&mut stack, &mut Store::new(&engine, Host::default()))?;
    }
    Ok(())
}

const TAKES: &str = r#"(module
    (import "" "" (func $wait))
    (func (export "run") (param i32 i64) (result f32) (call $wait) (f32.const 1)))"#;

fn takes<K: Kind>(store: &mut Store<Host>) -> Result<Func> {
    let wait = waits::<K, _>(store, 1);
    runner(store, TAKES, [wait])
}

fn parameters<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let takes = takes::<K>(&mut store)?;
    let mut other = self::store(code);
    let foreign = Val::from(Func::wrap(&mut other, || ()));
    let cases: &[(&[Val], &[&str])] = &[
        (&[], &["expected 2 arguments", "got 0"]),
        (&[Val::I32(1)], &["expected 2 arguments", "got 1"]),
        (&[Val::I32(1), Val::I64(1), Val::I64(1)], &["expected 2 arguments", "got 3"]),
        (&[Val::I64(1), Val::I64(1)], &["type mismatch", "i32", "i64"]),
        (&[Val::I32(1), Val::F64(1)], &["type mismatch", "i64", "f64"]),
        (&[Val::I32(1), Val::FuncRef(None)], &["type mismatch"]),
    ];
    for (params, words) in cases {
        let mut results = [Val::F32(0)];
        let error = finish(takes.call_on(&mut stack, &mut store, params, &mut results)).unwrap_err();
        assert_says(&error, words);
        assert_usable(&mut stack, &mut store)?;
    }

    // A function of another store.
    let takes_func = Func::wrap(&mut store, |_: Option<Func>| ());
    let params = [foreign];
    let error = finish(takes_func.call_on(&mut stack, &mut store, &params, &mut [])).unwrap_err();
    assert_says(&error, &["wrong store"]);
    let takes_func = takes_func.get_async(&store).get1::<Option<Func>, ()>()?;
    let foreign = Func::wrap(&mut other, || ());
    let error = finish(takes_func.call(&mut stack, &mut store, (Some(foreign),))).unwrap_err();
    assert_says(&error, &["cross-`Store`"]);
    assert_usable(&mut stack, &mut store)?;
    assert_usable(&mut stack, &mut other)
}

fn results<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let takes = takes::<K>(&mut store)?;
    let params = [Val::I32(1), Val::I64(1)];
    for (mut results, got) in [(vec![], "got 0"), (vec![Val::I32(0); 2], "got 2")] {
        let error = finish(takes.call_on(&mut stack, &mut store, &params, &mut results)).unwrap_err();
        assert_says(&error, &["expected 1 results", got]);
        assert_usable(&mut stack, &mut store)?;
    }
    // The previous contents do not matter, whatever their type.
    let mut results = [Val::FuncRef(None)];
    finish(takes.call_on(&mut stack, &mut store, &params, &mut results))?;
    assert_eq!(results[0].unwrap_f32().to_bits(), 1_f32.to_bits());
    Ok(())
}

fn signatures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let takes = takes::<K>(&mut store)?;
    let errors = [
        takes.get_async(&store).get0::<f32>().map(|_| ()),
        takes.get_async(&store).get1::<i32, f32>().map(|_| ()),
        takes.get_async(&store).get2::<i32, i64, ()>().map(|_| ()),
        takes.get_async(&store).get2::<i32, i64, (f32, f32)>().map(|_| ()),
        takes.get_async(&store).get2::<i32, i64, f64>().map(|_| ()),
        takes.get_async(&store).get2::<i64, i64, f32>().map(|_| ()),
        takes.get_async(&store).get3::<i32, i64, i32, f32>().map(|_| ()),
        takes.get_async(&store).typed::<(i32, f64), f32>().map(|_| ()),
        takes.get_async(&store).typed::<i32, f32>().map(|_| ()),
    ];
    for result in errors {
        let error = result.expect_err("is another signature");
        assert_says(&error, &["type mismatch", "expected"]);
    }
    let typed = takes.get_async(&store).get2::<i32, i64, f32>()?;
    assert_eq!(finish(typed.call(&mut stack, &mut store, (1, 2)))?.to_bits(), 1_f32.to_bits());

    // A guest that imports a function with another signature.
    let instance = guest(&mut store, r#"(module (import "" "" (func (param i32))))"#, [takes]);
    assert_says(&instance.map(|_| ()).unwrap_err(), &["incompatible import type", "expected"]);
    assert_usable(&mut stack, &mut store)
}

fn missing_imports<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let module = Module::new(store.engine(), r#"(module (import "host" "wait" (func)) (start 0))"#)?;
    let mut linker = Linker::new(store.engine());
    let error = finish(linker.instantiate_on(&mut stack, &mut store, &module)).unwrap_err();
    assert_says(&error, &["unknown import", "host", "wait"]);
    assert!(linker.instantiate_pre(&module).is_err());
    assert_usable(&mut stack, &mut store)?;

    linker.func_wrap_suspending("host", "wait", async |_: i32| ())?;
    let error = finish(linker.instantiate_on(&mut stack, &mut store, &module)).unwrap_err();
    assert_says(&error, &["incompatible import type", "host", "wait"]);
    // A name that is already defined.
    let error = linker.func_wrap_suspending("host", "wait", async || ()).map(|_| ()).unwrap_err();
    assert_says(&error, &["host", "wait", "defined twice"]);
    let nothing = FuncType::new(store.engine(), [], []);
    let error = linker.func_wrap_suspending_send("host", "wait", || async {}).map(|_| ()).unwrap_err();
    assert_says(&error, &["host", "wait", "defined twice"]);
    let error = linker
        .func_wrap_suspending_boxed("host", "wait", |_: Caller<'_, Host>, (): ()| Box::new(async {}))
        .map(|_| ())
        .unwrap_err();
    assert_says(&error, &["host", "wait", "defined twice"]);
    let error =
        linker.func_new_suspending("host", "wait", nothing.clone(), async |_, _, _| Ok(())).map(|_| ()).unwrap_err();
    assert_says(&error, &["host", "wait", "defined twice"]);
    let error = linker
        .func_new_suspending_boxed("host", "wait", nothing, |_, _, _| Box::new(async { Ok(()) }))
        .map(|_| ())
        .unwrap_err();
    assert_says(&error, &["host", "wait", "defined twice"]);

    linker.allow_shadowing(true);
    linker.func_wrap_suspending_send("host", "wait", || pending(1))?;
    finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    assert_usable(&mut stack, &mut store)
}

/// As with wasmtime's own functions, this is a bug in the program, and panics.
fn functions_of_other_stores<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut other = self::store(code);
    let foreign = Func::wrap(&mut other, || ());
    let mut call = foreign.call_on(&mut stack, &mut store, &[], &mut []);
    let payload = poll_caught(&mut call).expect_err("panics");
    drop(call);
    let text = payload.downcast_ref::<&str>().map(ToString::to_string).or(payload.downcast_ref::<String>().cloned());
    assert!(text.is_some_and(|text| text.contains("wrong store")));
    let typed = foreign.get_async(&other).get0::<()>()?;
    let mut call = typed.call(&mut stack, &mut store, ());
    assert!(poll_caught(&mut call).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)?;
    assert_usable(&mut stack, &mut other)
}

/// Async host functions and similar code run where there is no stack to suspend.
fn without_a_stack<K: Kind>(code: Code) -> Result<()> {
    #[track_caller]
    fn assert_not_on_stack<R: std::fmt::Debug>(result: Result<R>) {
        let error = result.expect_err("is not on a stack");
        assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
        assert_says(&error, &["does not run on a stack", "call_on", "instantiate_on", "Stack::run"]);
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let nothing = FuncType::new(store.engine(), [], []);
    let mut functions = vec![
        Func::wrap_suspending_send(&mut store, || pending(1)),
        Func::wrap_suspending_boxed(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(1))),
        Func::new_suspending_boxed(&mut store, nothing.clone(), |_, _, _| Box::new(async { Ok(()) })),
        Func::wrap_suspending(&mut store, async || ()),
        Func::wrap_suspending(&mut store, async |_: Caller<'_, Host>| ()),
        Func::new_suspending(&mut store, nothing, async |_, _, _| Ok(())),
    ];
    if K::ANYTHING {
        functions.push(Func::wrap(&mut store, || -> Result<()> { Ok(yield_now()?) }));
    }
    for function in functions {
        assert_not_on_stack(function.call(&mut store, &[], &mut []));
        let run = runner(&mut store, ONCE, [function])?;
        assert_not_on_stack(run.call(&mut store, &[], &mut []));
        let text = r#"(module (import "" "" (func)) (start 0))"#;
        assert_not_on_stack(guest(&mut store, text, [function]));
        // The same function works on a stack.
        finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
        assert_not_on_stack(run.call(&mut store, &[], &mut []));
    }
    assert_not_on_stack(suspend_until(pending(1)).map_err(Into::into));
    assert_not_on_stack(suspend_until(async {}).map_err(Into::into));
    assert_not_on_stack(yield_now().map_err(Into::into));

    // While a call is suspended, its poller does not run on the call's stack.
    let wait = waits::<K, _>(&mut store, 1);
    let mut call = wait.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    assert_not_on_stack(yield_now().map_err(Into::into));
    finish(call)?;
    assert_not_on_stack(yield_now().map_err(Into::into));

    let engine = wasmtime::Engine::new(code.config().epoch_interruption(true))?;
    let mut store = Store::new(&engine, Host::default());
    store.set_epoch_deadline(1);
    store.epoch_deadline_suspend_and_update(1);
    let run = runner(&mut store, r#"(module (func (export "run") (loop (br 0))))"#, [])?;
    engine.increment_epoch();
    assert_not_on_stack(run.call(&mut store, &[], &mut []));
    store.set_epoch_deadline(1000);
    assert_usable(&mut stack, &mut store)
}

fn results_of_the_wrong_type_from_host_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let ty = FuncType::new(store.engine(), [], [ValType::I32]);
    let mut functions = vec![Func::new_suspending_boxed(&mut store, ty.clone(), |_, _, results| {
        Box::new(async move {
            pending(1).await;
            results[0] = Val::F64(0);
            Ok(())
        })
    })];
    if !K::MOVES {
        functions.push(Func::new_suspending(&mut store, ty, async |_, _, results| {
            pending(1).await;
            results[0] = Val::F64(0);
            Ok(())
        }));
    }
    for wrong in functions {
        let text = r#"(module (import "" "" (func (result i32))) (func (export "run") (drop (call 0))))"#;
        let instance = guest(&mut store, text, [wrong])?;
        let run = export(&mut store, &instance, "run");
        let error = finish(run.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
        assert_says(&error, &["function attempted to return an incompatible value"]);
    }
    assert_usable(&mut stack, &mut store)
}
