//! Nested calls that the wrong code polls, or that would suspend frames that must not be suspended. They return an
//! error, and the host function continues.
#![expect(unsafe_code, reason = "one is polled where safe code can hardly bring it")]

use super::{NEVER, RUN, assert_is, call_back, end, fibers, func, in_place, program, program_of};
use crate::common::futures::{finish, pending};
use crate::support::guest::{ONCE, assert_overflow, assert_refused, assert_usable, export_of, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use futures::executor::block_on;
use futures::future::{Either, select};
use std::future::Future;
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::thread;
use wasmtime::{Caller, Func, Result, Val};
use wasmtime_async::{AsyncFunc, Between, Carries, Error, FuncExt, Stack, Store, suspend_until};

matrix!(outside_of_calls, on_another_thread, in_synchronous_host_functions, blocked_on_in_the_poll, with_another_store);

fibers!(
    with_another_store_beside_one_that_was_dropped,
    within_a_synchronous_call_beside_one_that_was_dropped,
    polled_within_another_stores_call,
    dropped_within_another_stores_call,
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod on_other_stacks {
    use super::*;

    fibers!(begun_on_another_librarys_stack, resumed_on_another_librarys_stack);
}

in_place!(where_anything_is_suspended, of_another_store_without_end);

#[cfg(feature = "fiber")]
mod on_fibers {
    use super::*;

    in_place!(on_wasmtimes_own_stack);
}

/// Checks that programs whose `back` calls `inner` come out right, and that stack and store can be used afterwards.
fn all_return<S: Stack + Carries<Host>>(
    stack: &mut S,
    store: &mut Store<Host>,
    run: &AsyncFunc<i32, i32>,
) -> Result<()> {
    for n in 0..4 {
        assert_eq!(end(&mut run.call(stack, store, n)).1?, 10 * n + 1 + RUN);
    }
    assert_usable(stack, store)
}

fn poll<F: Future + Unpin>(call: &mut F) -> Poll<F::Output> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

/// Called by code that no guest has called, and in a host function of a guest without a stack.
fn outside_of_calls<K: Kind>(code: Code) -> Result<()> {
    let mut store = store(code);
    let nothing = Func::wrap(&mut store, |n: i32| n).get_async(&store).typed::<i32, i32>()?;
    let is_it = |error: &Error| matches!(error, Error::NotWithin);
    assert_is(finish(nothing.call_within(&mut store, 1)), is_it);
    let inner = nothing.clone();
    let plain = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| -> Result<()> {
        assert_is(finish(inner.call_within(&mut caller, 1)), is_it);
        finish(inner.call_within(&mut caller, 1)).map(drop)
    });
    assert_is(plain.call(&mut store, &[], &mut []), is_it);
    assert_usable(&mut stack::<K>(), &mut store)
}

/// Polled on another thread, the call returns an error, and then works where it belongs.
fn on_another_thread<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, n);
            let mut pending_polls = 0;
            loop {
                let elsewhere = thread::scope(|scope| scope.spawn(|| poll(&mut call)).join().expect("does not panic"));
                let Poll::Ready(result) = elsewhere else { panic!("cannot be") };
                assert_is(result, |error| matches!(error, Error::NotWithin));
                if let Poll::Ready(result) = futures::poll!(&mut call) {
                    assert!(K::IN_PLACE || pending_polls > n);
                    return result;
                }
                pending_polls += 1;
                pending(1).await;
            }
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// A synchronous host function has no future.
fn in_synchronous_host_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let blocks = Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| {
        let inner = func(&mut caller, "inner");
        block_on(inner.call_within(&mut caller, n))
    });
    let waits = Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| {
        let inner = func(&mut caller, "inner");
        suspend_until(inner.call_within(&mut caller, n))?
    });
    for n in 0..3 {
        let run = program_of(&mut store, blocks)?;
        let result = end(&mut run.call(&mut stack, &mut store, n)).1;
        if K::IN_PLACE {
            assert_eq!(result?, 10 * n + 1 + RUN);
        } else {
            assert_is(result, |error| matches!(error, Error::NotWithin));
        }
        // Awaiting this is no different from any other future.
        let run = program_of(&mut store, waits)?;
        let result = end(&mut run.call(&mut stack, &mut store, n)).1;
        if K::ANYTHING {
            assert_eq!(result?, 10 * n + 1 + RUN);
        } else {
            assert_refused(result, Between::HostCode);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// The host function's future does not await the call, but blocks on it. It would have to be pending for the nested
/// guest to run.
fn blocked_on_in_the_poll<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            pending(1).await;
            let inner = func(&mut caller, "inner");
            let result = block_on(inner.call_within(&mut caller, n));
            if K::IN_PLACE {
                return result;
            }
            assert_is(result, |error| matches!(error, Error::NotWithin));
            pending(1).await;
            inner.call_within(&mut caller, n).await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// Called with another store than that of the host function's [`Caller`].
fn with_another_store<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            let mut other = self::store(code);
            let double = Func::wrap(&mut other, |n: i32| n * 2).get_async(&other).typed::<i32, i32>()?;
            let result = double.call_within(&mut other, n).await;
            if K::IN_PLACE {
                assert_eq!(result?, 2 * n);
            } else {
                assert_refused(result, Between::OtherStore);
            }
            // The function of one store with the context of the other.
            call_back(&mut caller, "inner", n).await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// Suspends and drops a nested call. The running poll is still the one next to it.
async fn suspended_and_dropped(caller: &mut Caller<'_, Host>) {
    let call = call_back(caller, "inner", NEVER);
    if let Either::Left(_) = select(pin!(call), pin!(pending(2))).await {
        panic!("waits for ever");
    }
}

fn with_another_store_beside_one_that_was_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            suspended_and_dropped(&mut caller).await;
            let mut other = self::store(code);
            let inner = program(&mut other, |_, (n,)| Box::new(async move { Ok(n) }))?;
            assert_refused(inner.call_within(&mut other, n).await, Between::OtherStore);
            call_back(&mut caller, "inner", n).await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// Calls a function of the host's own, which may be called there. It blocks, or it is async.
fn within_a_synchronous_call_beside_one_that_was_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let again = inner.clone();
            let functions = [
                Func::wrap(&mut caller, move |mut caller: Caller<'_, Host>, n: i32| {
                    block_on(inner.call_within(&mut caller, n))
                }),
                Func::wrap_suspending_boxed(&mut caller, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
                    let inner = again.clone();
                    Box::new(async move { inner.call_within(&mut caller, n).await })
                }),
            ];
            for function in functions {
                let function = function.typed::<i32, i32>(&caller)?;
                suspended_and_dropped(&mut caller).await;
                assert_refused(function.call(&mut caller, n), Between::NestedCall);
                pending(1).await;
                assert_refused(function.call(&mut caller, n), Between::NestedCall);
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// A closure and what it borrows, with their types erased.
struct Erased {
    closure: *mut (),
    call: fn(*mut ()),
}

// SAFETY: the owner of the closure waits for the call.
unsafe impl Send for Erased {}

/// Calls a closure in a host function of another store's guest, which is called synchronously. Without this, what is
/// passed there could have no lifetime.
fn in_another_stores_call<F: FnMut()>(code: Code, closure: &mut F) -> Result<()> {
    let mut other = store(code);
    let call = |closure: *mut ()| {
        // SAFETY: it is borrowed until the guest below has returned.
        let closure = unsafe { &mut *closure.cast::<F>() };
        closure();
    };
    let erased = Mutex::new(Erased { closure: ptr::from_mut(closure).cast(), call });
    let calls_it = Func::wrap(&mut other, move || {
        let erased = erased.lock().expect("nothing panics with the lock held");
        (erased.call)(erased.closure);
    });
    runner(&mut other, ONCE, [calls_it])?.call(&mut other, &[], &mut [])
}

/// The host function's future polls the call, but through a synchronous call into another store. Nothing of that call
/// may stay on wasmtime's list of activations, or below it.
fn polled_within_another_stores_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, n);
            for polls in 0..4 {
                in_another_stores_call(code, &mut || {
                    let Poll::Ready(result) = poll(&mut call) else { panic!("cannot be") };
                    if polls < 2 {
                        // The call has not begun. The frames in between would be suspended.
                        assert_refused(result, Between::NestedCall);
                    } else {
                        assert_is(result, |error| matches!(error, Error::NotWithin));
                    }
                })?;
                assert!(futures::poll!(&mut call).is_pending());
                pending(1).await;
            }
            call.await
        })
    })?;
    for n in [7, 10] {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// The guest cannot be unwound there, so it is as good as forgotten.
fn dropped_within_another_stores_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            let _local = caller.data().log.on_drop("left host function");
            let inner = func(&mut caller, "inner");
            let mut call = Some(inner.call_within(&mut caller, n));
            for _ in 0..3 {
                assert!(futures::poll!(call.as_mut().expect("is there")).is_pending());
                pending(1).await;
            }
            in_another_stores_call(code, &mut || drop(call.take()))?;
            pending(1).await;
            Ok(0)
        })
    })?;
    assert_is(end(&mut run.call(&mut stack, &mut store, NEVER)).1, |error| matches!(error, Error::Lost));
    assert_eq!(log.take(), ["left host function"]);
    assert_usable(&mut stack, &mut self::store(code))
}

