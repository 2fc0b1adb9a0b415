//! Nested calls that fail: what comes out of them, and how the host function continues.

use super::{ERROR, Left, NEVER, PANIC, RUN, call_back, end, fibers, func, program, wait};
use crate::common::futures::{pending, poll_caught};
use crate::support::guest::{assert_overflow, assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::{FutureExt, join};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use wasmtime::{Func, Linker, Module, Result, Trap};
use wasmtime_async::{FuncExt, LinkerExt};

matrix!(traps_and_errors, in_start_functions, panics, many_levels_up, functions_of_another_store);

fibers!(panics_of_host_functions_with_a_nested_call,);

pub(super) const MESSAGE: &str = "of a nested guest's host function";

fn traps_and_errors<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (passes_on,)| {
        Box::new(async move {
            for waits in 0..3 {
                let error = call_back(&mut caller, "traps", waits).await.unwrap_err();
                assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
                assert_overflow(call_back(&mut caller, "recurse", 0).await);
                let error = call_back(&mut caller, "inner", ERROR).await.unwrap_err();
                assert_eq!(error.root_cause().to_string(), MESSAGE);
                pending(1).await;
                assert_eq!(call_back(&mut caller, "inner", waits).await?, 10 * waits + 1);
            }
            match passes_on {
                0 => Ok(1),
                1 => call_back(&mut caller, "traps", 2).await,
                2 => call_back(&mut caller, "recurse", 2).await,
                _ => call_back(&mut caller, "inner", ERROR).await,
            }
        })
    })?;
    for round in 0..2 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, 0)).1?, 1 + RUN, "{round}");
        let error = end(&mut run.call(&mut stack, &mut store, 1)).1.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
        assert_overflow(end(&mut run.call(&mut stack, &mut store, 2)).1);
        let error = end(&mut run.call(&mut stack, &mut store, 3)).1.unwrap_err();
        assert_eq!(error.root_cause().to_string(), MESSAGE);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn in_start_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let wait = wait(&mut caller);
            let mut linker = Linker::<Host>::new(caller.engine());
            linker.define(&mut caller, "", "wait", wait)?;
            for (end, message) in [("unreachable", "unreachable"), ("(drop (call $wait (i32.const -3)))", MESSAGE)] {
                let text = format!(
                    r#"(module
                        (import "" "wait" (func $wait (param i32) (result i32)))
                        (func $start (drop (call $wait (i32.const 2))) {end})
                        (start $start))"#
                );
                let module = Module::new(caller.engine(), text)?;
                let error = linker.instantiate_within(&mut caller, &module).await.unwrap_err();
                assert!(error.root_cause().to_string().contains(message), "{error:?}");
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 2)).1?, 21 + RUN);
    assert_usable(&mut stack, &mut store)
}

pub(super) fn assert_message(payload: &(dyn Any + Send)) {
    assert_eq!(payload.downcast_ref(), Some(&MESSAGE));
}

/// A panic comes out of the nested call's poll. It can be caught there, or propagates.
fn panics<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let _local = log.on_drop("left host function");
            for _ in 0..3 {
                let caught = AssertUnwindSafe(call_back(&mut caller, "inner", PANIC)).catch_unwind().await;
                assert_message(&*caught.expect_err("panics"));
                log.add("caught");
                // Here, too, the guest can be called synchronously at once.
                assert_eq!(func(&mut caller, "nothing").as_typed().call(&mut caller, 1)?, 8);
                pending(1).await;
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 2)).1?, 21 + RUN);
    let caught = ["left wait", "caught"].repeat(3);
    assert_eq!(log.take(), [&caught[..], &["left wait", "left host function", "left wait"]].concat());

    let mut call = run.call(&mut stack, &mut store, PANIC);
    let payload = loop {
        match poll_caught(&mut call) {
            Ok(poll) => assert!(poll.is_pending()),
            Err(payload) => break payload,
        }
    };
    assert_message(&*payload);
    drop(call);
    assert_eq!(log.take(), [&caught[..], &["left wait", "left host function"]].concat());
    assert_usable(&mut stack, &mut store)
}

