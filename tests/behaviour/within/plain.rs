//! Nested calls that are awaited: every kind of call, by every kind of host function.

use super::{RUN, assert_is, assert_polls, call_back, end, func, program, program_of, wait};
use crate::common::futures::pending;
use crate::support::guest::{assert_usable, export_of, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{Caller, Func, FuncType, InstancePre, Linker, Module, Result, Val, ValType, format_err};
use wasmtime_async::{AsyncFunc, Error, FuncExt, InstancePreExt, LinkerExt};

matrix!(
    guests_that_wait_or_do_not,
    one_after_the_other,
    untyped,
    with_signatures_known_at_run_time,
    instantiation,
    host_functions_called_without_a_guest,
    before_the_first_poll_and_after_the_end,
);

matrix!(local: async_closures);

/// Each wait of the host function, and of the guest that it calls, is one pending poll of the whole call.
fn guests_that_wait_or_do_not<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for (before, after) in [(0, 0), (1, 0), (0, 1), (2, 2)] {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                pending(before).await;
                let name = if n == 0 { "nothing" } else { "inner" };
                let result = call_back(&mut caller, name, n).await;
                pending(after).await;
                result
            })
        })?;
        for n in 0..4 {
            let mut call = run.call(&mut stack, &mut store, n);
            let (polls, result) = end(&mut call);
            assert_eq!(result?, RUN + if n == 0 { 7 } else { 10 * n + 1 });
            assert_polls::<K>(polls, before + usize::try_from(n)? + after + 1);
        }
    }
    assert_usable(&mut stack, &mut store)
}

fn one_after_the_other<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let mut sum = call_back(&mut caller, "inner", 1).await?;
            sum += call_back(&mut caller, "nothing", n).await?;
            pending(1).await;
            let inner = func(&mut caller, "inner");
            for waits in [2, 0, 3] {
                sum += inner.call_within(&mut caller, waits).await?;
                caller.data_mut().id += 1;
                pending(2).await;
                sum += inner.call_within(&mut caller, 0).await?;
            }
            Ok(sum + call_back(&mut caller, "nothing", n).await?)
        })
    })?;
    for n in 0..3 {
        let mut call = run.call(&mut stack, &mut store, n);
        let (polls, result) = end(&mut call);
        assert_eq!(result?, 11 + 7 + n + (21 + 1 + 31 + 3) + 7 + n + RUN);
        assert_polls::<K>(polls, 1 + 1 + (2 + 3) + 3 * 2 + 1);
        drop(call);
        assert_eq!(store.data().id, 3 * (n + 1));
    }
    assert_usable(&mut stack, &mut store)
}