/// A nested call that runs in place is like one of wasmtime's own, wherever it is made.
fn where_anything_is_suspended<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        let inner = export_of(&mut caller, "inner");
        let (params, mut results) = ([Val::I32(n)], [Val::I32(0)]);
        let mut call = inner.call_within(&mut caller, &params, &mut results);
        let Poll::Ready(result) = poll(&mut call) else { panic!("is ready when it is first polled") };
        result?;
        drop(call);
        Ok(results[0].unwrap_i32())
    });
    let run = program_of(&mut store, back)?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_eq!((polls, result?), (usize::try_from(n)? + 1, 10 * n + 1 + RUN));
    }
    assert_usable(&mut stack, &mut store)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn on_another_librarys_stack<R>(f: impl FnOnce() -> R) -> R {
    let stack = corosensei::stack::DefaultStack::new(1 << 20).expect("there is memory");
    corosensei::on_stack(stack, f)
}

/// The space that is left there is unknown. The call returns an error, and then works where it belongs.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn begun_on_another_librarys_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, n);
            let Poll::Ready(result) = on_another_librarys_stack(|| poll(&mut call)) else { panic!("cannot be") };
            assert_refused(result, Between::OtherStack);
            call.await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// The guest that resumes has the space that it had.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn resumed_on_another_librarys_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, n);
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                // The first is on the guest's stack, the second begins the call aside.
                if polls <= 2 {
                    return Pin::new(&mut call).poll(cx);
                }
                on_another_librarys_stack(|| Pin::new(&mut call).poll(cx))
            })
            .await
        })
    })?;
    for n in 0..4 {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
    }
    // Dropped while the nested guest is suspended.
    let mut call = run.call(&mut stack, &mut store, 3);
    assert!(crate::common::futures::poll_once(&mut call).is_pending());
    assert!(crate::common::futures::poll_once(&mut call).is_pending());
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// wasmtime counts the limit of the other store's guests from where they begin, so there must be that much room.
fn of_another_store_without_end<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            for guests in [64 << 10, 512 << 10, 8 << 20] {
                let mut config = code.config();
                config.max_wasm_stack(guests);
                #[cfg(feature = "fiber")]
                config.async_stack_size(16 << 20);
                let engine = wasmtime::Engine::new(&config)?;
                let mut other = Store::new(&engine, Host::default());
                let recurse = runner(&mut other, r#"(module (func (export "run") (call 0) (call 0)))"#, [])?;
                assert_overflow(recurse.call_within(&mut other, &[], &mut []).await);
            }
            call_back(&mut caller, "inner", n).await
        })
    })?;
    all_return(&mut stack, &mut store, &run)
}

/// A host function of a guest that runs on one of wasmtime's fibers, which has an end of its own.
#[cfg(feature = "fiber")]
fn on_wasmtimes_own_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let nothing = Func::wrap(&mut store, || ()).get_async(&store).typed::<(), ()>()?;
    let calls = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        let nothing = nothing.clone();
        Box::new(async move { nothing.call_within(&mut caller, ()).await })
    });
    let inner = runner(&mut store, ONCE, [calls])?;
    let run = program(&mut store, move |mut caller, (n,)| {
        Box::new(async move {
            let result = inner.call_async(&mut caller, &[], &mut []).await;
            assert_refused(result, Between::OtherStack);
            Ok(n)
        })
    })?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 2)).1?, 2 + RUN);
    assert_usable(&mut stack, &mut store)
}
