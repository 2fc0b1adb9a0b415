//! Nested calls that are forgotten while they are suspended. They block everything below them on the stack, so the
//! whole call and its store are lost with them. Nothing else is.

use super::{Back, GUEST, Left, NEVER, PANIC, RUN, assert_is, call_back, end, fibers, func, program};
use crate::common::futures::{cancel, pending, poll_once};
use crate::support::guest::{assert_overflow, assert_usable, runner, stack, store};
use crate::support::{Code, Host, Kind, Log};
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{AsyncFunc, Carries, Error, FuncExt, Store};

fibers!(
    the_call_ends_with_the_host_function,
    whatever_the_host_function_ends_in,
    dropped_on_another_thread,
    on_an_inner_level,
    with_a_level_that_is_dropped,
    the_call_is_dropped,
    the_call_is_forgotten_too,
    the_store_is_lost,
    calls_beside_it_go_on,
    before_it_has_begun,
    before_it_has_begun_and_nothing_waits,
);

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Lost)
}

#[track_caller]
fn assert_lost(store: &Store<Host>) {
    let text = format!("{store:?}");
    assert!(text.contains("lost: true"), "{text}");
}

/// What happens to a suspended nested call.
#[derive(Clone, Copy)]
enum Away {
    Forgotten,
    DroppedElsewhere,
}

/// Lets a nested call wait forever, and puts it away.
async fn suspended_and_put_away(caller: &mut Caller<'_, Host>, away: Away) {
    let inner = func(caller, "inner");
    let mut call = inner.call_within(caller, NEVER);
    assert!(futures::poll!(&mut call).is_pending());
    pending(1).await;
    assert!(futures::poll!(&mut call).is_pending());
    match away {
        Away::Forgotten => mem::forget(call),
        Away::DroppedElsewhere => {
            thread::scope(|scope| scope.spawn(|| drop(call)).join().expect("does not panic"));
        }
    }
}

/// The host function runs to its end without nested calls. In compiled code it makes no synchronous calls either.
fn goes_on_without<K: Kind>(code: Code, away: Away) -> Result<()> {
    let mut stack = stack::<K>();
    for waits in 0..3 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                let log = caller.data().log.clone();
                let _local = log.on_drop("left host function");
                suspended_and_put_away(&mut caller, away).await;
                for _ in 0..2 {
                    assert_is(call_back(&mut caller, "inner", n).await, is_lost);
                    assert_overflow(func(&mut caller, "recurse").as_typed().call(&mut caller, 0));
                    if code == Code::Pulley {
                        assert_eq!(func(&mut caller, "nothing").as_typed().call(&mut caller, 0)?, 7);
                    }
                    caller.gc(None)?;
                    caller.data_mut().id += 1;
                    pending(waits).await;
                }
                log.add("ends");
                Ok(0)
            })
        })?;
        let mut call = run.call(&mut stack, &mut store, 1);
        let (polls, result) = end(&mut call);
        assert_is(result, is_lost);
        assert_eq!(polls, 2 * waits);
        drop(call);
        // Nothing of the nested guest's host function, or of the outer guest, ever runs.
        assert_eq!(log.take(), ["ends", "left host function"]);
        assert_lost(&store);
        drop(store);
        assert!(log.take().is_empty());
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

fn the_call_ends_with_the_host_function<K: Kind>(code: Code) -> Result<()> {
    goes_on_without::<K>(code, Away::Forgotten)
}

/// Dropping the call where the stack cannot be entered to unwind the guest has the same effect as forgetting it.
fn dropped_on_another_thread<K: Kind>(code: Code) -> Result<()> {
    goes_on_without::<K>(code, Away::DroppedElsewhere)
}

fn whatever_the_host_function_ends_in<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for ending in 0..3 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let run = program(&mut store, |mut caller, (ending,)| {
            Box::new(async move {
                let _local = caller.data().log.on_drop("left host function");
                suspended_and_put_away(&mut caller, Away::Forgotten).await;
                match ending {
                    0 => Ok(0),
                    1 => wasmtime::bail!("of the host function"),
                    _ => resume_unwind(Box::new("of the host function")),
                }
            })
        })?;
        // Nothing receives the host function's error or panic.
        assert_is(end(&mut run.call(&mut stack, &mut store, ending)).1, is_lost);
        assert_eq!(log.take(), ["left host function"]);
        assert_lost(&store);
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

