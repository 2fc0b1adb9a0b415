//! wasmtime's own asynchronous calls, made within a call. They run on fibers of wasmtime's, which may be entered on one
//! thread and left on another. (The stores cannot be used for other calls afterwards, because such functions need
//! wasmtime's own async.)

use crate::{Checked, assert_usable, calls, checked, finish, pending, poll_once, refused, run, stack};
use std::cell::RefCell;
use std::task::Poll;
use std::thread;
use wasmtime::{Caller, Engine, Func, Result};
use wasmtime_async::{Between, FuncExt, Store};

checked!(entered_outside_of_the_call_and_left_within, awaited_by_an_async_host_function);

thread_local!(static LENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

/// A host function of wasmtime's own async that waits.
fn waits(caller: &mut Caller<'_, ()>, times: usize) -> Func {
    Func::wrap_async(caller, move |_: Caller<'_, ()>, (): ()| Box::new(pending(times)))
}

/// A synchronous host function drops a call of wasmtime's that another thread has polled. This must not hide that the
/// function itself is in between when a call of wasmtime's waits on this crate's stack.
fn entered_outside_of_the_call_and_left_within<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let wait = Func::wrap_suspending_send(&mut store, || pending(1));
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        let elsewhere = waits(&mut caller, 1);
        let mut call = Box::pin(elsewhere.call_async(&mut caller, &[], &mut []));
        let suspended = thread::scope(|scope| scope.spawn(|| poll_once(&mut call).is_pending()).join());
        assert!(suspended.expect("does not panic"));
        drop(call);
        LENT.with_borrow_mut(|_lent| {
            let mut call = Box::pin(wait.call_async(&mut caller, &[], &mut []));
            let Poll::Ready(outcome) = poll_once(&mut call) else { panic!("it was suspended by something else") };
            assert!(matches!(refused(outcome), Between::NestedCall | Between::OtherStack));
        });
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut Store::new(&Engine::default(), ()))
}

/// What an async host function awaits may be a call of wasmtime's own, which is suspended at the same time.
fn awaited_by_an_async_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, ()>, (): ()| {
        Box::new(async move {
            let slow = waits(&mut caller, 2);
            slow.call_async(&mut caller, &[], &mut []).await
        })
    });
    let mut stack = stack::<S>();
    let run = calls(&mut store, host)?;
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, 42);
    assert_usable(&mut stack, &mut Store::new(&Engine::default(), ()))
}
