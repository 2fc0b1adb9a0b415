//! Which wakers futures get to see, and for how long they are kept.
#![expect(unsafe_code, reason = "makes a waker that std's own ways to make one cannot")]

use crate::common::futures::{CountingWaker, pending};
use crate::support::guest::{assert_usable, runner, stack, store};
use crate::support::{AnyStack, Code, Host, matrix};
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use wasmtime::{Caller, Extern, Func, Result};
use wasmtime_async::{Error, FuncExt, suspend_until, yield_now};

matrix!(
    the_last_one_is_woken,
    none_is_kept_after_the_end,
    clones_are_few,
    no_two_are_alike,
    panics_of_wakers,
    yielding_wakes,
    replaced_within_a_nested_poll,
    none_is_spent_in_vain,
    replaced_within_a_host_function_that_calls_back,
);

/// Something to wait for, until it is set. Like a channel, it wakes the last who asked.
#[derive(Clone, Debug, Default)]
struct Event(Arc<Mutex<(bool, Option<Waker>)>>);

impl Event {
    fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
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

    fn set(&self) {
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

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Arc<CountingWaker>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(waker));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

const ONCE: &str = r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#;

fn the_last_one_is_woken<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let event = Event::default();
    let inner = event.clone();
    let wait = Func::wrap_suspending(&mut store, async move || inner.wait().await);
    let run = runner(&mut store, ONCE, [wait])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    let wakers: [_; 5] = std::array::from_fn(|_| CountingWaker::new());
    for waker in &wakers {
        assert!(poll_with(&mut call, waker).is_pending());
    }
    // Nothing of the others is left.
    assert_eq!(wakers.each_ref().map(Arc::strong_count)[..4], [1; 4]);
    event.set();
    assert_eq!(wakers.each_ref().map(|waker| waker.woken()), [0, 0, 0, 0, 1]);
    assert!(matches!(poll_with(&mut call, &wakers[0]), Poll::Ready(Ok(()))));
    assert_eq!(wakers.each_ref().map(Arc::strong_count), [1; 5]);
    Ok(())
}

