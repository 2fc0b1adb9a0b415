//! Which wakers futures see, and how long those are kept.
#![expect(unsafe_code, reason = "makes a waker that std's own ways to make one cannot")]

use crate::common::futures::{CountingWaker, cancel, pending, poll_with as poll_with_waker};
use crate::support::guest::{ONCE, assert_usable, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{FuncExt, Stack, yield_now};

matrix!(the_last_one_is_woken, none_is_kept_after_the_end, clones_are_few, panics_of_wakers_that_are_dropped);

matrix!(
    anything:
    panics_of_wakers_that_are_woken,
    yielding_wakes,
);

/// An event to wait for. Like a channel, it wakes the last task that asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event(Arc<Mutex<(bool, Option<Waker>)>>);

impl Event {
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let event = self.clone();
        poll_fn(move |cx| {
            let mut state = event.0.lock().expect("nothing panics with the lock held");
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    pub(crate) fn set(&self) {
        let waker = {
            let mut state = self.0.lock().expect("nothing panics with the lock held");
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Arc<CountingWaker>) -> Poll<F::Output> {
    poll_with_waker(future, &Waker::from(Arc::clone(waker)))
}

fn the_last_one_is_woken<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let event = Event::default();
    let inner = event.clone();
    let wait = Func::wrap_suspending_send(&mut store, move || inner.wait());
    let run = runner(&mut store, ONCE, [wait])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    let wakers: [_; 5] = std::array::from_fn(|_| CountingWaker::new());
    for waker in &wakers {
        assert!(poll_with(&mut call, waker).is_pending());
    }
    // No clones of the other wakers are left.
    assert_eq!(wakers.each_ref().map(Arc::strong_count)[..4], [1; 4]);
    event.set();
    assert_eq!(wakers.each_ref().map(|waker| waker.woken()), [0, 0, 0, 0, 1]);
    assert!(matches!(poll_with(&mut call, &wakers[0]), Poll::Ready(Ok(()))));
    assert_eq!(wakers.each_ref().map(Arc::strong_count), [1; 5]);
    Ok(())
}

fn none_is_kept_after_the_end<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let end = Func::wrap_suspending_send(&mut store, |caller: Caller<'_, Host>| {
        let ending = caller.data().id;
        async move {
            // Pending, while it holds a waker of its own.
            let mut polled = 0;
            poll_fn(|cx| {
                let _held = cx.waker().clone();
                polled += 1;
                if polled == 3 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let _held = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            pending(1).await;
            match ending {
                0 => Ok(()),
                1 => Err(wasmtime::format_err!("ended in an error")),
                2 => resume_unwind(Box::new(())),
                _ => std::future::pending().await,
            }
        }
    });
    let run = runner(&mut store, ONCE, [end])?;
    let waker = CountingWaker::new();
    for ending in 0..4 {
        store.data_mut().id = ending;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        for _ in 0..3 {
            assert!(poll_with(&mut call, &waker).is_pending());
            assert!(Arc::strong_count(&waker) > 1, "one is kept while it waits");
        }
        let last = catch_unwind(AssertUnwindSafe(|| poll_with(&mut call, &waker)));
        match (ending, last) {
            (0, Ok(Poll::Ready(Ok(())))) | (1, Ok(Poll::Ready(Err(_)))) | (2, Err(_)) => {
                assert_eq!(Arc::strong_count(&waker), 1, "at the end, though the call is still there");
            }
            (3, Ok(Poll::Pending)) => assert!(Arc::strong_count(&waker) > 1),
            (_, other) => panic!("{ending}: {other:?}"),
        }
        drop(call);
        assert_eq!(Arc::strong_count(&waker), 1);
    }
    assert_eq!(waker.woken(), 4);
    assert_usable(&mut stack, &mut store)
}

/// As long as the poller uses the same waker, only one clone is made, for the call.
fn clones_are_few<K: Kind>(code: Code) -> Result<()> {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    fn clone(clones: *const ()) -> RawWaker {
        // SAFETY: this is the data of this test's waker.
        unsafe { &*clones.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
        RawWaker::new(clones, &VTABLE)
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let clones = AtomicUsize::new(0);
    // SAFETY: the data lives as long as the call, and `clone` uses it as the right type.
    let waker = unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(&clones).cast(), &VTABLE)) };
    let wait = Func::wrap_suspending_send(&mut store, || {
        // Without the wake-up that `pending` does, so that no clone is used up.
        let mut polled = false;
        poll_fn(move |_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
    });
    let text = r#"(module
        (import "" "" (func $wait))
        (func (export "run") (call $wait) (call $wait) (call $wait) (call $wait) (call $wait)))"#;
    let run = runner(&mut store, text, [wait])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    let mut polls = 1;
    while poll_with_waker(&mut call, &waker).is_pending() {
        polls += 1;
    }
    assert_eq!((polls, clones.load(Ordering::Relaxed)), (6, 1));
    Ok(())
}

/// Wakers are foreign code, too, and may panic.
struct Panics {
    on_wake: bool,
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        assert!(!self.on_wake, "woken");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(self.on_wake || thread::panicking(), "dropped");
    }
}

impl Panics {
    /// Polls with such a waker, and returns whether the future was ready.
    fn poll<F: Future + Unpin>(future: &mut F, on_wake: bool) -> thread::Result<bool> {
        let waker = Waker::from(Arc::new(Self { on_wake }));
        catch_unwind(AssertUnwindSafe(|| poll_with_waker(future, &waker).is_ready()))
    }
}

/// The code on the stack wakes the waker.
fn panics_of_wakers_that_are_woken<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut call = stack.run_send(&mut store, |_| Ok(yield_now()?));
    assert!(Panics::poll(&mut call, true).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn panics_of_wakers_that_are_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let forever = Func::wrap_suspending_send(&mut store, std::future::pending::<()>);
    let run = runner(&mut store, ONCE, [forever])?;

    // The waker is replaced on the stack when another one comes.
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(!Panics::poll(&mut call, false).expect("the call has the last"));
    assert!(Panics::poll(&mut call, true).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)?;

    // The waker is dropped at the end, by dropping the call.
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(!Panics::poll(&mut call, false).expect("the call has the last"));
    assert!(catch_unwind(AssertUnwindSafe(|| cancel(call))).is_err());
    assert_usable(&mut stack, &mut store)
}

fn yielding_wakes<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut call = stack.run_send(&mut store, |_| {
        for _ in 0..3 {
            yield_now()?;
        }
        Ok(())
    });
    for _ in 0..3 {
        let waker = CountingWaker::new();
        assert!(poll_with(&mut call, &waker).is_pending());
        assert_eq!((waker.woken(), Arc::strong_count(&waker)), (1, 1));
    }
    let waker = CountingWaker::new();
    assert!(poll_with(&mut call, &waker).is_ready());
    assert_eq!((waker.woken(), Arc::strong_count(&waker)), (0, 1));
    Ok(())
}
