//! Destructors that run when nested calls are dropped, and that panic or call the guest.

use super::endings::{MESSAGE, assert_message};
use super::{Left, NEVER, RUN, call_back, end, fibers, func, program, program_of};
use crate::common::futures::{cancel, pending, poll_once};
use crate::support::guest::{assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::join;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Error, FuncExt, Store};

matrix!(call_the_guest);

mod local {
    crate::support::matrix!(@fiber [super::super::super] panics_with_what_was_returned);
    crate::support::matrix!(@unchecked [super::super::super] panics_with_what_was_returned);
}

fibers!(panics_with_a_nested_call, panics_with_all_calls, panics_while_the_host_function_does);

/// Calls the guest when it is dropped, whatever happens.
struct CallsOnDrop<'a, 'b>(&'a mut Caller<'b, Host>);

impl Drop for CallsOnDrop<'_, '_> {
    fn drop(&mut self) {
        let inner = func(self.0, "inner");
        let mut call = inner.call_within(&mut *self.0, 1);
        let result = (0..100).find_map(|_| match Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.map_err(|error| matches!(error.downcast_ref(), Some(Error::Cancelled)))),
            Poll::Pending => None,
        });
        drop(call);
        self.0.data().log.add(match result {
            Some(Err(true)) => "cancelled",
            Some(_) => "something else",
            None => "would wait for ever",
        });
    }
}

/// Drops the outer call, or the nested call to which the destructor's host function belongs.
fn call_the_guest<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = func(&mut caller, "inner");
            let calls = CallsOnDrop(&mut caller);
            match n {
                // Waits for something else, without a nested call or after one.
                0 => pending(usize::MAX).await,
                1 => {
                    inner.call_within(&mut *calls.0, 0).await?;
                    pending(usize::MAX).await;
                }
                2 => _ = inner.call_within(&mut *calls.0, NEVER).await?,
                // The same on the next level.
                _ => _ = call_back(calls.0, "again", n - 3).await?,
            }
            panic!("waits for ever");
        })
    })?;
    for n in 0..9 {
        let mut call = run.call(&mut stack, &mut store, n);
        for _ in 0..3 {
            assert!(poll_once(&mut call).is_pending());
        }
        log.take();
        cancel(call);
        let mut log = log.take();
        log.retain(|entry| entry != "left wait");
        assert_eq!(log, vec!["cancelled"; usize::try_from(n / 3 + 1)?], "{n}");
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Panics when it is dropped, unless the thread is panicking already.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            resume_unwind(Box::new(MESSAGE));
        }
    }
}

/// A host function that waits forever, and panics when it is cancelled.
fn panics_on_drop(store: &mut Store<Host>) -> Func {
    Func::wrap_suspending_send(store, |caller: Caller<'_, Host>, n: i32| {
        let local = caller.data().log.on_drop("left wait");
        async move {
            let _local = local;
            if n == NEVER {
                let _panics = PanicsOnDrop;
                std::future::pending::<()>().await;
            }
            n
        }
    })
}

/// The panic comes out where the nested call is dropped.
fn panics_with_a_nested_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let panics = panics_on_drop(&mut store);
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (catches,): (i32,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let _local = log.on_drop("left host function");
            let panics = panics.get_async(&caller).typed::<i32, i32>()?;
            for _ in 0..3 {
                let mut call = panics.call_within(&mut caller, NEVER);
                assert!(futures::poll!(&mut call).is_pending());
                pending(1).await;
                assert!(futures::poll!(&mut call).is_pending());
                pending(1).await;
                if catches == 0 {
                    drop(call);
                    log.add("never reached");
                } else {
                    assert_message(&*catch_unwind(AssertUnwindSafe(|| drop(call))).unwrap_err());
                    log.add("caught");
                }
                pending(1).await;
            }
            call_back(&mut caller, "inner", 1).await
        })
    });
    let run = program_of(&mut store, back)?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 1)).1?, 11 + RUN);
    let caught = ["left wait", "caught"].repeat(3);
    assert_eq!(log.take(), [&caught[..], &["left wait", "left host function", "left wait"]].concat());
    assert_message(&*catch_unwind(AssertUnwindSafe(|| end(&mut run.call(&mut stack, &mut store, 0)))).unwrap_err());
    assert_eq!(log.take(), ["left wait", "left host function"]);
    assert_usable(&mut stack, &mut store)
}

/// The panic comes out where the whole call is dropped, and all levels are left.
fn panics_with_all_calls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let panics = panics_on_drop(&mut store);
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        Box::new(async move {
            let _local = Left(caller.data().log.clone(), format!("{n}"));
            let _panics = (n == 2).then(|| PanicsOnDrop);
            if n > 0 {
                return call_back(&mut caller, "again", n - 1).await;
            }
            let panics = panics.get_async(&caller).typed::<i32, i32>()?;
            panics.call_within(&mut caller, NEVER).await
        })
    });
    let run = program_of(&mut store, back)?;
    for depth in [0, 1, 4] {
        let mut call = run.call(&mut stack, &mut store, depth);
        for _ in 0..2 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert_message(&*catch_unwind(AssertUnwindSafe(|| cancel(call))).unwrap_err());
        let left = (0..=depth).map(|n| format!("left {n}"));
        assert_eq!(log.take(), ["left wait".to_owned()].into_iter().chain(left).collect::<Vec<_>>());
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// If there are two panics at the same time, the first one propagates.
fn panics_while_the_host_function_does<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let panics = panics_on_drop(&mut store);
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (_,): (i32,)| {
        Box::new(async move {
            let _local = caller.data().log.on_drop("left host function");
            let panics = panics.get_async(&caller).typed::<i32, i32>()?;
            let also_panics = async {
                pending(3).await;
                resume_unwind(Box::new("of the host function"))
            };
            join(panics.call_within(&mut caller, NEVER), also_panics).await.0
        })
    });
    let run = program_of(&mut store, back)?;
    for _ in 0..2 {
        let payload = catch_unwind(AssertUnwindSafe(|| end(&mut run.call(&mut stack, &mut store, 0)))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"of the host function"));
        assert_eq!(log.take(), ["left wait", "left host function"]);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// A host function's future whose destructor panics, and which returns something whose destructor panics.
struct Panicking<'a>(Pin<Box<dyn Future<Output = Result<i32>> + 'a>>);

impl Future for Panicking<'_> {
    type Output = Result<i32>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Drop for Panicking<'_> {
    fn drop(&mut self) {
        resume_unwind(Box::new(MESSAGE));
    }
}

#[derive(Debug, thiserror::Error)]
#[error("an error that panics")]
struct PanickingError;

impl Drop for PanickingError {
    fn drop(&mut self) {
        resume_unwind(Box::new("of the error"));
    }
}

/// The future's panic propagates, and the result is dropped where its panic harms nothing.
fn panics_with_what_was_returned<K: Kind>(code: Code) -> Result<()> {
    fn back(mut caller: Caller<'_, Host>, _: i32) -> Panicking<'_> {
        Panicking(Box::pin(async move {
            let nothing = func(&mut caller, "nothing");
            let mut call = nothing.call_within(&mut caller, 0);
            // Asks for the nested call, and then makes none.
            assert!(futures::poll!(&mut call).is_pending());
            pending(1).await;
            Err(PanickingError.into())
        }))
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap_suspending(&mut store, back);
    let run = program_of(&mut store, back)?;
    let mut call = run.call(&mut stack, &mut store, 0);
    let payload = catch_unwind(AssertUnwindSafe(|| end(&mut call))).unwrap_err();
    assert_message(&*payload);
    drop(call);
    assert_usable(&mut stack, &mut store)
}
