//! Nested calls that are dropped before they end, alone or together with the calls around them.

use super::{Left, NEVER, RUN, assert_polls, call_back, end, fibers, func, program, wait};
use crate::common::futures::{cancel, pending, poll_once};
use crate::support::guest::{assert_usable, export_of, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use crate::wakers::Event;
use futures::future::{BoxFuture, Either, select};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use wasmtime::{Linker, Module, Result, Val, format_err};
use wasmtime_async::{AsyncFunc, FuncExt, LinkerExt, Store};

matrix!(all_levels, at_every_poll, fifty_levels);

fibers!(
    a_nested_call_alone,
    many_one_after_the_other,
    untyped_and_instantiation,
    one_level_of_many,
    by_a_host_function_that_ends,
);

/// A nested call is dropped after any number of polls. It unwinds, and the host function continues with another nested
/// call.
fn a_nested_call_alone<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for polls in 0..8 {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                let log = caller.data().log.clone();
                let _local = Left(log.clone(), "host function".to_owned());
                let inner = func(&mut caller, "inner");
                let mut call = inner.call_within(&mut caller, n);
                for _ in 0..polls {
                    assert!(futures::poll!(&mut call).is_pending());
                    pending(1).await;
                }
                log.add("drops");
                drop(call);
                log.add("goes on");
                pending(1).await;
                let result = inner.call_within(&mut caller, 2).await?;
                caller.data_mut().id += 1;
                Ok(result + call_back(&mut caller, "nothing", 0).await?)
            })
        })?;
        for n in [NEVER, 100] {
            assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 21 + 7 + RUN);
            let mut expected = vec!["drops", "left wait", "goes on", "left wait", "left host function", "left wait"];
            if polls < 2 {
                // The first poll does not begin the call, but requests what precedes the next one.
                expected.remove(1);
            }
            assert_eq!(log.take(), expected, "{polls}");
            assert_usable(&mut stack, &mut store)?;
        }
        assert_eq!(store.data().id, 2 * (polls + 1));
    }
    Ok(())
}

fn many_one_after_the_other<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            for n in 0..n {
                let call = inner.call_within(&mut caller, if n % 2 == 0 { NEVER } else { 1000 });
                let timer = pending(usize::try_from(n)? % 5 + 2);
                assert!(matches!(select(call, pin!(timer)).await, Either::Right(_)));
                if n % 3 == 0 {
                    assert_eq!(inner.call_within(&mut caller, n % 4).await?, 10 * (n % 4) + 1);
                }
            }
            Ok(0)
        })
    })?;
    for _ in 0..2 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, 300)).1?, RUN);
        assert_eq!(log.take().len(), 300 + 100 + 1);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn untyped_and_instantiation<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = export_of(&mut caller, "inner");
            let mut results = [Val::I32(5)];
            let params = [Val::I32(NEVER)];
            let call = inner.call_within(&mut caller, &params, &mut results);
            assert!(matches!(select(call, pin!(pending(4))).await, Either::Right(_)));
            assert_eq!(results[0].unwrap_i32(), 5);

            let wait = wait(&mut caller);
            let mut linker = Linker::<Host>::new(caller.engine());
            linker.define(&mut caller, "", "wait", wait)?;
            let text = r#"(module
                (import "" "wait" (func $wait (param i32) (result i32)))
                (func $start (drop (call $wait (i32.const -1))))
                (start $start))"#;
            let module = Module::new(caller.engine(), text)?;
            for _ in 0..2 {
                let call = linker.instantiate_within(&mut caller, &module);
                assert!(matches!(select(call, pin!(pending(4))).await, Either::Right(_)));
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 1)).1?, 11 + RUN);
    assert_eq!(log.take(), ["left wait"; 5]);
    assert_usable(&mut stack, &mut store)
}

/// guest → host → guest → … until 0, where it waits forever. Each host function logs when it is left.
fn descends(store: &mut Store<Host>) -> Result<AsyncFunc<i32, i32>> {
    program(store, |mut caller, (n,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let _before = Left(log.clone(), format!("before {n}"));
            pending(1).await;
            let _between = Left(log, format!("{n}"));
            let result = if n == 0 {
                call_back(&mut caller, "inner", NEVER).await?
            } else {
                call_back(&mut caller, "again", n - 1).await?
            };
            caller.data().log.add("went on");
            Ok(result)
        })
    })
}

/// The log when everything is dropped while the innermost of this many levels waits.
fn all_left(depth: i32) -> Vec<String> {
    let levels = (0..=depth).flat_map(|n| [format!("left {n}"), format!("left before {n}")]);
    ["left wait".to_owned()].into_iter().chain(levels).collect()
}

