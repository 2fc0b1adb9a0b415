//! Wakers of futures that wait for other futures in the middle of a poll, and suspend the stack there.
#![expect(unsafe_code, reason = "makes a waker that std's own ways to make one cannot")]

use crate::common::futures::{CountingWaker, pending, poll_with as poll_with_waker};
use crate::support::guest::{assert_usable, export_of, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use crate::wakers::{Event, poll_with};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, RawWaker, RawWakerVTable, Waker};
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Error, FuncExt, Stack, suspend_until};

matrix!(
    anything:
    no_two_are_alike,
    replaced_within_a_nested_poll,
    none_is_spent_in_vain,
    replaced_within_a_host_function_that_calls_back,
);

/// Whether two wakers wake the same task can only be guessed. For some executors the answer is always no.
fn no_two_are_alike<K: Kind>(code: Code) -> Result<()> {
    fn clone(data: *const ()) -> RawWaker {
        static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
        RawWaker::new(data.wrapping_byte_add(1), &VTABLE)
    }

    // SAFETY: the functions do nothing and use no data.
    let waker = unsafe { Waker::from_raw(clone(std::ptr::null())) };
    assert!(!waker.will_wake(&waker.clone()));

    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut call = stack.run_send(&mut store, |_| {
        let mut polled = 0;
        suspend_until(pending(2))?;
        // Waits within its first poll, and is pending once afterwards.
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
        if let Poll::Ready(polled) = poll_with_waker(&mut call, &waker) {
            break polled?;
        }
    };
    // The first poll suspended, so the future is polled again at once.
    assert_eq!((polls, polled), (6, 4));
    Ok(())
}

/// Waits for the last event. Within that future's first poll, waits for the other events in the same way.
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

/// A future asks to be woken for one event. Then, in the same poll, it waits for others by suspending the stack. In the
/// meantime the poller switches to another waker, which must be woken for the first event, too.
fn replaced_within_a_nested_poll<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for depth in 2..5 {
        // The innermost future waits for the first event.
        let events: Vec<_> = (0..depth).map(|_| Event::default()).collect();
        let inner = events.clone();
        let mut call = stack.run_send(&mut store, move |_| Ok(wait_for_last(&inner)?));
        let mut waker = CountingWaker::new();
        assert!(poll_with(&mut call, &waker).is_pending());
        for (n, event) in events.iter().enumerate() {
            let woken = waker.woken();
            event.set();
            assert_eq!(waker.woken(), woken + 1, "who polled last was not woken by event {n} of {depth}");
            // From here on there is another poller. The previous waker is gone.
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

/// The same with events in any order. An event of an outer future makes the poller poll, and the stack continues to
/// wait for an inner one. The outer future must hear about its event nevertheless.
fn none_is_spent_in_vain<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for same in [true, false] {
            let events: [_; 3] = std::array::from_fn(|_| Event::default());
            let inner = events.clone();
            let mut call = stack.run_send(&mut store, move |_| Ok(wait_for_last(&inner)?));
            let mut waker = CountingWaker::new();
            let mut ended = poll_with(&mut call, &waker).is_ready();
            for event in order {
                let woken = waker.woken();
                events[event].set();
                // Does what executors do: a task that is not woken is not polled.
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

/// The same as it happens in programs: a host function waits for a timer and calls back into wasm at the same time.
fn replaced_within_a_host_function_that_calls_back<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (timer, answer) = (Event::default(), Event::default());
    let inner = timer.clone();
    let both = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>| {
        let inner_func = export_of(&mut caller, "inner");
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
