//! Wakers that do strange things when they wake a task, or when they are dropped.

use crate::{Checked, assert_usable, calls, checked, pending, refused, stack};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use wasmtime::{Engine, Func, Result};
use wasmtime_async::{Between, Error, FuncExt, Store, suspend_until};

checked!(that_poll_another_call, that_drop_or_forget_another_call, that_wait, that_wait_when_they_are_dropped);

/// Runs a closure when it wakes a task, on whichever stack that happens.
struct OnWake<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn on_wake(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Arc::new(OnWake(f)).into()
}

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

type Task = Pin<Box<dyn Future<Output = Result<i32>>>>;

thread_local!(static OTHER: RefCell<Option<Task>> = const { RefCell::new(None) });

/// A call that waits twice, with everything that it needs.
async fn whole_call<S: Checked>() -> Result<i32> {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let run = calls(&mut store, nothing)?;
    run.call(&mut stack::<S>(), &mut store, ()).await
}

/// Polls the other call, unless it is being polled already, and keeps its result.
fn poll_other(results: &Mutex<Vec<i32>>) {
    let Some(mut other) = OTHER.take() else { return };
    // The poll also wakes the task, which must then find nothing to poll.
    match poll_with(&mut other, Waker::noop()) {
        Poll::Pending => OTHER.set(Some(other)),
        Poll::Ready(result) => results.lock().expect("nothing panics").push(result.expect("comes out right")),
    }
}

fn that_poll_another_call<S: Checked>() -> Result<()> {
    let results = Arc::<Mutex<Vec<i32>>>::default();
    let inner = Arc::clone(&results);
    let waker = on_wake(move || poll_other(&inner));
    for _ in 0..3 {
        OTHER.set(Some(Box::pin(whole_call::<S>())));
        let mut call = Box::pin(whole_call::<S>());
        let mut polls = 1;
        while poll_with(&mut call, &waker).is_pending() {
            polls += 1;
        }
        assert_eq!(polls, 3);
        // It was woken twice, so it was polled twice.
        poll_other(&results);
    }
    assert_eq!(*results.lock().expect("nothing panics"), [42; 3]);
    Ok(())
}

fn that_drop_or_forget_another_call<S: Checked>() -> Result<()> {
    for forgets in [false, true] {
        let mut other = Box::pin(whole_call::<S>());
        assert!(poll_with(&mut other, Waker::noop()).is_pending());
        OTHER.set(Some(other));
        let waker = on_wake(move || match OTHER.take() {
            Some(other) if forgets => mem::forget(other),
            other => drop(other),
        });
        let mut call = Box::pin(whole_call::<S>());
        for _ in 0..2 {
            assert!(poll_with(&mut call, &waker).is_pending());
        }
        assert!(matches!(poll_with(&mut call, &waker), Poll::Ready(Ok(42))));
        assert!(OTHER.take().is_none());
    }
    assert_usable(&mut stack::<S>(), &mut Store::new(&Engine::default(), ()))
}

fn that_wait<S: Checked>() -> Result<()> {
    let (tell, outcomes) = channel();
    let waker = on_wake(move || tell.send(suspend_until(poll_fn(|_| Poll::<()>::Pending))).expect("is listened to"));
    let mut call = Box::pin(whole_call::<S>());
    for _ in 0..2 {
        assert!(poll_with(&mut call, &waker).is_pending());
        // Within the poll of the host function's future, which woke the waker.
        assert_eq!(refused(outcomes.recv()?), Between::HostCode);
    }
    assert!(matches!(poll_with(&mut call, &waker), Poll::Ready(Ok(42))));
    waker.wake();
    assert!(matches!(outcomes.recv()?, Err(Error::NotOnStack)));
    assert!(outcomes.try_recv().is_err());
    Ok(())
}

/// Reports the result of waiting when its last clone is dropped.
struct WaitsAtTheEnd(Sender<Result<(), Error>>);

impl Wake for WaitsAtTheEnd {
    fn wake(self: Arc<Self>) {}
}

impl Drop for WaitsAtTheEnd {
    fn drop(&mut self) {
        self.0.send(suspend_until(pending(1))).expect("is listened to");
    }
}

fn that_wait_when_they_are_dropped<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let wait = Func::wrap_suspending_send(&mut store, || async {
        // The waker is cloned, and dropped when another one comes.
        for _ in 0..3 {
            let mut polled = false;
            poll_fn(|_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    });
    let (tell, outcomes) = channel();
    let mut stack = stack::<S>();
    let mut call = wait.call_on(&mut stack, &mut store, &[], &mut []);
    for _ in 0..3 {
        assert!(poll_with(&mut call, &Arc::new(WaitsAtTheEnd(tell.clone())).into()).is_pending());
    }
    // All but the last were dropped on the call's stack, when the next one came.
    for _ in 0..2 {
        assert_eq!(refused(outcomes.try_recv()?), Between::HostCode);
    }
    assert!(outcomes.try_recv().is_err());
    drop(call);
    assert!(matches!(outcomes.try_recv()?, Err(Error::NotOnStack | Error::Cancelled)));
    assert_usable(&mut stack, &mut store)
}