/// The panic leaves several levels, until it is caught or comes out of the whole call.
fn many_levels_up<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 5;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for ending in [PANIC, ERROR] {
        for catches in [0, 3, DEPTH, DEPTH + 1] {
            let run = program(&mut store, move |mut caller, (n,)| {
                Box::new(async move {
                    let log = caller.data().log.clone();
                    let _local = Left(log.clone(), format!("{n}"));
                    pending(1).await;
                    let next = if n == 0 { "inner" } else { "again" };
                    let call = call_back(&mut caller, next, if n == 0 { ending } else { n - 1 });
                    if n != catches {
                        return call.await;
                    }
                    match AssertUnwindSafe(call).catch_unwind().await {
                        Ok(Err(error)) if ending == ERROR => assert_eq!(error.root_cause().to_string(), MESSAGE),
                        Err(payload) if ending == PANIC => assert_message(&*payload),
                        other => panic!("{other:?}"),
                    }
                    log.add("caught");
                    call_back(&mut caller, "inner", 1).await
                })
            })?;
            let result = catch_unwind(AssertUnwindSafe(|| end(&mut run.call(&mut stack, &mut store, DEPTH)).1));
            match result {
                Ok(Ok(sum)) => assert_eq!(sum, 11 + DEPTH - catches + RUN),
                Ok(Err(error)) if ending == ERROR && catches > DEPTH => {
                    assert_eq!(error.root_cause().to_string(), MESSAGE);
                }
                Err(payload) if ending == PANIC && catches > DEPTH => assert_message(&*payload),
                other => panic!("{other:?}"),
            }
            let left = |n: i32| format!("left {n}");
            let mut expected = vec!["left wait".to_owned()];
            expected.extend((0..catches.min(DEPTH + 1)).map(left));
            if catches <= DEPTH {
                expected.extend(["caught".to_owned(), "left wait".to_owned()]);
                expected.extend((catches..=DEPTH).map(left));
                expected.push("left wait".to_owned());
            }
            assert_eq!(log.take(), expected);
            assert_usable(&mut stack, &mut store)?;
        }
    }
    Ok(())
}

/// The nested call panics as wasmtime's own function does, and the host function can catch the panic.
fn functions_of_another_store<K: Kind>(code: Code) -> Result<()> {
    fn message(payload: &(dyn Any + Send)) -> String {
        let text = payload.downcast_ref::<&str>().map(|&text| text.to_owned());
        text.or(payload.downcast_ref::<String>().cloned()).expect("is a text")
    }

    let mut stack = stack::<K>();
    let (mut store, mut other) = (store(code), self::store(code));
    let alien = Func::wrap(&mut other, |n: i32| n);
    let typed = alien.get_async(&other).typed::<i32, i32>()?;
    let run = program(&mut store, move |mut caller, (n,)| {
        let typed = typed.clone();
        Box::new(async move {
            let own = catch_unwind(AssertUnwindSafe(|| typed.as_typed().call(&mut caller, n))).unwrap_err();
            let nested = AssertUnwindSafe(typed.call_within(&mut caller, n)).catch_unwind().await.unwrap_err();
            assert_eq!(message(&*nested), message(&*own));
            let nested = alien.call_within(&mut caller, &[], &mut []);
            let nested = AssertUnwindSafe(nested).catch_unwind().await.unwrap_err();
            let own = catch_unwind(AssertUnwindSafe(|| alien.call(&mut caller, &[], &mut []))).unwrap_err();
            assert_eq!(message(&*nested), message(&*own));
            call_back(&mut caller, "inner", n).await
        })
    })?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 2)).1?, 21 + RUN);
    assert_usable(&mut stack, &mut store)
}

/// The host function panics while it has a nested call, which is unwound.
fn panics_of_host_functions_with_a_nested_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for waits in 0..4 {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                let _local = caller.data().log.on_drop("left host function");
                let panics = async {
                    pending(waits).await;
                    resume_unwind(Box::new(MESSAGE))
                };
                join(call_back(&mut caller, "inner", n), panics).await.0
            })
        })?;
        let mut call = run.call(&mut stack, &mut store, NEVER);
        let payload = loop {
            match poll_caught(&mut call) {
                Ok(poll) => assert!(poll.is_pending()),
                Err(payload) => break payload,
            }
        };
        assert_message(&*payload);
        drop(call);
        let left = if waits == 0 { vec!["left host function"] } else { vec!["left wait", "left host function"] };
        assert_eq!(log.take(), left);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