fn none_is_kept_after_the_end<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let end = Func::wrap_suspending(&mut store, async |caller: Caller<'_, Host>| -> Result<()> {
        // Pending with a waker of its own in hand.
        let mut polled = 0;
        poll_fn(|cx| {
            let _held = cx.waker().clone();
            polled += 1;
            if polled == 3 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let _held = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        pending(1).await;
        match caller.data().id {
            0 => Ok(()),
            1 => Err(wasmtime::format_err!("ended in an error")),
            2 => resume_unwind(Box::new(())),
            _ => std::future::pending().await,
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

/// As long as the poller's waker stays the same, none is cloned but one for the call.
fn clones_are_few<S: AnyStack>(code: Code) -> Result<()> {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    fn clone(clones: *const ()) -> RawWaker {
        // SAFETY: the data of this test's waker.
        unsafe { &*clones.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
        RawWaker::new(clones, &VTABLE)
    }

    let mut stack = stack::<S>();
    let mut store = store(code);
    let clones = AtomicUsize::new(0);
    // SAFETY: the data is there for as long as the call, and `clone` takes it for what it is.
    let waker = unsafe { Waker::from_raw(RawWaker::new(ptr::from_ref(&clones).cast(), &VTABLE)) };
    let mut call = stack.go(&mut store, |_| {
        for _ in 0..5 {
            // Without the wake-up of `pending`, so as to use none up.
            let mut polled = false;
            suspend_until(poll_fn(|_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }))?;
        }
        Ok(())
    });
    let mut polls = 1;
    while Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending() {
        polls += 1;
    }
    assert_eq!((polls, clones.load(Ordering::Relaxed)), (6, 1));
    Ok(())
}

/// Whether two wakers wake the same task can only be guessed. Those of some executors never look as if they did.
fn no_two_are_alike<S: AnyStack>(code: Code) -> Result<()> {
    fn clone(data: *const ()) -> RawWaker {
        static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
        RawWaker::new(data.wrapping_byte_add(1), &VTABLE)
    }

    // SAFETY: the functions do nothing, with data that is nothing.
    let waker = unsafe { Waker::from_raw(clone(std::ptr::null())) };
    assert!(!waker.will_wake(&waker.clone()));

    let mut stack = stack::<S>();
    let mut store = store(code);
    let mut call = stack.go(&mut store, |_| {
        let mut polled = 0;
        suspend_until(pending(2))?;
        // Waits within its first poll, and is then pending once.
        suspend_until(poll_fn(|_| {
            polled += 1;
            if polled == 1 {
                suspend_until(pending(1)).expect("is on a stack");
            }
            if polled < 4 { Poll::Pending } else { Poll::Ready(()) }
        }))?;
        Ok(polled)
    });
    let mut polls = 0;
    let polled = loop {
        polls += 1;
        if let Poll::Ready(polled) = Pin::new(&mut call).poll(&mut Context::from_waker(&waker)) {
            break polled?;
        }
    };
    // The first poll, which suspended, is made up for at once.
    assert_eq!((polls, polled), (6, 4));
    Ok(())
}

/// Wakers are foreign code, too.
fn panics_of_wakers<S: AnyStack>(code: Code) -> Result<()> {
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
    fn poll<F: Future + Unpin>(future: &mut F, on_wake: bool) -> thread::Result<bool> {
        let waker = Waker::from(Arc::new(Panics { on_wake }));
        catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(&mut Context::from_waker(&waker)).is_ready()))
    }

    let mut stack = stack::<S>();
    let mut store = store(code);
    // Woken by the code on the stack.
    let mut call = stack.go(&mut store, |_| Ok(yield_now()?));
    assert!(poll(&mut call, true).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)?;

    // Replaced on the stack, when another one comes.
    let forever = || Ok(suspend_until(std::future::pending::<()>())?);
    let mut call = stack.go(&mut store, |_| forever());
    assert!(!poll(&mut call, false).expect("the call has the last"));
    assert!(poll(&mut call, true).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)?;

    // Dropped at the end, by drop.
    let mut call = stack.go(&mut store, |_| forever());
    assert!(!poll(&mut call, false).expect("the call has the last"));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());
    assert_usable(&mut stack, &mut store)
}

fn yielding_wakes<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let mut call = stack.go(&mut store, |_| {
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

/// Waits for the last event and, within that future's first poll, for the others in the same way.
fn wait_for_last(events: &[Event]) -> Result<(), Error> {
    let Some((inner, outer)) = events.split_last() else { return Ok(()) };
    let mut wait = Box::pin(inner.wait());
    let mut nested = false;
    suspend_until(poll_fn(|cx| {
        let poll = wait.as_mut().poll(cx);
        if !nested {
            nested = true;
            wait_for_last(outer).expect("is on a stack");
        }
        poll
    }))
}

/// A future that asks to be woken for one event and then, in the same poll, waits for others by suspending the stack.
/// Meanwhile the poller comes with another waker. That one is to be woken for the first event too.
fn replaced_within_a_nested_poll<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    for depth in 2..5 {
        // The innermost waits for the first.
        let events: Vec<_> = (0..depth).map(|_| Event::default()).collect();
        let inner = events.clone();
        let mut call = stack.go(&mut store, move |_| Ok(wait_for_last(&inner)?));
        let mut waker = CountingWaker::new();
        assert!(poll_with(&mut call, &waker).is_pending());
        for (n, event) in events.iter().enumerate() {
            let woken = waker.woken();
            event.set();
            assert_eq!(waker.woken(), woken + 1, "who polled last was not woken by event {n} of {depth}");
            // Another poller from now on. The waker of the one before is gone.
            waker = CountingWaker::new();
            let ended = poll_with(&mut call, &waker);
            assert_eq!(ended.is_ready(), n == depth - 1);
        }
        drop(call);
        assert_eq!(Arc::strong_count(&waker), 1);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// The same with events in any order: a wake-up for an event of a future further out makes the poller poll, and the
/// stack go on waiting for one further in. The future further out is to hear of its event all the same.
fn none_is_spent_in_vain<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for same in [true, false] {
            let events: [_; 3] = std::array::from_fn(|_| Event::default());
            let inner = events.clone();
            let mut call = stack.go(&mut store, move |_| Ok(wait_for_last(&inner)?));
            let mut waker = CountingWaker::new();
            let mut ended = poll_with(&mut call, &waker).is_ready();
            for event in order {
                let woken = waker.woken();
                events[event].set();
                // As executors do: who is not woken is not polled.
                if waker.woken() > woken {
                    if !same {
                        waker = CountingWaker::new();
                    }
                    ended = poll_with(&mut call, &waker).is_ready();
                }
            }
            assert!(ended, "{order:?}");
        }
    }
    assert_usable(&mut stack, &mut store)
}

/// The same as it comes about in programs: a host function waits for a timer and calls back into wasm, at once.
fn replaced_within_a_host_function_that_calls_back<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let (timer, answer) = (Event::default(), Event::default());
    let inner = timer.clone();
    let both = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>| {
        let inner_func = caller.get_export("inner").and_then(Extern::into_func).expect("is exported");
        let calls_back = async { inner_func.call(&mut caller, &[], &mut []) };
        let ((), called) = futures::join!(inner.wait(), calls_back);
        called
    });
    let inner = answer.clone();
    let wait = Func::wrap_suspending(&mut store, async move || inner.wait().await);
    let text = r#"(module
        (import "" "both" (func $both))
        (import "" "wait" (func $wait))
        (func (export "inner") (call $wait))
        (func (export "run") (call $both)))"#;
    let run = runner(&mut store, text, [both, wait])?;

    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    let wakers: [_; 3] = std::array::from_fn(|_| CountingWaker::new());
    assert!(poll_with(&mut call, &wakers[0]).is_pending());
    answer.set();
    assert_eq!(wakers[0].woken(), 1);
    assert!(poll_with(&mut call, &wakers[1]).is_pending());
    assert_eq!(Arc::strong_count(&wakers[0]), 1);
    timer.set();
    assert_eq!(wakers[1].woken(), 1, "the timer wakes who polled last");
    assert!(matches!(poll_with(&mut call, &wakers[2]), Poll::Ready(Ok(()))));
    assert_eq!(wakers.each_ref().map(Arc::strong_count), [1; 3]);
    drop(call);
    assert_usable(&mut stack, &mut store)
}
