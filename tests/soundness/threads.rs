//! Host code that uses threads.

use crate::{Around, Checked, Ways, assert_usable, checked, pending, poll_once, refused, run, stack};
use std::sync::mpsc::channel;
use std::thread;
use wasmtime::{Caller, Engine, Func, Result, Trap};
use wasmtime_async::{Between, Error, FuncExt, Store, suspend_until, yield_now};

checked!(
    a_caller_lent_to_another_thread,
    a_caller_lent_to_another_thread_within_a_poll,
    a_thread_that_ends_with_a_call_forgotten,
);

fn assert_not_on_stack<E: Into<wasmtime::Error>>(outcome: Result<(), E>) {
    let error = outcome.map_err(Into::into).expect_err("there is no stack to suspend");
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
}

/// Calls the guest on another thread, while this one waits.
fn call_elsewhere(caller: &mut Caller<'_, ()>, ways: &Ways) {
    thread::scope(|scope| {
        let elsewhere = scope.spawn(move || {
            assert_not_on_stack(suspend_until(pending(1)));
            assert_not_on_stack(yield_now());
            assert_not_on_stack(ways.wait.call(&mut *caller, &[], &mut []));
            let error = ways.again.call(&mut *caller, &[], &mut []).expect_err("there is no stack to suspend");
            // wasmtime's limit belongs to the stack where the guest was first entered, and may stop the guest here.
            let is_stopped = error.downcast_ref() == Some(&Trap::StackOverflow);
            assert!(is_stopped || matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
        });
        elsewhere.join().expect("is told so");
    });
}

fn a_caller_lent_to_another_thread<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        call_elsewhere(&mut caller, &ways);
        // Back on the first thread.
        ways.try_all(&mut caller, Around::HostFunction);
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

fn a_caller_lent_to_another_thread_within_a_poll<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, ()>, (): ()| {
        let ways = ways.clone();
        Box::new(async move {
            call_elsewhere(&mut caller, &ways);
            pending(1).await;
            call_elsewhere(&mut caller, &ways);
            assert_eq!(refused(ways.again.call(&mut caller, &[], &mut [])), Between::Poll);
        })
    });
    let run = crate::calls(&mut store, host)?;
    let mut stack = stack::<S>();
    assert_eq!(crate::finish(run.call(&mut stack, &mut store, ()))?, 42);
    assert_usable(&mut stack, &mut store)
}

/// A suspended call keeps nothing in its thread, so the thread may end.
fn a_thread_that_ends_with_a_call_forgotten<S: Checked>() -> Result<()> {
    let (send, stacks) = channel();
    let thread = thread::spawn(move || -> Result<()> {
        let mut store = Store::new(&Engine::default(), ());
        let nothing = Func::wrap(&mut store, || ());
        let run = crate::calls(&mut store, nothing)?;
        let mut stack = stack::<S>();
        let mut call = run.call(&mut stack, &mut store, ());
        assert!(poll_once(&mut call).is_pending());
        std::mem::forget(call);
        send.send(stack).expect("is listened to");
        Ok(())
    });
    thread.join().expect("ends in order")?;
    let mut stack = stacks.recv().expect("was sent");
    assert_usable(&mut stack, &mut Store::new(&Engine::default(), ()))
}
