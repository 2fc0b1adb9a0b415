//! What `SendFiberStack` adds: it suspends nothing that is not `Send`, and what it suspends can continue on any thread.

use crate::{Around, Ways, assert_usable, calls_twice, pending, poll_once, refused, run, stack};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;
use std::thread;
use wasmtime::{AsContextMut, Caller, Engine, Func, FuncType, Result};
use wasmtime_async::{Between, Error, FuncExt, SendFiberStack, Stack as _, Store};

/// Whether the call got the error that something pending is not `Send`.
fn is_not_send(outcome: &Poll<Result<()>>) -> bool {
    matches!(outcome, Poll::Ready(Err(error)) if matches!(error.downcast_ref(), Some(Error::NotSend)))
}

#[test]
fn futures_that_may_not_be_send_do_not_wait() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = FuncType::new(store.engine(), [], []);
    let waits = [
        Func::wrap_suspending(&mut store, async || {
            let held = Rc::new(Cell::new(1));
            pending(1).await;
            held.set(2);
        }),
        Func::wrap_suspending(&mut store, async |_: Caller<'_, ()>| pending(1).await),
        Func::new_suspending(&mut store, nothing, async |_, _, _| {
            pending(1).await;
            Ok(())
        }),
    ];
    let mut stack = stack::<SendFiberStack>();
    for wait in waits {
        let mut call = wait.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(is_not_send(&poll_once(&mut call)));
        drop(call);
        assert_usable(&mut stack, &mut store)?;
    }
    // A future that is ready at once is never suspended.
    let ready = Func::wrap_suspending(&mut store, async || {
        let held = Rc::new(Cell::new(1));
        pending(0).await;
        held.set(2);
    });
    run(&mut stack, &mut store, ready)
}

/// A value that is not `Send` lies on the stack below a guest that waits as allowed.
#[test]
fn what_is_not_send_is_not_left_below_a_guest_that_waits() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let in_closure = ways.clone();
    let holds = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        let held = Rc::new(Cell::new(1));
        ways.try_all(&mut caller, Around::HostFunction);
        held.set(2);
    });
    let mut stack = stack::<SendFiberStack>();
    run(&mut stack, &mut store, holds)?;
    let mut call = stack.run(&mut store, move |mut store| {
        let held = Rc::new(Cell::new(1));
        in_closure.try_all(&mut store, Around::Closure);
        held.set(2);
        Ok(held.get())
    });
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(2))));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// A store within the call, whose data is not `Send`.
#[test]
fn data_that_is_not_send_does_not_come_along() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap(&mut store, |caller: Caller<'_, ()>| -> Result<()> {
        let data = Rc::new(Cell::new(1));
        let mut own = wasmtime::Store::new(caller.engine(), Rc::clone(&data));
        let ways = Ways::new(&mut own)?;
        assert_eq!(refused(ways.again.call(own.as_context_mut(), &[], &mut [])), Between::OtherStore);
        data.set(2);
        Ok(())
    });
    let mut stack = stack::<SendFiberStack>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

type Task = Pin<Box<dyn Future<Output = Result<i32>> + Send>>;

/// A call of a guest that waits twice, with everything that it needs.
fn whole_call() -> Task {
    Box::pin(async {
        let mut store = Store::new(&Engine::default(), ());
        let ways = Ways::new(&mut store)?;
        let host =
            Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| ways.try_all(&mut caller, Around::HostFunction));
        let run = calls_twice(&mut store, host)?;
        run.call(&mut stack::<SendFiberStack>(), &mut store, ()).await
    })
}

/// Runs this on a new thread, which then ends.
fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(f).join()).expect("does not panic")
}

#[test]
fn the_thread_where_a_call_was_begun_may_have_ended() {
    let mut call = whole_call();
    for _ in 0..2 {
        assert!(elsewhere(|| poll_once(&mut call)).is_pending());
    }
    assert!(matches!(elsewhere(|| poll_once(&mut call)), Poll::Ready(Ok(42))));

    let mut call = whole_call();
    assert!(elsewhere(|| poll_once(&mut call)).is_pending());
    elsewhere(move || drop(call));
}

/// Each poll is within a host function of another call, on another stack and another thread, or outside of any call.
#[test]
fn a_call_goes_on_within_others() -> Result<()> {
    static TASK: Mutex<Option<Task>> = Mutex::new(None);

    fn poll_task() {
        let mut task = TASK.lock().expect("nothing panics").take().expect("is there");
        match poll_once(&mut task) {
            Poll::Pending => *TASK.lock().expect("nothing panics") = Some(task),
            Poll::Ready(result) => assert_eq!(result.expect("comes out right"), 42),
        }
    }

    fn poll_within() -> Result<()> {
        let mut store = Store::new(&Engine::default(), ());
        let ways = Ways::new(&mut store)?;
        let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
            poll_task();
            ways.try_all(&mut caller, Around::HostFunction);
        });
        run(&mut stack::<SendFiberStack>(), &mut store, host)
    }

    for within in 0..8 {
        *TASK.lock().expect("nothing panics") = Some(whole_call());
        for poll in 0..3 {
            if within >> poll & 1 == 1 { elsewhere(poll_within)? } else { elsewhere(poll_task) }
        }
        assert!(TASK.lock().expect("nothing panics").is_none());
    }
    Ok(())
}
