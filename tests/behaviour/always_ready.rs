//! Guests whose host functions always return futures that are ready.

use crate::common::futures::cancel;
use crate::support::guest::{assert_usable, runner, stack, store};
use crate::support::{Code, Kind, matrix};
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use wasmtime::{Func, Result};
use wasmtime_async::{FuncExt, Store};

matrix!(lets_others_run_under_tokio, ends_when_dropped);

/// Takes values for as long as there are any.
const TAKES: &str = r#"(module
    (import "" "" (func $take (result i32)))
    (func (export "run") (loop (br_if 0 (call $take)))))"#;

/// A guest that takes values from a tokio channel that always has some.
fn takes_for_ever<T>(store: &mut Store<T>) -> Result<Func> {
    let always = Arc::new(tokio::sync::Semaphore::new(1));
    let take = Func::wrap_suspending_send(&mut *store, move || {
        let always = Arc::clone(&always);
        async move { i32::from(always.acquire().await.is_ok()) }
    });
    runner(store, TAKES, [take])
}

fn lets_others_run_under_tokio<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = takes_for_ever(&mut store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let other = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        // One task within this one, and one next to it. (They come before the guest, which uses up tokio's budget for
        // this task.)
        let other = pin!(async { tokio::join!(other, tokio::spawn(tokio::task::yield_now())).1 });
        let result = select(other, run.call_on(&mut stack, &mut store, &[], &mut [])).await;
        assert!(matches!(result, Either::Left((Ok(()), _))));
    });
    assert_usable(&mut stack, &mut store)
}

/// Drops the call. If the guest was suspended because of its budget, it is stopped.
fn ends_when_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = takes_for_ever(&mut store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(futures::poll!(&mut call).is_pending());
        cancel(call);
    });
    assert_usable(&mut stack, &mut store)
}

/// On a thread's stack, where tokio cannot count, this crate counts instead.
#[cfg(feature = "thread-backend")]
mod budget_of_threads {
    use super::*;
    use crate::common::futures::{CountingWaker, finish, pending};
    use crate::support::Thread;
    use crate::wakers::poll_with;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::{Context, Poll, Waker};
    use wasmtime_async::{Stack, suspend_until};

    #[test]
    fn yields_after_a_number_of_waits() -> Result<()> {
        let mut stack = stack::<Thread>();
        let mut store = store(Code::Pulley);
        // Each count starts at the last suspension, whatever its reason, and at the beginning of a call.
        for _ in 0..2 {
            let waker = CountingWaker::new();
            let mut call = stack.run(&mut store, |_| {
                (0..128).try_for_each(|_| suspend_until(async {}))?;
                suspend_until(pending(1))?; // which comes one too late
                (0..128).try_for_each(|_| suspend_until(async {}))?;
                suspend_until(async {})?; // and this, too
                Ok(())
            });
            for woken in 1..=3 {
                assert!(poll_with(&mut call, &waker).is_pending());
                assert_eq!(waker.woken(), woken);
            }
            assert!(matches!(poll_with(&mut call, &waker), Poll::Ready(Ok(()))));
        }
        Ok(())
    }

    /// Where nothing may be suspended, ready futures work without a suspension.
    #[test]
    fn not_where_it_cannot() -> Result<()> {
        struct Waits;
        impl Drop for Waits {
            fn drop(&mut self) {
                for _ in 0..1000 {
                    suspend_until(async {}).expect("is ready");
                }
            }
        }

        let mut stack = stack::<Thread>();
        let mut store = store(Code::Pulley);
        let mut call = stack.run(&mut store, |_| {
            let panics = || {
                let _waits = Waits;
                panic!("with a destructor that waits");
            };
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            Ok(())
        });
        let waker = CountingWaker::new();
        assert!(matches!(poll_with(&mut call, &waker), Poll::Ready(Ok(()))));
        drop(call);
        // The same in the middle of another future's poll.
        let mut call = stack
            .run(&mut store, |_| Ok(suspend_until(async { (0..1000).try_for_each(|_| suspend_until(async {})) })??));
        assert!(matches!(poll_with(&mut call, &waker), Poll::Ready(Ok(()))));
        assert_eq!(waker.woken(), 0);
        Ok(())
    }

    /// Drops the call between two ready futures.
    #[test]
    fn cancelled_between_two() -> Result<()> {
        let mut stack = stack::<Thread>();
        let mut store = store(Code::Pulley);
        let mut call = stack.run(&mut store, |_| {
            loop {
                suspend_until(async {})?;
            }
        });
        let poll = std::pin::Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::<Result<()>>::Pending));
        drop(call);
        assert_eq!(finish(stack.run(&mut store, |_| Ok(1)))?, 1);
        Ok(())
    }
}