/// The host function on level 0 forgets its nested call.
fn forgets_on_level_0(store: &mut Store<Host>) -> Result<AsyncFunc<i32, i32>> {
    program(store, |mut caller, (n,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let _local = Left(log.clone(), format!("{n}"));
            if n == 0 {
                suspended_and_put_away(&mut caller, Away::Forgotten).await;
                pending(3).await;
                log.add("ends");
                return Ok(0);
            }
            let result = call_back(&mut caller, "again", n - 1).await;
            assert_is(result, is_lost);
            // It cannot make another one either.
            let result = call_back(&mut caller, "inner", 1).await;
            log.add(format!("{n} is told"));
            pending(1).await;
            result
        })
    })
}

/// The outer host functions get the error from their nested calls, one after the other.
fn on_an_inner_level<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for depth in 0..5 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let run = forgets_on_level_0(&mut store)?;
        let mut call = run.call(&mut stack, &mut store, depth);
        let (polls, result) = end(&mut call);
        assert_is(result, is_lost);
        assert_eq!(polls, 3 + usize::try_from(depth)?);
        drop(call);
        let mut expected = vec!["ends".to_owned(), "left 0".to_owned()];
        expected.extend((1..=depth).flat_map(|n| [format!("{n} is told"), format!("left {n}")]));
        assert_eq!(log.take(), expected);
        assert_lost(&store);
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

/// A host function drops its nested call, after one within it was forgotten. So the dropped call is as good as
/// forgotten, too.
fn with_a_level_that_is_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for polls in 0..5 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                let log = caller.data().log.clone();
                let _local = Left(log.clone(), format!("{n}"));
                if n == 0 {
                    suspended_and_put_away(&mut caller, Away::Forgotten).await;
                    log.add("forgotten");
                    return std::future::pending().await;
                }
                if n < 2 {
                    return call_back(&mut caller, "again", n - 1).await;
                }
                let again = func(&mut caller, "again");
                let mut call = again.call_within(&mut caller, n - 1);
                for _ in 0..polls + 3 {
                    assert!(futures::poll!(&mut call).is_pending());
                    pending(1).await;
                }
                drop(call);
                assert_is(call_back(&mut caller, "inner", 1).await, is_lost);
                log.add("goes on");
                Ok(0)
            })
        })?;
        assert_is(end(&mut run.call(&mut stack, &mut store, 2)).1, is_lost);
        assert_eq!(log.take(), ["forgotten", "left 0", "left 1", "goes on", "left 2"]);
        assert_lost(&store);
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

/// The whole call is dropped after a nested one was forgotten. The host functions are left, the guests are not.
fn the_call_is_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for depth in 0..4 {
        for polls in 1..4 {
            let mut store = store(code);
            let log = store.data().log.clone();
            let run = forgets_on_level_0(&mut store)?;
            let mut call = run.call(&mut stack, &mut store, depth);
            for _ in 0..polls {
                assert!(poll_once(&mut call).is_pending());
            }
            assert!(log.take().is_empty());
            cancel(call);
            assert_eq!(log.take(), (0..=depth).map(|n| format!("left {n}")).collect::<Vec<_>>());
            assert_lost(&store);
            drop(store);
            assert_usable(&mut stack, &mut self::store(code))?;
        }
    }
    Ok(())
}

fn the_call_is_forgotten_too<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for depth in 0..3 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let run = forgets_on_level_0(&mut store)?;
        let mut call = run.call(&mut stack, &mut store, depth);
        assert!(poll_once(&mut call).is_pending());
        mem::forget(call);
        assert_lost(&store);
        drop(store);
        assert!(log.take().is_empty());
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

/// The store's data is lost, too, because the forgotten code may refer to it.
fn the_store_is_lost<K: Kind<Stack: Carries<(Log, Arc<()>)>>>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let alive = Arc::new(());
    let mut store = Store::new(&code.engine(), (Log::default(), Arc::clone(&alive)));
    let waits = Func::wrap_suspending_send(&mut store, std::future::pending::<()>);
    let waits = waits.get_async(&store).typed::<(), ()>()?;
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, (Log, Arc<()>)>, (): ()| {
        let waits = waits.clone();
        Box::new(async move {
            let mut call = waits.call_within(&mut caller, ());
            for _ in 0..3 {
                assert!(futures::poll!(&mut call).is_pending());
                pending(1).await;
            }
            mem::forget(call);
        })
    });
    assert_is(end(&mut back.call_on(&mut stack, &mut store, &[], &mut [])).1, is_lost);
    let uses = catch_unwind(AssertUnwindSafe(|| _ = store.data()));
    assert!(uses.unwrap_err().downcast_ref::<&str>().is_some_and(|text| text.contains("this store is lost")));
    drop(store);
    assert_eq!(Arc::strong_count(&alive), 2);
    Ok(())
}

