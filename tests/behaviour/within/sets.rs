//! Nested calls in sets of futures and in loops, which poll the call that was woken.

use super::composed::{poll_while_woken, program_with, receives};
use super::{RUN, call_back, end, fibers, func, program};
use crate::common::futures::{CountingWaker, pending};
use crate::support::guest::{assert_usable, stack, store};
use crate::support::{Code, Host, Kind};
use crate::wakers::{Event, poll_with};
use futures::channel::{mpsc, oneshot};
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::FuncExt;

fibers!(
    all_at_once,
    among_others_that_are_polled_when_woken,
    sets_within_sets,
    loops_of_futures_select,
    loops_of_tokio_select,
    polled_now_and_then,
);

/// More calls than [`join_all`] polls by itself.
fn all_at_once<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let mut all: Vec<BoxFuture<'_, Result<i32>>> = Vec::new();
            for other in 0..50 {
                all.push(Box::pin(async move {
                    pending(usize::try_from(other)? % 7).await;
                    Ok(other)
                }));
            }
            all.insert(20, Box::pin(call_back(&mut caller, "inner", n)));
            join_all(all).await.into_iter().sum()
        })
    })?;
    for n in 0..10 {
        let mut call = run.call(&mut stack, &mut store, n);
        let Poll::Ready(result) = poll_while_woken(&mut call, &CountingWaker::new()) else {
            panic!("a wake-up was lost {n}");
        };
        assert_eq!(result?, 49 * 50 / 2 + 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Counts the polls of a future.
fn counted<F: Future>(polls: &Arc<AtomicUsize>, future: F) -> impl Future<Output = F::Output> {
    let polls = Arc::clone(polls);
    async move {
        let mut future = pin!(future);
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// [`FuturesUnordered`] gives each of its futures a waker of its own.
fn among_others_that_are_polled_when_woken<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let (guests, others) = (Event::default(), Event::default());
    let polls = Arc::new(AtomicUsize::new(0));
    let waits_for = guests.clone();
    let wait = Func::wrap_suspending_send(&mut store, move |n: i32| {
        let event = waits_for.wait();
        async move {
            event.await;
            pending(3).await;
            n
        }
    });
    let (inner_others, inner_polls) = (others.clone(), Arc::clone(&polls));
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let (other, polls) = (inner_others.wait(), Arc::clone(&inner_polls));
        Box::new(async move {
            let log = caller.data().log.clone();
            let mut set = FuturesUnordered::<BoxFuture<'_, Result<i32>>>::new();
            set.push(Box::pin(counted(&polls, other.map(|()| Ok(1000)))));
            set.push(Box::pin(call_back(&mut caller, "inner", n)));
            for waits in 1..4 {
                set.push(Box::pin(pending(waits).map(|()| Ok(100))));
            }
            let mut sum = 0;
            while let Some(number) = set.next().await {
                sum += number?;
                log.add(format!("after {sum}"));
            }
            drop(set);
            Ok::<_, wasmtime::Error>(sum + call_back(&mut caller, "inner", n).await?)
        })
    });
    let run = program_with(&mut store, wait, back)?;
    let mut call = run.call(&mut stack, &mut store, 5);
    let waker = CountingWaker::new();
    assert!(poll_while_woken(&mut call, &waker).is_pending());
    assert_eq!(log.take(), ["after 100", "after 200", "after 300"]);
    let woken = waker.woken();
    guests.set();
    assert_eq!(waker.woken(), woken + 1);
    assert!(poll_while_woken(&mut call, &waker).is_pending());
    assert_eq!((log.take(), polls.load(Ordering::Relaxed)), (vec!["after 306".to_owned()], 1));
    let woken = waker.woken();
    others.set();
    assert_eq!(waker.woken(), woken + 1);
    let Poll::Ready(result) = poll_while_woken(&mut call, &waker) else { panic!("a wake-up was lost") };
    assert_eq!((result?, polls.load(Ordering::Relaxed)), (1306 + 6 + 1, 2));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// A nested call in a set within a set, on each of several levels. The innermost guest waits for another future of the
/// outermost set.
fn sets_within_sets<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 5;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (receive, slot) = receives(&mut store);
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let slot = Arc::clone(&slot);
        Box::new(async move {
            let mut sender = None;
            if n == DEPTH {
                let (sends, receiver) = oneshot::channel();
                *slot.lock().expect("nothing panics with the lock held") = Some(receiver);
                sender = Some(sends);
            }
            let inner = FuturesUnordered::<BoxFuture<'_, Result<i32>>>::new();
            inner.push(Box::pin(pending(2).map(|()| Ok(1))));
            inner.push(Box::pin(call_back(&mut caller, if n == 0 { "inner" } else { "again" }, n - 1)));
            let outer = FuturesUnordered::<BoxFuture<'_, Result<i32>>>::new();
            outer.push(Box::pin(async move { inner.collect::<Vec<_>>().await.into_iter().sum() }));
            outer.push(Box::pin(async move {
                pending(20).await;
                if let Some(sender) = sender {
                    sender.send(1000).expect("somebody waits for it");
                }
                Ok(1)
            }));
            let sum: Result<i32> = outer.collect::<Vec<_>>().await.into_iter().sum();
            // For the outer guest.
            let (sender, receiver) = oneshot::channel();
            sender.send(10_000).expect("the receiver is there");
            *slot.lock().expect("nothing panics with the lock held") = Some(receiver);
            sum
        })
    });
    let run = program_with(&mut store, receive, back)?;
    let mut call = run.call(&mut stack, &mut store, DEPTH);
    let Poll::Ready(result) = poll_while_woken(&mut call, &CountingWaker::new()) else { panic!("a wake-up was lost") };
    assert_eq!(result?, 1000 + (DEPTH + 1) * (1 + 1 + 1) + 10_000);
    drop(call);
    assert_usable(&mut stack, &mut store)
}