fn untyped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = export_of(&mut caller, "inner");
            let log = caller.data().log.clone();
            log.take();
            let mut results = [Val::I64(5)];
            // A mismatch is found before anything runs.
            assert!(inner.call_within(&mut caller, &[], &mut results).await.is_err());
            assert!(inner.call_within(&mut caller, &[Val::I64(n.into())], &mut results).await.is_err());
            assert!(inner.call_within(&mut caller, &[Val::I32(n)], &mut []).await.is_err());
            assert!(log.take().is_empty());
            FuncExt::call_within(&inner, &mut caller, &[Val::I32(n)], &mut results).await?;
            pending(1).await;
            Ok(results[0].unwrap_i32())
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 2);
        assert_eq!(result?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// The host functions that make nested calls have signatures that are only known at run time.
fn with_signatures_known_at_run_time<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let ty = FuncType::new(store.engine(), [ValType::I32], [ValType::I32]);
    let back = Func::new_suspending_boxed(&mut store, ty, |mut caller: Caller<'_, Host>, params, results| {
        Box::new(async move {
            let inner = export_of(&mut caller, "inner");
            inner.call_within(&mut caller, params, results).await?;
            results[0] = Val::I32(results[0].unwrap_i32() + call_back(&mut caller, "inner", 1).await?);
            Ok(())
        })
    });
    let run = program_of(&mut store, back)?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 2);
        assert_eq!(result?, 10 * n + 1 + 11 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Modules whose start function waits, or does not.
fn instantiation<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let engine = caller.engine().clone();
            let mut linker = Linker::<Host>::new(&engine);
            linker.func_wrap_suspending_send("", "wait", move || async move {
                pending(usize::try_from(n)?).await;
                Ok::<_, wasmtime::Error>(n)
            })?;
            let text = r#"(module
                (import "" "wait" (func $wait (result i32)))
                (global $got (mut i32) (i32.const 0))
                (func $start (global.set $got (i32.add (call $wait) (i32.const 1))))
                (start $start)
                (func (export "got") (param i32) (result i32) (i32.add (global.get $got) (call $wait))))"#;
            let module = Module::new(&engine, text)?;
            let mut sum = 0;
            let pre: InstancePre<Host> = linker.instantiate_pre(&module)?;
            let instances =
                [linker.instantiate_within(&mut caller, &module).await?, pre.instantiate_within(&mut caller).await?];
            for instance in instances {
                let got: AsyncFunc<i32, i32> = instance.get_typed_func(&mut caller, "got")?.into();
                sum += got.call_within(&mut caller, 0).await?;
            }
            // A missing import is found before anything runs.
            assert!(Linker::new(&engine).instantiate_within(&mut caller, &module).await.is_err());
            Ok(sum)
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, 4 * usize::try_from(n)? + 1);
        assert_eq!(result?, 2 * (2 * n + 1) + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Without an outer guest, and without a nested one.
fn host_functions_called_without_a_guest<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let inner = wait.get_async(&store).typed::<i32, i32>()?;
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let inner = inner.clone();
        Box::new(async move {
            pending(1).await;
            Ok::<_, wasmtime::Error>(inner.call_within(&mut caller, n).await? + 1)
        })
    });
    let back = back.get_async(&store).typed::<i32, i32>()?;
    for n in 0..3 {
        let (polls, result) = end(&mut back.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 1);
        assert_eq!(result?, 10 * n + 1);
    }
    assert_usable(&mut stack, &mut store)
}

fn before_the_first_poll_and_after_the_end<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let inner = func(&mut caller, "inner");
            let unused = inner.call_within(&mut caller, n);
            assert_eq!(format!("{unused:?}"), "CallWithin { state: new, .. }");
            drop(unused);
            std::mem::forget(inner.call_within(&mut caller, n));
            pending(1).await;
            assert!(log.take().is_empty());

            let mut call = inner.call_within(&mut caller, n);
            let result = (&mut call).await;
            for _ in 0..2 {
                assert_eq!(format!("{call:?}"), "CallWithin { state: ended, .. }");
                assert_is((&mut call).await, |error| matches!(error, Error::Ended));
                pending(1).await;
            }
            assert_eq!(log.take(), ["left wait"]);
            result
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 4);
        assert_eq!(result?, 10 * n + 1 + RUN);
        store.data().log.take();
    }
    assert_usable(&mut stack, &mut store)
}

/// Closures that hold the [`Caller`] across an await without a box, registered in every way.
fn async_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let ty = FuncType::new(store.engine(), [ValType::I32], [ValType::I32]);
    let back = async |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        pending(1).await;
        let result = call_back(&mut caller, "inner", n).await?;
        pending(1).await;
        Ok(result + call_back(&mut caller, "inner", 0).await?)
    };
    let back_untyped = async |mut caller: Caller<'_, Host>, params: &[Val], results: &mut [Val]| -> Result<()> {
        pending(1).await;
        let inner = export_of(&mut caller, "inner");
        inner.call_within(&mut caller, params, results).await?;
        pending(1).await;
        results[0] = Val::I32(results[0].unwrap_i32() + call_back(&mut caller, "inner", 0).await?);
        Ok(())
    };
    let mut linker = Linker::new(store.engine());
    linker.func_wrap_suspending("", "wrap", back)?;
    linker.func_new_suspending("", "new", ty.clone(), back_untyped)?;
    let mut defined = |name| linker.get(&mut store, "", name)?.into_func().ok_or(format_err!("is a function"));
    let backs = [
        defined("wrap")?,
        defined("new")?,
        Func::wrap_suspending(&mut store, back),
        Func::new_suspending(&mut store, ty, back_untyped),
    ];
    for back in backs {
        let run = program_of(&mut store, back)?;
        for n in 0..3 {
            let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
            assert_polls::<K>(polls, usize::try_from(n)? + 3);
            assert_eq!(result?, 10 * n + 1 + 1 + RUN);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
