//! Calls that end at a deadline.

use crate::common::futures::{CountingWaker, cancel, finish, pending, poll_caught, poll_once};
use crate::support::guest::{assert_usable, runner, stack, store, with};
use crate::support::{Code, Host, Kind, matrix};
use crate::wakers::{Event, poll_with};
use futures::future::{FusedFuture, ready};
use std::fmt::Debug;
use std::task::Poll;
use std::time::Duration;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{AsyncFunc, Error, FuncExt, LinkerExt, Store};

matrix!(
    ends_before,
    in_a_host_function,
    spinning_with_slices,
    before_the_first_poll,
    when_both_are_ready,
    dropped,
    forgotten,
    panics_on_the_way_out,
    instantiation,
    timers_that_are_pinned,
);

#[track_caller]
fn assert_late<R: Debug>(result: Result<R>) {
    let error = result.expect_err("ends at its deadline");
    assert!(matches!(error.downcast_ref(), Some(Error::Deadline)), "{error:?}");
    assert!(error.to_string().contains("deadline"), "{error}");
}

/// A guest that waits for the event, and logs when its host function is left.
fn waiter(store: &mut Store<Host>, event: &Event) -> Result<AsyncFunc<i32, i32>> {
    let event = event.clone();
    let wait = Func::wrap_suspending_send(&mut *store, move |caller: Caller<'_, Host>, n: i32| {
        let (event, local) = (event.wait(), caller.data().log.on_drop("left"));
        async move {
            let _local = local;
            event.await;
            n + 1
        }
    });
    let text = r#"(module
        (import "" "" (func (param i32) (result i32)))
        (func (export "run") (param i32) (result i32) (call 0 (local.get 0))))"#;
    runner(store, text, [wait])?.get_async(&*store).typed()
}

fn ends_before<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let (event, timer) = (Event::default(), Event::default());
    let run = waiter(&mut store, &event)?;
    let mut call = Box::pin(run.call(&mut stack, &mut store, 1).until(timer.wait()));
    assert!(format!("{call:?}").contains("new"), "{call:?}");
    let waker = CountingWaker::new();
    assert!(poll_with(&mut call, &waker).is_pending());
    assert!(format!("{call:?}").contains("suspended"), "{call:?}");
    assert!(!call.is_terminated());
    event.set();
    assert_eq!(waker.woken(), 1);
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(2))));
    // Whatever the timer does now.
    timer.set();
    assert!(call.is_terminated());
    let error = finish(&mut call).expect_err("was taken");
    assert!(matches!(error.downcast_ref(), Some(Error::Ended)), "{error:?}");
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn in_a_host_function<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let timer = Event::default();
    let run = waiter(&mut store, &Event::default())?;
    let log = store.data().log.clone();
    let mut call = Box::pin(run.call(&mut stack, &mut store, 1).until(timer.wait()));
    let waker = CountingWaker::new();
    for _ in 0..3 {
        assert!(poll_with(&mut call, &waker).is_pending());
    }
    assert_eq!(waker.woken(), 0);
    timer.set();
    assert_eq!(waker.woken(), 1);
    assert!(log.take().is_empty());
    assert_late(finish(&mut call));
    assert_eq!(log.take(), ["left"]);
    assert!(call.is_terminated());
    let error = finish(&mut call).expect_err("was taken");
    assert!(matches!(error.downcast_ref(), Some(Error::Ended)), "{error:?}");
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn spinning_with_slices<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.epoch_interruption(true);
    })?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_suspend_and_update(1);
    let clock = store.engine().clone();
    let tick = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| {
        caller.data_mut().id += 1;
        clock.increment_epoch();
    });
    let text = r#"(module (import "" "" (func $tick)) (func (export "run") (loop (call $tick) (br 0))))"#;
    let run = runner(&mut store, text, [tick])?;
    // The timer is ready at its sixth poll.
    let mut call = Box::pin(run.call_on(&mut stack, &mut store, &[], &mut []).until(Box::pin(pending(5))));
    for _ in 0..5 {
        assert!(poll_once(&mut call).is_pending());
    }
    assert_late(finish(&mut call));
    drop(call);
    assert_eq!(store.data().id, 5, "turns of the guest");
    store.set_epoch_deadline(1 << 40);
    assert_usable(&mut stack, &mut store)
}