fn all_levels<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = descends(&mut store)?;
    for depth in 0..5 {
        let mut call = run.call(&mut stack, &mut store, depth);
        for _ in 0..depth + 3 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert!(log.take().is_empty());
        cancel(call);
        assert_eq!(log.take(), all_left(depth), "the innermost first");
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn fifty_levels<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = descends(&mut store)?;
    for _ in 0..2 {
        let mut call = run.call(&mut stack, &mut store, 50);
        for _ in 0..50 + 3 {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        assert_eq!(log.take(), all_left(50));
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Each level waits on the way in and on the way out. The call is dropped after every possible number of polls.
fn at_every_poll<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 5;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            caller.data_mut().id += 1;
            let local = caller.data().log.on_drop("left");
            pending(1).await;
            let result = if n == 0 {
                call_back(&mut caller, "inner", 2).await?
            } else {
                call_back(&mut caller, "again", n - 1).await?
            };
            pending(1).await;
            drop(local);
            caller.data_mut().id -= 1;
            Ok(result)
        })
    })?;
    let waits = 2 * (usize::try_from(DEPTH)? + 1) + 2 + 1;
    let (polls, result) = end(&mut run.call(&mut stack, &mut store, DEPTH));
    assert_polls::<K>(polls, waits);
    assert_eq!(result?, 21 + DEPTH + RUN);
    for dropped_after in 0..=polls {
        log.take();
        store.data_mut().id = 0;
        let mut call = run.call(&mut stack, &mut store, DEPTH);
        for _ in 0..dropped_after {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        // Exactly one entry for each host function that was entered and did not finish.
        let left = log.take().iter().filter(|entry| *entry == "left").count();
        let entered = if dropped_after == 0 { 0 } else { (DEPTH + 1).min(i32::try_from(dropped_after)?) };
        assert_eq!(left, usize::try_from(entered)?, "{dropped_after}");
        assert!((0..=entered).contains(&store.data().id));
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// One of the host functions gives up. The inner ones are left, and the outer ones continue.
fn one_level_of_many<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 6;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for gives_up in 0..=DEPTH {
        let timer = Event::default();
        let inner = timer.clone();
        let run = program(&mut store, move |mut caller, (n,)| {
            let timer = inner.clone();
            Box::new(async move {
                let log = caller.data().log.clone();
                let _local = Left(log.clone(), format!("{n}"));
                let call = call_back(&mut caller, if n == 0 { "inner" } else { "again" }, n - 1);
                if n != gives_up {
                    return call.await;
                }
                match select(pin!(call), pin!(timer.wait())).await {
                    Either::Left((result, _)) => return result,
                    Either::Right(((), _)) => log.add("timeout"),
                }
                pending(1).await;
                let call = call_back(&mut caller, "inner", NEVER);
                if let Either::Left(_) = select(pin!(call), pin!(pending(3))).await {
                    panic!("waits for ever");
                }
                log.add("went on");
                call_back(&mut caller, "inner", 1).await
            })
        })?;
        let mut call = run.call(&mut stack, &mut store, DEPTH);
        for _ in 0..3 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert!(log.take().is_empty());
        timer.set();
        assert_eq!(end(&mut call).1?, 11 + (DEPTH - gives_up) + RUN);
        drop(call);
        let log = log.take();
        let within = (0..gives_up).map(|n| format!("left {n}"));
        let first = ["timeout".to_owned(), "left wait".to_owned()].into_iter().chain(within).collect::<Vec<_>>();
        assert_eq!(log[..first.len()], first);
        let outside = (gives_up..=DEPTH).map(|n| format!("left {n}"));
        let last = ["went on".to_owned(), "left wait".to_owned()].into_iter().chain(outside).collect::<Vec<_>>();
        let end = log.len() - 1;
        assert_eq!((&log[end - last.len()..end], &*log[end]), (&last[..], "left wait"));
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// The host function's future ends in various ways while it holds a suspended nested call.
fn by_a_host_function_that_ends<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for polls in 0..5 {
        let run = program(&mut store, move |mut caller, (ending,)| {
            let mut polls = polls;
            let mut calls: BoxFuture<'_, Result<i32>> = Box::pin(async move {
                let _local = Left(caller.data().log.clone(), "host function".to_owned());
                call_back(&mut caller, "inner", NEVER).await
            });
            Box::new(poll_fn(move |cx| {
                assert!(calls.as_mut().poll(cx).is_pending());
                if polls > 0 {
                    polls -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match ending {
                    0 => Poll::Ready(Ok(5)),
                    1 => Poll::Ready(Err(format_err!("of the host function"))),
                    _ => resume_unwind(Box::new("of the host function")),
                }
            }))
        })?;
        // A call that is requested in the first poll has not begun in that poll.
        let left = if polls == 0 { vec!["left host function"] } else { vec!["left wait", "left host function"] };
        let result = end(&mut run.call(&mut stack, &mut store, 0)).1;
        assert_eq!(result?, 5 + RUN);
        assert_eq!(log.take(), [&left[..], &["left wait"]].concat());
        let error = end(&mut run.call(&mut stack, &mut store, 1)).1.unwrap_err();
        assert_eq!((&*error.root_cause().to_string(), log.take()), ("of the host function", to_owned(&left)));
        let panic = catch_unwind(AssertUnwindSafe(|| end(&mut run.call(&mut stack, &mut store, 2))));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the host function"));
        assert_eq!(log.take(), left);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn to_owned(log: &[&str]) -> Vec<String> {
    log.iter().map(|&entry| entry.to_owned()).collect()
}
