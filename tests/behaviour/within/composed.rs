//! Nested calls next to other futures: timeouts, and futures that nested calls wait for.

use super::{GUEST, NEVER, RUN, call_back, end, fibers, func, in_place, program, wait};
use crate::common::futures::{CountingWaker, pending, poll_once};
use crate::support::guest::{assert_usable, export_of, runner, stack, store, with};
use crate::support::{Code, Host, Kind, matrix};
use crate::wakers::{Event, poll_with};
use futures::channel::oneshot;
use futures::future::{Either, join, select};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{AsyncFunc, FuncExt, Store};

matrix!(the_last_waker_is_woken);

fibers!(timeouts, timeouts_of_guests_that_spin, joined_with_what_it_waits_for);

in_place!(timeouts_come_late, others_have_their_turn_afterwards, guests_wait_in_vain_for_others);

/// Polls like an executor, as long as the waker is woken. Pending means that something else must happen first.
pub(super) fn poll_while_woken<F: Future + Unpin>(call: &mut F, waker: &Arc<CountingWaker>) -> Poll<F::Output> {
    for _ in 0..10_000 {
        let woken = waker.woken();
        let poll = poll_with(call, waker);
        if poll.is_ready() || waker.woken() == woken {
            return poll;
        }
    }
    panic!("woken for ever");
}

/// Where a host function finds the channel to receive from.
pub(super) type Slot = Arc<Mutex<Option<oneshot::Receiver<i32>>>>;

/// A host function that waits for a message.
pub(super) fn receives(store: &mut Store<Host>) -> (Func, Slot) {
    let slot = Slot::default();
    let inner = Arc::clone(&slot);
    let receive = Func::wrap_suspending_send(store, move |_: i32| {
        let receiver = inner.lock().expect("nothing panics with the lock held").take();
        async move { Ok::<_, wasmtime::Error>(receiver.expect("is there to be received from").await?) }
    });
    (receive, slot)
}

/// `run` of a [`GUEST`] with these host functions.
pub(super) fn program_with(store: &mut Store<Host>, wait: Func, back: Func) -> Result<AsyncFunc<i32, i32>> {
    runner(store, GUEST, [wait, back])?.get_async(&*store).typed()
}

fn the_last_waker_is_woken<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let event = Event::default();
    let inner = event.clone();
    let wait = Func::wrap_suspending_send(&mut store, move |n: i32| {
        let event = inner.wait();
        async move {
            event.await;
            n
        }
    });
    let back = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        // Two levels, each of which forwards its parameter.
        Box::new(async move { call_back(&mut caller, if n == 0 { "inner" } else { "again" }, n - 1).await })
    });
    let run = program_with(&mut store, wait, back)?;
    let mut call = run.call(&mut stack, &mut store, 1);
    let wakers: [_; 4] = std::array::from_fn(|_| CountingWaker::new());
    for waker in &wakers {
        assert!(poll_with(&mut call, waker).is_pending());
    }
    let woken = wakers.each_ref().map(|waker| waker.woken());
    event.set();
    assert_eq!(wakers.each_ref().map(|waker| waker.woken()), [woken[0], woken[1], woken[2], woken[3] + 1]);
    assert_eq!(end(&mut call).1?, 1 + 1);
    assert_eq!(wakers.each_ref().map(Arc::strong_count), [1; 4], "none is kept");
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// A host function lets its guest run until `timer` is set, and then calls it for something else.
fn with_timeout(store: &mut Store<Host>, timer: &Event) -> Result<AsyncFunc<i32, i32>> {
    let timer = timer.clone();
    program(store, move |mut caller, (n,)| {
        let timer = timer.clone();
        Box::new(async move {
            let log = caller.data().log.clone();
            let inner = func(&mut caller, "inner");
            match select(inner.call_within(&mut caller, n), pin!(timer.wait())).await {
                Either::Left((result, _)) => return result,
                Either::Right(((), call)) => {
                    log.add("timeout");
                    drop(call);
                }
            }
            log.add("went on");
            pending(1).await;
            call_back(&mut caller, "inner", 2).await
        })
    })
}

/// The timeout takes effect at the first poll after it is due, whether the guest waits for one thing or for many.
fn timeouts<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for n in [NEVER, 1000] {
        for polls in [1, 2, 7] {
            let timer = Event::default();
            let run = with_timeout(&mut store, &timer)?;
            let waker = CountingWaker::new();
            let mut call = run.call(&mut stack, &mut store, n);
            for _ in 0..polls {
                assert!(poll_with(&mut call, &waker).is_pending());
            }
            assert!(log.take().is_empty());
            let woken = waker.woken();
            timer.set();
            assert_eq!(waker.woken(), woken + 1);
            assert!(poll_with(&mut call, &waker).is_pending());
            assert_eq!(log.take(), ["timeout", "left wait", "went on"]);
            let (polls, result) = end(&mut call);
            assert_eq!((polls, result?), (2 + 1, 21 + RUN));
            drop(call);
            log.take();
            assert_usable(&mut stack, &mut store)?;
        }
    }
    // The guest ends in time.
    let run = with_timeout(&mut store, &Event::default())?;
    assert_eq!(end(&mut run.call(&mut stack, &mut store, 5)).1?, 51 + RUN);
    Ok(())
}

