//! Calls within calls, on stacks of their own. These are suspended, whatever their poller is doing.

use crate::{Around, Checked, Ways, assert_usable, calls, calls_twice, checked, finish, poll_once, run, stack};
use futures::executor::block_on;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{FuncExt, Store};

checked!(
    polled_to_its_end_in_a_host_function,
    polled_to_its_end_by_an_async_host_function,
    begun_in_a_host_function_and_ended_outside,
    begun_outside_and_dropped_in_a_host_function,
);

/// A call of a guest that waits twice, with everything that it needs.
async fn whole_call<S: Checked>() -> Result<i32> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host =
        Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| ways.try_all(&mut caller, Around::HostFunction));
    let run = calls_twice(&mut store, host)?;
    run.call(&mut stack::<S>(), &mut store, ()).await
}

/// A whole call, which is polled in several places.
type Task = Pin<Box<dyn Future<Output = Result<i32>>>>;

fn polled_to_its_end_in_a_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let lock = Mutex::new(());
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| -> Result<()> {
        let _locked = lock.lock().expect("nothing panics");
        assert_eq!(block_on(whole_call::<S>())?, 42);
        // This stack must still not be suspended here.
        ways.try_all(&mut caller, Around::HostFunction);
        assert_eq!(block_on(whole_call::<S>())?, 42);
        Ok(())
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

fn polled_to_its_end_by_an_async_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap_suspending(&mut store, async || -> Result<()> {
        // Runs to its end within one poll, because an awaited call need not be `Send`.
        assert_eq!(finish(Box::pin(whole_call::<S>()))?, 42);
        Ok(())
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

thread_local!(static TASK: RefCell<Option<Task>> = const { RefCell::new(None) });

/// Polls the task, which nobody else has in the meantime.
fn poll_task() -> Poll<Result<i32>> {
    let mut task = TASK.take().expect("was begun");
    let poll = poll_once(&mut task);
    TASK.set(Some(task));
    poll
}

fn begun_in_a_host_function_and_ended_outside<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap(&mut store, || {
        TASK.set(Some(Box::pin(whole_call::<S>())));
        assert!(poll_task().is_pending());
    });
    let mut stack = stack::<S>();
    for first in ["the outer call", "the inner call"] {
        let run = calls(&mut store, host)?;
        let mut outer = run.call(&mut stack, &mut store, ());
        assert!(poll_once(&mut outer).is_pending());
        if first == "the outer call" {
            assert_eq!(finish(outer)?, 42);
            assert!(poll_task().is_pending());
            assert!(matches!(poll_task(), Poll::Ready(Ok(42))));
        } else {
            assert!(poll_task().is_pending());
            assert!(matches!(poll_task(), Poll::Ready(Ok(42))));
            assert_eq!(finish(outer)?, 42);
        }
    }
    assert_usable(&mut stack, &mut store)
}

fn begun_outside_and_dropped_in_a_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let poll = Func::wrap(&mut store, || assert!(poll_task().is_pending()));
    let drop = Func::wrap(&mut store, || drop(TASK.take()));
    let mut stack = stack::<S>();
    TASK.set(Some(Box::pin(whole_call::<S>())));
    assert!(poll_task().is_pending());
    run(&mut stack, &mut store, poll)?;
    run(&mut stack, &mut store, drop)?;
    assert!(TASK.take().is_none());
    assert_usable(&mut stack, &mut store)
}
