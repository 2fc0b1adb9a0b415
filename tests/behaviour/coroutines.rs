//! Coroutines of another library that poll calls. Between two polls of a call they are suspended themselves, and something
//! else polls it.

use crate::common::futures::poll_once;
use crate::support::guest::{runner, stack, store, waits};
use crate::support::{Code, Kind, matrix};
use corosensei::Coroutine;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use wasmtime::Result;
use wasmtime_async::AsyncFunc;

matrix!(local: polled_by_several, dropped_by_another);

/// A call that is pending this many times.
fn waiting<K: Kind>(code: Code, times: usize) -> Result<K::Boxed> {
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, times);
    let text =
        r#"(module (import "" "" (func)) (func (export "run") (param i32) (result i32) (call 0) (local.get 0)))"#;
    let run = AsyncFunc::from(runner(&mut store, text, [wait])?.typed::<i32, i32>(&store)?);
    Ok(K::boxed(stack::<K>(), store, run, 7))
}

/// A coroutine that polls a call twice, and is suspended in between.
fn polls_twice<K: Kind>(call: &Rc<RefCell<K::Boxed>>) -> Coroutine<(), (), ()> {
    let call = Rc::clone(call);
    Coroutine::new(move |yielder, ()| {
        assert!(poll(&call).is_pending());
        yielder.suspend(());
        assert!(poll(&call).is_pending());
    })
}

fn poll<F: Future + Unpin>(call: &RefCell<F>) -> Poll<F::Output> {
    poll_once(&mut *call.borrow_mut())
}

#[track_caller]
fn assert_ends<F: Future<Output = Result<i32>> + Unpin>(call: &RefCell<F>) {
    assert!(matches!(poll(call), Poll::Ready(Ok(7))), "it was pending as often as it should be");
}

fn polled_by_several<K: Kind>(code: Code) -> Result<()> {
    let calls = [Rc::new(RefCell::new(waiting::<K>(code, 10)?)), Rc::new(RefCell::new(waiting::<K>(code, 8)?))];
    // Two of them poll the same call.
    let mut coroutines = [&calls[0], &calls[0], &calls[1]].map(polls_twice::<K>);
    for _ in 0..2 {
        for coroutine in &mut coroutines {
            coroutine.resume(());
            assert!(calls.iter().all(|call| poll(call).is_pending()));
        }
    }
    assert!(coroutines.iter().all(Coroutine::done));
    for call in &calls {
        assert_ends(call);
    }
    Ok(())
}

/// The coroutine that has polled the call is still there.
fn dropped_by_another<K: Kind>(code: Code) -> Result<()> {
    let call = Rc::new(RefCell::new(waiting::<K>(code, 2)?));
    let mut first = polls_twice::<K>(&call);
    first.resume(());
    let dropped = call.replace(waiting::<K>(code, 1)?);
    let mut second = Coroutine::<(), (), ()>::new(move |_, ()| drop(dropped));
    second.resume(());
    // It goes on with another call.
    first.resume(());
    assert!(first.done() && second.done());
    assert_ends(&call);
    Ok(())
}