/// The timer does not end the nested call, which takes as long as it takes.
fn timeouts_come_late<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let timer = Event::default();
    let run = with_timeout(&mut store, &timer)?;
    let mut call = run.call(&mut stack, &mut store, 5);
    assert!(poll_once(&mut call).is_pending());
    timer.set();
    let (polls, result) = end(&mut call);
    assert_eq!((polls, result?), (4 + 1, 51 + RUN));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// A guest that never waits, but has time slices.
fn timeouts_of_guests_that_spin<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.epoch_interruption(true);
    })?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_suspend_and_update(1);
    let log = store.data().log.clone();
    let clock = store.engine().clone();
    let time_passes = Func::wrap(&mut store, move || clock.increment_epoch());
    let timer = Event::default();
    let inner = timer.clone();
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        let timer = inner.wait();
        Box::new(async move {
            let log = caller.data().log.clone();
            let spin = export_of(&mut caller, "spin");
            let spins = spin.call_within(&mut caller, &[], &mut []);
            let timed_out = matches!(select(spins, pin!(timer)).await, Either::Right(_));
            log.add(format!("timed out: {timed_out}"));
            pending(1).await;
        })
    });
    let text = r#"(module
        (import "" "" (func $time_passes))
        (import "" "" (func $back))
        (func (export "spin") (loop (call $time_passes) (br 0)))
        (func (export "run") (call $back)))"#;
    let run = runner(&mut store, text, [time_passes, back])?;
    let waker = CountingWaker::new();
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    for _ in 0..10 {
        let woken = waker.woken();
        assert!(poll_with(&mut call, &waker).is_pending());
        assert!(waker.woken() > woken, "to have its next turn");
    }
    timer.set();
    assert!(poll_with(&mut call, &waker).is_pending());
    assert_eq!(log.take(), ["timed out: true"]);
    end(&mut call).1
}

/// The nested guest waits for what the host function sends at the same time.
fn joined_with_what_it_waits_for<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (receive, slot) = receives(&mut store);
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let slot = Arc::clone(&slot);
        Box::new(async move {
            let mut sum = 0;
            for waits in 0..3 {
                let (sender, receiver) = oneshot::channel();
                *slot.lock().expect("nothing panics with the lock held") = Some(receiver);
                let sends = async {
                    pending(waits).await;
                    sender.send(n).expect("somebody waits for it");
                };
                sum += match waits {
                    0 => join(sends, call_back(&mut caller, "inner", 0)).await.1?,
                    1 => futures::join!(call_back(&mut caller, "inner", 0), sends).0?,
                    _ => tokio::join!(call_back(&mut caller, "inner", 0), sends).0?,
                };
            }
            // For the outer guest.
            let (sender, receiver) = oneshot::channel();
            *slot.lock().expect("nothing panics with the lock held") = Some(receiver);
            sender.send(100).expect("somebody waits for it");
            Ok::<_, wasmtime::Error>(sum)
        })
    });
    let run = program_with(&mut store, receive, back)?;
    for n in 0..3 {
        let mut call = run.call(&mut stack, &mut store, n);
        let Poll::Ready(result) = poll_while_woken(&mut call, &CountingWaker::new()) else {
            panic!("waits for itself");
        };
        assert_eq!(result?, 3 * (n + 1) + 100);
    }
    assert_usable(&mut stack, &mut store)
}

/// `run` of a guest whose host function calls the guest and at the same time sends something that the guest may wait
/// for.
fn calls_and_sends(store: &mut Store<Host>, wait: Func, slot: Slot) -> Result<AsyncFunc<i32, i32>> {
    let back = Func::wrap_suspending_boxed(&mut *store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let slot = Arc::clone(&slot);
        Box::new(async move {
            let log = caller.data().log.clone();
            let (sender, receiver) = oneshot::channel();
            *slot.lock().expect("nothing panics with the lock held") = Some(receiver);
            let sends = async {
                log.add("sent");
                _ = sender.send(n);
            };
            join(call_back(&mut caller, "inner", n), sends).await.0
        })
    });
    program_with(store, wait, back)
}

fn others_have_their_turn_afterwards<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = wait(&mut store);
    let run = calls_and_sends(&mut store, wait, Slot::default())?;
    let mut call = run.call(&mut stack, &mut store, 3);
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
        assert!(log.take().is_empty());
    }
    assert_eq!(end(&mut call).1?, 31 + RUN);
    assert_eq!(log.take(), ["left wait", "sent", "left wait"]);
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// A guest that waits for such a message waits in vain until the call is dropped. Then the nested call gets the error,
/// and the poll of the host function ends.
fn guests_wait_in_vain_for_others<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let (receive, slot) = receives(&mut store);
    let run = calls_and_sends(&mut store, receive, slot)?;
    let mut call = run.call(&mut stack, &mut store, 3);
    for _ in 0..10 {
        assert!(poll_once(&mut call).is_pending());
        assert!(log.take().is_empty());
    }
    drop(call);
    assert_eq!(log.take(), ["sent"]);
    assert_usable(&mut stack, &mut store)
}