fn before_the_first_poll<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let run = waiter(&mut store, &Event::default())?;
    assert_late(finish(run.call(&mut stack, &mut store, 1).until(ready("whatever"))));
    assert!(store.data().log.take().is_empty(), "nothing has run");
    assert_usable(&mut stack, &mut store)
}

fn when_both_are_ready<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let event = Event::default();
    let run = waiter(&mut store, &event)?;
    let mut call = Box::pin(run.call(&mut stack, &mut store, 1).until(event.wait()));
    assert!(poll_once(&mut call).is_pending());
    event.set();
    assert_late(finish(call));
    assert_usable(&mut stack, &mut store)
}

fn dropped<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let run = waiter(&mut store, &Event::default())?;
    for polls in [0, 1] {
        let mut call = Box::pin(run.call(&mut stack, &mut store, 1).until(pending(usize::MAX)));
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        assert_eq!(store.data().log.take().len(), polls);
    }
    assert_usable(&mut stack, &mut store)
}

fn forgotten<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let run = waiter(&mut store, &Event::default())?;
    let mut call = Box::pin(run.call(&mut stack, &mut store, 1).until(pending(usize::MAX)));
    assert!(poll_once(&mut call).is_pending());
    std::mem::forget(call);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.data().id)).is_err(), "is lost");
    assert_usable(&mut stack, &mut self::store(code))
}

fn panics_on_the_way_out<K: Kind>(code: Code) -> Result<()> {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("on the way out");
        }
    }

    let (mut stack, mut store) = (stack::<K>(), store(code));
    let wait = Func::wrap_suspending_send(&mut store, || async {
        let _panics = Panics;
        pending(usize::MAX).await;
    });
    let run = runner(&mut store, crate::support::guest::ONCE, [wait])?;
    let timer = Event::default();
    let mut call = Box::pin(run.call_on(&mut stack, &mut store, &[], &mut []).until(timer.wait()));
    assert!(poll_once(&mut call).is_pending());
    timer.set();
    let payload = poll_caught(&mut call).expect_err("goes on");
    assert_eq!(payload.downcast_ref(), Some(&"on the way out"));
    assert!(call.is_terminated());
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn instantiation<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut store) = (stack::<K>(), store(code));
    let mut linker = wasmtime::Linker::new(store.engine());
    linker.func_wrap_suspending_send("", "", || pending(usize::MAX))?;
    let text = r#"(module (import "" "" (func)) (start 0))"#;
    let module = wasmtime::Module::new(store.engine(), text)?;
    let timer = Event::default();
    let mut call = Box::pin(linker.instantiate_on(&mut stack, &mut store, &module).until(timer.wait()));
    assert!(poll_once(&mut call).is_pending());
    timer.set();
    assert_late(finish(call));
    assert_usable(&mut stack, &mut store)
}

/// A timer that must be pinned is pinned with the call, and moves wherever the call moves.
fn timers_that_are_pinned<K: Kind>(code: Code) -> Result<()> {
    fn is_unpin<F: Unpin>(_: &F) {}

    let (mut stack, mut store) = (stack::<K>(), store(code));
    let run = waiter(&mut store, &Event::default())?;
    let mut call = run.call(&mut stack, &mut store, 1).until(ready(()));
    is_unpin(&call);
    assert_late(finish(&mut call));
    drop(call);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        assert_late(run.call(&mut stack, &mut store, 1).until(tokio::time::sleep(Duration::from_millis(1))).await);
    });
    assert_usable(&mut stack, &mut store)
}