type Ticks = mpsc::UnboundedReceiver<i32>;

/// A guest that waits until it is told to end, and a host function that receives ticks in the meantime.
fn takes_ticks<K: Kind>(code: Code, takes: fn(Caller<'_, Host>, Ticks) -> BoxFuture<'_, Result<i32>>) -> Result<()> {
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
    let (sender, ticks) = mpsc::unbounded();
    let ticks = Mutex::new(Some(ticks));
    let back = Func::wrap_suspending_boxed(&mut store, move |caller: Caller<'_, Host>, (_,): (i32,)| {
        let ticks = ticks.lock().expect("nothing panics with the lock held").take();
        Box::new(takes(caller, ticks.expect("is called once")))
    });
    let run = program_with(&mut store, wait, back)?;
    let waker = CountingWaker::new();
    let mut call = run.call(&mut stack, &mut store, 0);
    let mut sum = 0;
    for tick in 1..20 {
        assert!(poll_while_woken(&mut call, &waker).is_pending());
        let woken = waker.woken();
        sender.unbounded_send(tick)?;
        assert!(waker.woken() > woken);
        sum += tick;
        if tick % 5 == 0 {
            // Several ticks at once, and polls without any.
            sender.unbounded_send(tick)?;
            assert!(poll_with(&mut call, &waker).is_pending());
            sum += tick;
        }
    }
    assert!(poll_while_woken(&mut call, &waker).is_pending());
    let woken = waker.woken();
    event.set();
    assert_eq!(waker.woken(), woken + 1);
    let Poll::Ready(result) = poll_while_woken(&mut call, &waker) else { panic!("a wake-up was lost") };
    assert_eq!(result?, sum + 4 + 1 + 1);
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn loops_of_futures_select<K: Kind>(code: Code) -> Result<()> {
    takes_ticks::<K>(code, |mut caller, mut ticks| {
        Box::pin(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, 4).fuse();
            let mut sum = 0;
            loop {
                futures::select! {
                    result = call => break Ok(sum + result?),
                    tick = ticks.next() => sum += tick.expect("there are more"),
                }
            }
        })
    })
}

fn loops_of_tokio_select<K: Kind>(code: Code) -> Result<()> {
    takes_ticks::<K>(code, |mut caller, mut ticks| {
        Box::pin(async move {
            let inner = func(&mut caller, "inner");
            let mut call = inner.call_within(&mut caller, 4);
            let mut sum = 0;
            loop {
                tokio::select! {
                    tick = ticks.next() => sum += tick.expect("there are more"),
                    result = &mut call => break Ok(sum + result?),
                }
            }
        })
    })
}

/// The host function's future waits for something else in between, so not each of its polls polls the nested call.
fn polled_now_and_then<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for waits in 0..4 {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                let inner = func(&mut caller, "inner");
                let mut call = inner.call_within(&mut caller, n);
                for _ in 0..100 {
                    pending(waits).await;
                    if let Poll::Ready(result) = futures::poll!(&mut call) {
                        return result;
                    }
                    pending(1).await;
                }
                panic!("does not get on");
            })
        })?;
        for n in 0..5 {
            assert_eq!(end(&mut run.call(&mut stack, &mut store, n)).1?, 10 * n + 1 + RUN);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
