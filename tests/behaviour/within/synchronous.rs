//! wasmtime's own synchronous calls, made by the future of a host function that has nested calls.
//!
//! They work as in any host function, also right after a nested call has ended. After a nested call was dropped while
//! it was suspended, they do not work until the host function has waited for something. Until then, compiled guests
//! trap at once, as at the end of their stack, unless they are so small that they do not check it. Pulley's guests have
//! a stack of their own, so they run, with its limit. No guest runs without a limit.

use super::{NEVER, RUN, call_back, end, fibers, func, program};
use crate::common::futures::pending;
use crate::support::guest::{assert_overflow, assert_refused, assert_usable, export_of, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::{Either, FutureExt, select};
use futures::stream::{FuturesUnordered, StreamExt};
use std::pin::pin;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Between, suspend_until, yield_now};

matrix!(before_and_after);

fibers!(
    after_one_that_ended_among_others,
    after_one_that_was_dropped,
    host_functions_after_one_that_was_dropped,
    waiting_synchronously,
);

/// Everything that a synchronous call can do here.
#[track_caller]
fn assert_works(caller: &mut Caller<'_, Host>) -> Result<()> {
    assert_eq!(func(caller, "nothing").as_typed().call(&mut *caller, 1)?, 8);
    // Without waiting.
    assert_eq!(func(caller, "inner").as_typed().call(&mut *caller, 0)?, 1);
    let recurse = func(caller, "recurse");
    for _ in 0..2 {
        assert_overflow(recurse.as_typed().call(&mut *caller, 0));
    }
    assert_eq!(func(caller, "inner").as_typed().call(&mut *caller, 0)?, 1);
    Ok(())
}

fn before_and_after<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            assert_works(&mut caller)?;
            for _ in 0..2 {
                let unused = func(&mut caller, "inner");
                drop(unused.call_within(&mut caller, n));
                assert_works(&mut caller)?;
                pending(1).await;
                assert_works(&mut caller)?;
                assert_eq!(call_back(&mut caller, "inner", n).await?, 10 * n + 1);
                assert_works(&mut caller)?;
                assert_eq!(call_back(&mut caller, "nothing", n).await?, n + 7);
                assert_works(&mut caller)?;
                assert!(call_back(&mut caller, "traps", n).await.is_err());
                assert_works(&mut caller)?;
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    for n in 0..3 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

fn after_one_that_ended_among_others<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let mut set = FuturesUnordered::new();
            set.push(
                async {
                    let result = call_back(&mut caller, "inner", n).await;
                    assert_works(&mut caller)?;
                    result
                }
                .boxed(),
            );
            set.push(pending(2).map(|()| Ok(0)).boxed());
            let results = set.by_ref().collect::<Vec<_>>().await.into_iter().sum::<Result<i32>>()?;
            drop(set);
            assert_works(&mut caller)?;
            assert_eq!(results, 10 * n + 1);
            let call = async {
                let result = call_back(&mut caller, "inner", n).await;
                assert_works(&mut caller)?;
                result
            };
            match select(pin!(call), pin!(std::future::pending::<()>())).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => panic!("waits for ever"),
            }
        })
    })?;
    for n in 0..3 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Suspends and drops a nested call. The running poll is still the one next to it.
async fn suspended_and_dropped(caller: &mut Caller<'_, Host>) {
    let inner = func(caller, "inner");
    let mut call = inner.call_within(caller, NEVER);
    assert!(futures::poll!(&mut call).is_pending());
    pending(1).await;
    assert!(futures::poll!(&mut call).is_pending());
}

fn after_one_that_was_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            for _ in 0..3 {
                suspended_and_dropped(&mut caller).await;
                let recurse = func(&mut caller, "recurse");
                assert_overflow(recurse.as_typed().call(&mut caller, 0));
                let inner = func(&mut caller, "inner");
                let result = inner.as_typed().call(&mut caller, 0);
                match code {
                    Code::Native => assert_overflow(result),
                    Code::Pulley => assert_eq!(result?, 1),
                }
                // The guest cannot wait there in any case.
                let result = inner.as_typed().call(&mut caller, 1);
                match code {
                    Code::Native => assert_overflow(result),
                    Code::Pulley => assert_refused(result, Between::Poll),
                }
                assert_overflow(recurse.as_typed().call(&mut caller, 0));
                // Another nested call works.
                assert_eq!(inner.call_within(&mut caller, n).await?, 10 * n + 1);
                assert_works(&mut caller)?;

                suspended_and_dropped(&mut caller).await;
                pending(1).await;
                assert_works(&mut caller)?;
            }
            Ok(0)
        })
    })?;
    for n in 0..3 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Functions of the host's own need no guest stack. What they call does.
fn host_functions_after_one_that_was_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            let recurse = export_of(&mut caller, "recurse");
            let calls = Func::wrap(&mut caller, move |mut caller: Caller<'_, Host>, n: i32| {
                assert_overflow(recurse.typed::<i32, i32>(&caller)?.call(&mut caller, n));
                caller.data_mut().id += 1;
                Ok(n + 1)
            });
            let calls = calls.typed::<i32, i32>(&caller)?;
            suspended_and_dropped(&mut caller).await;
            assert_eq!(calls.call(&mut caller, n)?, n + 1);
            let next = calls.call(&mut caller, n)?;
            call_back(&mut caller, "inner", next).await
        })
    })?;
    for n in 0..3 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * (n + 1) + 1 + RUN);
    }
    assert_eq!(store.data().id, 6);
    assert_usable(&mut stack, &mut store)
}

/// While it has a nested call, the host function's future cannot be suspended in the middle of its poll, on any stack.
/// Before and afterwards it behaves as usual.
fn waiting_synchronously<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let as_ever = || match (K::ANYTHING, suspend_until(pending(1)).map_err(Into::into)) {
                (true, result) => result,
                (false, result) => {
                    assert_refused(result, Between::HostCode);
                    Ok(())
                }
            };
            as_ever()?;
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, n);
            assert!(futures::poll!(&mut call).is_pending());
            pending(1).await;
            assert!(futures::poll!(&mut call).is_pending());
            for _ in 0..2 {
                assert_refused(suspend_until(pending(1)).map_err(Into::into), Between::Poll);
                assert_refused(yield_now().map_err(Into::into), Between::Poll);
                suspend_until(std::future::ready(()))?;
            }
            let result = call.await;
            as_ever()?;
            suspended_and_dropped(&mut caller).await;
            assert_refused(suspend_until(pending(1)).map_err(Into::into), Between::Poll);
            pending(1).await;
            as_ever()?;
            result
        })
    })?;
    for n in 2..4 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}