fn calls_beside_it_go_on<K: Kind>(code: Code) -> Result<()> {
    let waits = |code| -> Result<Pin<Box<dyn Future<Output = Result<i32>>>>> {
        let mut store = store(code);
        let run = program(&mut store, |mut caller, (n,)| {
            Box::new(async move {
                pending(2).await;
                call_back(&mut caller, "inner", n).await
            })
        })?;
        Ok(Box::pin(K::boxed(stack::<K>(), store, run, 4)))
    };
    let mut before = [waits(code)?, waits(code)?, waits(code)?];
    for (polls, call) in before.iter_mut().enumerate() {
        for _ in 0..=2 * polls {
            assert!(poll_once(call).is_pending());
        }
    }
    let mut store = store(code);
    let run = forgets_on_level_0(&mut store)?;
    let mut forgets = K::boxed(stack::<K>(), store, run, 2);
    assert!(poll_once(&mut forgets).is_pending());
    let [first, second, third] = &mut before;
    assert_eq!(end(first).1?, 41 + RUN);
    assert!(poll_once(second).is_pending());
    assert!(poll_once(third).is_pending());
    assert_is(end(&mut forgets).1, is_lost);
    assert_eq!(end(third).1?, 41 + RUN);
    drop(forgets);
    assert_eq!(end(second).1?, 41 + RUN);
    assert_eq!(end(&mut waits(code)?).1?, 41 + RUN);
    Ok(())
}

/// A call that has not begun blocks nothing, even if it was polled.
fn before_it_has_begun<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for polled in [false, true] {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                for _ in 0..3 {
                    let inner = func(&mut caller, "inner");
                    let mut call = inner.call_within(&mut caller, NEVER);
                    if polled {
                        assert!(futures::poll!(&mut call).is_pending());
                    }
                    mem::forget(call);
                    pending(1).await;
                    assert_eq!(inner.call_within(&mut caller, n).await?, 10 * n + 1);
                    assert_eq!(inner.as_typed().call(&mut caller, 0)?, 1);
                }
                Ok(n)
            })
        })?;
        for n in 0..3 {
            assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, n + RUN);
            assert_usable(&mut stack, &mut store)?;
        }
    }
    Ok(())
}

/// Host functions that come later on the same stack, in the same call or in another one, do not notice it.
fn before_it_has_begun_and_nothing_waits<K: Kind>(code: Code) -> Result<()> {
    const READY: i32 = 100;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            match n {
                0 | PANIC => {
                    let mut call = inner.call_within(&mut caller, NEVER);
                    assert!(futures::poll!(&mut call).is_pending());
                    mem::forget(call);
                    if n == PANIC {
                        resume_unwind(Box::new("after that"));
                    }
                    Ok(5)
                }
                1 => {
                    pending(1).await;
                    inner.as_typed().call(&mut caller, READY)
                }
                READY => Ok(5),
                _ => call_back(&mut caller, "again", n - 2).await,
            }
        }) as Back<'_>
    });
    let run: AsyncFunc<i32, i32> = runner(&mut store, GUEST, [back, back])?.get_async(&store).typed()?;
    let expected = |n: usize| [5, 6][n % 2] + n / 2 + 6;
    for n in [1, 0, 1, 3, 2, 3, 5, 4, 5, 1] {
        let result = end(&mut run.call(&mut stack, &mut store, i32::try_from(n)?)).1?;
        assert_eq!(usize::try_from(result)?, expected(n), "{n}");
        assert_usable(&mut stack, &mut store)?;
    }
    let panics = catch_unwind(AssertUnwindSafe(|| _ = end(&mut run.call(&mut stack, &mut store, PANIC))));
    assert_eq!(panics.unwrap_err().downcast_ref(), Some(&"after that"));
    let result = end(&mut run.call(&mut stack, &mut store, 1)).1?;
    assert_eq!(usize::try_from(result)?, expected(1));
    Ok(())
}
